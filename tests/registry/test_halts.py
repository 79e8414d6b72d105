"""Tests of halts: what they cover, how long they stand, what the audit trail says of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tickserve_registry.errors import HaltsUnreadable, ModelNotFound, NotHalted, ReasonMissing
from tickserve_registry.halts import ALL_MODELS
from tickserve_registry.model_registry import ModelRegistry

FAMILY = "eurusd_1h_xgb_trend"


@pytest.fixture
def two(registry: ModelRegistry, classifier: Any, info: Callable[..., Any]) -> ModelRegistry:
    """Return a registry with versions 1 (archive) and 2 (production)."""
    for version in (1, 2):
        registry.save_model(classifier, info(version=version), environment="production")
    return registry


def halted(registry: ModelRegistry) -> list[int]:
    """Return the versions that are halted, asked of a new registry on the same root."""
    halts = ModelRegistry(registry.storage_root).halts()
    return [entry.version for entry in registry.entries() if halts.of(entry) is not None]


@pytest.mark.parametrize(
    ("name", "versions"),
    [(ALL_MODELS, [1, 2]), (FAMILY, [1, 2]), (f"{FAMILY}_v2", [2]), (FAMILY.upper(), [1, 2])],
)
def test_a_halt_covers_what_goes_by_its_name(
    two: ModelRegistry, name: str, versions: list[int]
) -> None:
    """All, a family, a version; it stands for every registry on the root until it is lifted."""
    two.halt_model(name, reason="spread widened")
    assert halted(two) == versions
    (lifted,) = two.resume_model(name)
    assert (lifted.reason, halted(two)) == ("spread widened", [])


def test_a_build_is_halted_by_its_own_name(two: ModelRegistry) -> None:
    """The widest of several halts is told; resuming everything lifts them all."""
    entry = two.find(FAMILY)
    two.halt_model(entry.build, reason="narrow")
    two.halt_model(FAMILY, reason="wide")
    halt = two.halts().of(entry)
    assert halt is not None
    assert halt.reason == "wide"
    assert len(two.resume_model()) == 2


def test_a_second_halt_replaces_the_reason(two: ModelRegistry) -> None:
    """One name has one halt."""
    for reason in ("first", "second"):
        two.halt_model(FAMILY, reason=reason)
    assert [halt.reason for halt in two.halts().standing] == ["second"]


def test_what_cannot_be_halted_or_resumed_is_refused(two: ModelRegistry) -> None:
    """An unknown name, no reason, and a resumption under another name change nothing."""
    with pytest.raises(ModelNotFound, match="trend"):
        two.halt_model("eurusd_1h_xgb_trand", reason="typo")
    with pytest.raises(ReasonMissing):
        two.halt_model(FAMILY, reason=" ")
    two.halt_model(FAMILY, reason="wide")
    with pytest.raises(NotHalted, match=f"halted are: {FAMILY}") as refused:
        two.resume_model(f"{FAMILY}_v2")
    assert refused.value.halted == (FAMILY,)
    assert halted(two) == [1, 2]


def test_the_audit_trail_tells_and_stays_sound(two: ModelRegistry) -> None:
    """Halts stand in a model's history; verify and rollback are not led astray by them."""
    two.halt_model(FAMILY, reason="spread widened")
    two.resume_model(FAMILY, reason="spread is back")
    trail = two.history(f"{FAMILY}_v1")
    assert [(each.action, each.reason) for each in trail[-2:]] == [
        ("halt", "spread widened"),
        ("resume", "spread is back"),
    ]
    two.halt_model(two.find(FAMILY).build, reason="again")
    assert two.verify()
    assert not two.rebuild().repaired
    assert two.rollback(FAMILY).model_id == f"{FAMILY}_v1"


@pytest.mark.parametrize("content", [b"", b"{", b'{"halts": [{"model": 1}]}', b"\xff\xfe"])
def test_a_damaged_file_is_no_empty_one(two: ModelRegistry, content: bytes) -> None:
    """What is halted is unknown then, and neither readers nor writers guess."""
    path = Path(two.storage_root) / "metadata" / "halts.json"
    path.write_bytes(content)
    with pytest.raises(HaltsUnreadable):
        two.halts()
    with pytest.raises(HaltsUnreadable):
        two.halt_model(FAMILY, reason="more")
    assert path.read_bytes() == content
