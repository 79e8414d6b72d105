"""Writes live figures into each model's metadata, and the metric log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa
import structlog

from tickserve_registry.errors import RegistryError
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.performance import comparability
from tickserve_server.recorder import schema
from tickserve_server.recorder.committer import Task
from tickserve_server.recorder.ledger import Ledger
from tickserve_server.recorder.live import LiveBook
from tickserve_server.recorder.metriclog import MetricLog
from tickserve_server.recorder.reader import LedgerReader
from tickserve_server.settings import RecorderSettings

log = structlog.get_logger(__name__)

SNAPSHOT = ("sharpe_ratio", "max_drawdown", "win_rate", "profit_factor", "n_trades", "net_pnl")
EARLIER = (*SNAPSHOT, "period_start", "period_end", "as_of", "ledger")
MOST_EARLIER = 5
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
LATE_PERIODS = 3
LATE_S = 10.0


class WriteBack:
    """Runs in the schedule's threads; reads the live book and the ledger, writes the registry.

    `hand_over` has the recorder's loop store the figures in the ledger, too; `parked` tells how
    many predictions are waited for.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        book: LiveBook,
        reader: LedgerReader,
        metric_log: MetricLog,
        settings: RecorderSettings,
        *,
        ledger: str,
        parked: Callable[[], int],
        publish: Callable[[str, dict[str, Any]], None],
        hand_over: Callable[[Task], None],
        clock: Callable[[], int],
    ) -> None:
        self._registry = registry
        self._book = book
        self._reader = reader
        self._metric_log = metric_log
        self._settings = settings
        self._ledger = ledger
        self._parked = parked
        self._publish = publish
        self._hand_over = hand_over
        self._clock = clock
        self._writing = threading.Lock()
        self._done_at = time.monotonic()
        self._today = -1
        self.took_s = 0.0
        """How long the last run took."""
        self.failures: dict[str, str] = {}
        """Builds whose figures could not be written when that was last tried, and why."""

    @property
    def age_s(self) -> float:
        """Seconds since the last run, whether or not anything was to be written."""
        return time.monotonic() - self._done_at

    @property
    def problems(self) -> list[str]:
        """Return why live figures in the metadata are not up to date, if so."""
        found = [f"live figures of {build}: {why}" for build, why in self.failures.items()]
        if self.age_s > max(LATE_S, LATE_PERIODS * self._settings.writeback_seconds):
            found.append(f"no live figures have been written for {self.age_s:.0f} s")
        return found

    def write_changed(self) -> None:
        """Write each build that has changed; one that fails is tried again next time."""
        with self._writing:
            started = time.monotonic()
            self._notice_new_day()
            self._renew()
            changed = sorted(self._book.take_changed())
            failed = [build for build in changed if not self._write(build)]
            self._book.mark_changed(failed)
            self._done_at = time.monotonic()
            self.took_s = self._done_at - started
        if changed:
            seconds, written = round(self.took_s, 6), len(changed) - len(failed)
            log.info("figures_written", builds=written, failed=len(failed), seconds=seconds)

    def log_all(self) -> None:
        """Write one metric line for each build."""
        now = self._clock()
        for build in self._book.builds():
            block = self._book.block(build, as_of=now)
            if block is not None:
                latency = self._book.latency(build)
                self._metric_log.write(build, block, latency, writeback_age_s=self.age_s)

    def close(self) -> None:
        """Write what has changed since the last run, and the last lines."""
        self.write_changed()
        self.log_all()
        self._metric_log.close()

    def _notice_new_day(self) -> None:
        """Have all builds written when a day is over, which then counts in the daily returns."""
        today = self._clock() // DAY_MS
        if today != self._today:
            self._today = today
            self._book.mark_changed(self._book.builds())

    def _renew(self) -> None:
        """Make anew from the ledger what late or corrected feedback has outdated."""
        try:
            for build in self._book.outdated():
                generation, track = self._book.generation, self._book.start_over(build)
                position = self._reader.replay(build, track)
                self._book.renew(build, track, position=position, generation=generation)
            for run in self._book.outdated_runs():
                self._book.renew_marked(run, self._reader.marked_equity(run))
        except sa.exc.DBAPIError as error:
            log.error("ledger_unreadable", reason=str(error.orig))

    def _write(self, build: str) -> bool:
        try:
            self._write_block(build)
        except (RegistryError, OSError) as error:
            self._note(build, str(error))
        except sa.exc.DBAPIError as error:
            self._note(build, f"the ledger cannot be read: {error.orig}")
        else:
            self.failures.pop(build, None)
            return True
        return False

    def _note(self, build: str, reason: str) -> None:
        if self.failures.get(build) != reason:
            log.error("writeback_failed", build=build, reason=reason)
        self.failures[build] = reason

    def _write_block(self, build: str) -> None:
        now = self._clock()
        block = self._book.block(build, as_of=now)
        if block is None:
            raise OSError("its trades are being read anew")
        metadata = self._registry.metadata(build)
        performance = metadata.document.get("performance") or {}
        past = performance.get("live") or {}
        block |= comparability(block, performance.get("validation"))
        block |= self._marked_to_market(build)
        block["serving"]["parked"] = self._parked()
        block["ledger"] = self._ledger
        block["earlier"] = _earlier(past, ledger=self._ledger)
        block["history"] = _history(past, block, now=now, days=self._settings.history_days)
        if _tells_nothing_new(past, block):
            return
        self._registry.record_live_performance(build, block)
        self._hand_over(_stored_snapshot(build, block, now))
        figures = {name: block[name] for name in SNAPSHOT}
        log.info("writeback", build=build, **figures)
        self._publish(f"metrics.{metadata.name.model_id}", {"build": build, **figures})

    def _marked_to_market(self, build: str) -> dict[str, Any]:
        """Return the largest drawdown of equity that runs with this build alone have marked."""
        alone, shared = self._reader.runs_of(build)
        drawdown = self._book.marked_drawdown(alone)
        status = "ok" if drawdown is not None else "runs_trade_others" if shared else "no_snapshots"
        return {"max_drawdown_marked": drawdown, "max_drawdown_marked_status": status}


