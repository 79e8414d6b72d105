"""Write-back: what is written when, and what is kept of what was there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.daemon import model_info, train
from tests.recording import BUILD, Recorder, outcome
from tests.server.recorder.blocks import written_back
from tickserve_registry.model_registry import ModelRegistry
from tickserve_server.recorder import schema

DAY = 86_400_000


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    """A registry with the model."""
    made = ModelRegistry(tmp_path / "storage")
    info = model_info() | {"strategy": "trend", "date": "20250101"}
    made.save_model(train(trees=3), info)
    return made


def live(registry: ModelRegistry) -> dict[str, Any]:
    """The block in the metadata."""
    block: dict[str, Any] = registry.metadata(BUILD).document["performance"]["live"]
    return block


def test_only_what_has_changed_is_written(recorder: Recorder, registry: ModelRegistry) -> None:
    """The same figures again leave the file alone; a trade and a new day do not."""
    recorder.tell(outcome(pnl=3.0))
    writing = written_back(recorder, registry)
    revision = registry.metadata(BUILD).revision
    recorder.book.mark_changed([BUILD])
    writing.write_changed()
    assert registry.metadata(BUILD).revision == revision
    recorder.tell(outcome("2", pnl=4.0))
    writing.write_changed()
    assert (registry.metadata(BUILD).revision, live(registry)["n_trades"]) == (revision + 1, 2)
    recorder.now += DAY
    writing.write_changed()
    assert registry.metadata(BUILD).revision == revision + 2
    assert len(live(registry)["history"]) == 2
    recorder.tell()
    rows = list(recorder.reader.rows(schema.metric_snapshots.select()))
    assert [row["build"] for row in rows] == [BUILD, BUILD]


def test_a_day_that_ends_counts_without_a_trade(
    recorder: Recorder, registry: ModelRegistry
) -> None:
    """Today's trades enter the daily returns when the day is over."""
    for number in range(3):
        at = recorder.now - number * DAY
        recorder.tell(outcome(str(number), pnl=number + 1.0, opened_at=None, closed_at=at))
    writing = written_back(recorder, registry)
    assert (live(registry)["n_days"], live(registry)["open_day"]["n_trades"]) == (2, 1)
    recorder.now += DAY
    writing.write_changed()
    assert (live(registry)["n_days"], live(registry)["open_day"]["n_trades"]) == (3, 0)


def test_a_new_ledger_does_not_make_the_old_one_forgotten(
    ledger_url: str, registry: ModelRegistry, tmp_path: Path
) -> None:
    """What the ledger before it said last stays beside the new figures, once."""
    with Recorder(ledger_url) as first:
        first.tell(outcome("1", pnl=3.0), outcome("2", pnl=4.0))
        written_back(first, registry)
        identity = first.ledger.identity
    with Recorder(f"sqlite:///{tmp_path / 'another.sqlite3'}") as second:
        for number in ("3", "4"):
            second.tell(outcome(number, pnl=-1.0))
            written_back(second, registry)
    (earlier,) = live(registry)["earlier"]
    assert (earlier["ledger"], earlier["n_trades"], earlier["net_pnl"]) == (identity, 2, 7.0)
    assert live(registry)["n_trades"] == 2


def test_a_build_that_cannot_be_written_is_told_and_tried_again(
    recorder: Recorder, registry: ModelRegistry
) -> None:
    """Its metadata is away for a while; nothing else is kept waiting."""
    recorder.tell(outcome(pnl=3.0))
    entry = registry.find(BUILD)
    path = Path(registry.storage_root) / entry.metadata_path
    hidden = path.rename(path.with_suffix(".hidden"))
    writing = written_back(recorder, registry)
    assert BUILD in writing.failures
    assert BUILD in writing.problems[0]
    hidden.rename(path)
    writing.write_changed()
    assert writing.problems == []
    assert live(registry)["n_trades"] == 1
