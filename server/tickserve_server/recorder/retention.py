"""Retention: exports what has grown old, then deletes it; what figures are made of stays."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog

from tickserve_server.errors import DaemonError
from tickserve_server.recorder import schema
from tickserve_server.recorder.committer import Task
from tickserve_server.recorder.export import SOURCES, Exported, count, export
from tickserve_server.recorder.ledger import Ledger
from tickserve_server.recorder.reader import LedgerReader
from tickserve_server.settings import RetentionSettings

log = structlog.get_logger(__name__)

DAY_MS = 86_400_000
MOST_KEYS = 256
"""Rows deleted in one turn, so that feedback is not kept waiting."""


class Retention:
    """Runs in the schedule's threads; the recorder's loop deletes, by the keys exported.

    Outcomes, their revisions, labels and equity are never deleted.
    """

    def __init__(
        self,
        reader: LedgerReader,
        settings: RetentionSettings,
        *,
        folder: Path,
        hand_over: Callable[[Task], None],
        clock: Callable[[], int],
    ) -> None:
        self._reader = reader
        self._folder = folder
        self._export = settings.export
        self._hand_over = hand_over
        self._clock = clock
        self._days = {
            "predictions": settings.predictions_days,
            "events": settings.events_days,
            "metric_snapshots": settings.snapshots_days,
        }

    def apply(self) -> None:
        """Export and delete what is older than its policy allows; a failure deletes nothing."""
        for source, days in self._days.items():
            if days:
                try:
                    self._expire(source, self._clock() - round(days * DAY_MS))
                except (DaemonError, OSError, sa.exc.DBAPIError) as error:
                    log.error("retention_failed", source=source, reason=str(error))

    def _expire(self, source: str, limit: int) -> None:
        if not self._export:
            self._hand_over(_expiry(source, limit))
            return
        if not count(self._reader, source, since=None, until=limit):
            return
        stamp = dt.datetime.fromtimestamp(self._clock() / 1000, dt.UTC).strftime("%Y%m%dT%H%M%S%fZ")
        file = self._folder / source / f"{source}-{stamp}.parquet"
        done = export(self._reader, source, file, until=limit)
        log.info("exported", source=source, file=str(file), rows=done.rows)
        self._hand_over(_noted(done, at=self._clock()))
        for start in range(0, len(done.keys), MOST_KEYS):
            self._hand_over(_deletion(source, done.keys[start : start + MOST_KEYS]))


def _noted(done: Exported, *, at: int) -> Task:
    row = {"source": done.source, "file": str(done.file), "rows": done.rows, "at": at}

    def note(ledger: Ledger) -> None:
        ledger.add(schema.exports, [row])

    return note


def _deletion(source: str, keys: Sequence[tuple[Any, ...]]) -> Task:
    def delete(ledger: Ledger) -> None:
        ledger.delete(SOURCES[source].table, keys)

    return delete


def _expiry(source: str, limit: int) -> Task:
    table, column = SOURCES[source].table, SOURCES[source].time
    assert column is not None  # noqa: S101 - what has a policy has a time

    def delete(ledger: Ledger) -> None:
        deleted = ledger.delete_before(table, column, limit)
        if deleted:
            log.info("expired", source=source, rows=deleted)

    return delete