def _tells_nothing_new(past: dict[str, Any], block: dict[str, Any]) -> bool:
    """Whether a block differs from the one in the metadata by when it was made alone."""
    return {**past, "as_of": None} == {**_as_read(block), "as_of": None}


def _as_read(block: dict[str, Any]) -> dict[str, Any]:
    """Return a block as it comes back from its file."""
    read: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(block))
    return read


def _stored_snapshot(build: str, block: dict[str, Any], now: int) -> Task:
    body = {name: value for name, value in block.items() if name not in {"history", "earlier"}}
    row = {
        "build": build,
        "hour": now // HOUR_MS * HOUR_MS,
        "at": now,
        "body": msgspec.json.encode(body).decode(),
    }

    def store(ledger: Ledger) -> None:
        ledger.put(schema.metric_snapshots, [row])

    return store


def _earlier(past: dict[str, Any], *, ledger: str) -> list[dict[str, Any]]:
    """Return what other ledgers said last, so that a new one does not make it forgotten."""
    known: list[dict[str, Any]] = past.get("earlier") or []
    if not past.get("n_trades") or past.get("ledger") in {None, ledger}:
        return known
    return [*known, {name: past.get(name) for name in EARLIER}][-MOST_EARLIER:]


def _history(
    past: dict[str, Any], block: dict[str, Any], *, now: int, days: int
) -> list[dict[str, Any]]:
    """Return the daily snapshots with today's replaced, the oldest beyond the bound dropped."""
    today = datetime.fromtimestamp(now / 1000, UTC).strftime("%Y-%m-%d")
    kept = [each for each in past.get("history") or [] if each.get("date") != today]
    return [*kept, {"date": today} | {name: block[name] for name in SNAPSHOT}][-days:]
