"""Tests of verify and rebuild: the states that a crash or a hand can leave."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tickserve_registry.errors import CatalogUnreadable
from tickserve_registry.model_registry import ModelRegistry


@pytest.fixture
def saved(registry: ModelRegistry, classifier: Any, info: Callable[..., Any]) -> Path:
    """Return the metadata file of a build in staging."""
    return Path(registry.save_model(classifier, info())[1])


def test_a_move_that_stopped_before_its_commit(registry: ModelRegistry, saved: Path) -> None:
    """New files without an index entry: the higher revision wins, the older copy goes."""
    root = Path(registry.storage_root)
    before = (root / "metadata/registry.json").read_bytes()
    originals = {each.name: each.read_bytes() for each in saved.parent.iterdir()}
    registry.promote_model(saved.stem)
    for name, data in originals.items():
        (saved.parent / name).write_bytes(data)
    (root / "metadata/registry.json").write_bytes(before)
    assert not registry.verify()
    assert registry.rebuild()
    assert registry.verify()
    assert [each.build for each in registry.production()] == [saved.stem]
    assert not saved.exists()


def test_files_without_metadata_are_set_aside(registry: ModelRegistry, saved: Path) -> None:
    """A save that stopped before its metadata is seen, and set aside rather than deleted."""
    orphan = saved.with_name("eurusd_1h_xgb_trend_v1_20200101.model")
    orphan.write_bytes(b"unfinished")
    assert not registry.verify()
    registry.rebuild()
    assert registry.verify()
    kept = Path(registry.storage_root, "metadata", "orphans").glob(f"*/{orphan.name}")
    assert [each.read_bytes() for each in kept] == [b"unfinished"]


def test_a_copy_in_the_wrong_folder_costs_nothing(registry: ModelRegistry, saved: Path) -> None:
    """A hand's copy in another environment is reported, and the real files stay."""
    shutil.copytree(saved.parent, Path(registry.storage_root, "archive", "eurusd", "v1"))
    assert not registry.verify()
    registry.rebuild()
    assert saved.exists()
    assert [each.environment for each in registry.entries()] == ["staging"]
    registry.load_model(saved.stem)


def test_a_damaged_build_stays_in_the_index(registry: ModelRegistry, saved: Path) -> None:
    """A build whose artefact is damaged is reported and kept, so that it can be restored."""
    saved.with_suffix(".model").write_bytes(b"damaged")
    assert not registry.rebuild()
    assert [each.build for each in registry.entries()] == [saved.stem]


def test_a_lost_index_is_no_empty_registry(registry: ModelRegistry, saved: Path) -> None:
    """Where models lie without an index nothing pretends that there are none."""
    before = registry.entries()
    shutil.rmtree(Path(registry.storage_root, "metadata"))
    fresh = ModelRegistry(registry.storage_root)
    with pytest.raises(CatalogUnreadable, match="tickserve rebuild"):
        fresh.entries()
    with pytest.raises(CatalogUnreadable):
        fresh.promote_model(saved.stem)
    assert fresh.rebuild()
    assert fresh.entries() == before
    assert fresh.verify()


def test_an_unreadable_build_stays_in_the_index(registry: ModelRegistry, saved: Path) -> None:
    """A rebuild keeps the entry of a build whose metadata is damaged, and says what is wrong."""
    whole = saved.read_bytes()
    saved.write_bytes(whole[:40])
    assert "files are gone" not in str(registry.verify())
    assert not registry.rebuild()
    assert [each.build for each in registry.entries()] == [saved.stem]
    saved.write_bytes(whole)
    assert registry.verify()


def test_types_edited_by_hand_are_found(registry: ModelRegistry, saved: Path) -> None:
    """Verify finds a known field of another type, and nothing that reads it breaks."""
    document = json.loads(saved.read_text())
    document |= {"performance": {"backtest": "good"}, "training_period": "2020"}
    saved.write_text(json.dumps(document))
    assert "performance" in str(registry.verify())
    assert len(registry.list_models()) == len(registry.compare([saved.stem])) == 1
