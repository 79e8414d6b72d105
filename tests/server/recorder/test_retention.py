"""Retention: nothing is deleted that is not exported, or told to be."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.recording import Recorder, outcome
from tickserve_server.recorder import schema
from tickserve_server.recorder.retention import Retention
from tickserve_server.settings import RetentionSettings

DAY = 86_400_000


def kept(recorder: Recorder, settings: RetentionSettings, folder: Path) -> int:
    """Apply a policy; return how many parcels are left."""
    retention = Retention(
        recorder.reader,
        settings,
        folder=folder,
        hand_over=recorder.committer.hand_over,
        clock=lambda: recorder.now,
    )
    retention.apply()
    while recorder.committer.has_chores:
        recorder.tell()
    return recorder.reader.count(schema.prediction_parcels)


def test_what_is_old_is_exported_and_then_deleted(recorder: Recorder, tmp_path: Path) -> None:
    """The files hold what the ledger no longer has; figures and counts stay."""
    old = recorder.predict([0.1, 0.2])
    recorder.tell(outcome())
    recorder.now += 3 * DAY
    recorder.predict([0.3])
    folder = tmp_path / "exports"
    assert kept(recorder, RetentionSettings(predictions_days=2.0), folder) == 1
    (file,) = (folder / "predictions").iterdir()
    assert pd.read_parquet(file)["prediction_id"].tolist() == old
    (note,) = recorder.reader.rows(schema.exports.select())
    assert (note["file"], note["rows"]) == (str(file), 2)
    assert recorder.block()["serving"]["predictions"] == 3
    assert recorder.block()["n_trades"] == 1
    assert kept(recorder, RetentionSettings(predictions_days=2.0), folder) == 1
    assert len(list((folder / "predictions").iterdir())) == 1


def test_without_a_policy_nothing_goes(recorder: Recorder, tmp_path: Path) -> None:
    """The default keeps all for ever, and outcomes are kept under any."""
    recorder.predict([0.1])
    recorder.tell(outcome())
    recorder.now += 10_000 * DAY
    assert kept(recorder, RetentionSettings(), tmp_path) == 1
    short = RetentionSettings(predictions_days=1, events_days=1, snapshots_days=1, export=False)
    assert kept(recorder, short, tmp_path / "none") == 0
    assert not (tmp_path / "none").exists()
    assert recorder.reader.count(schema.outcomes) == 1


def test_what_cannot_be_exported_is_not_deleted(
    recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason is in the log, and the next run tries again."""
    recorder.predict([0.1])
    recorder.now += 3 * DAY
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    policy = RetentionSettings(predictions_days=2.0)
    assert kept(recorder, policy, blocked) == 1
    assert "retention_failed" in capsys.readouterr().out
    assert kept(recorder, policy, tmp_path / "exports") == 0
