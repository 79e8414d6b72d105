"""Writing figures back without a schedule."""

from __future__ import annotations

from tests.recording import Recorder
from tickserve_registry.model_registry import ModelRegistry
from tickserve_server.recorder.metriclog import MetricLog
from tickserve_server.recorder.writeback import WriteBack
from tickserve_server.settings import RecorderSettings


def written_back(recorder: Recorder, registry: ModelRegistry) -> WriteBack:
    """Run one write-back; return it, to be run again."""
    events: list[object] = []
    made = WriteBack(
        registry,
        recorder.book,
        recorder.reader,
        MetricLog(None),
        RecorderSettings(),
        ledger=recorder.ledger.identity,
        parked=lambda: recorder.feedback.parked,
        publish=lambda *event: events.append(event),
        hand_over=recorder.committer.hand_over,
        clock=lambda: recorder.now,
    )
    made.write_changed()
    return made
