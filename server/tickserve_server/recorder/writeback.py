"""Writes live figures into each model's metadata, on a schedule and when asked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from tickserve_registry.errors import RegistryError
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.performance import comparability
from tickserve_server.recorder.live import LiveBook
from tickserve_server.recorder.metriclog import MetricLog
from tickserve_server.settings import RecorderSettings

log = structlog.get_logger(__name__)

SNAPSHOT = ("sharpe_ratio", "max_drawdown", "win_rate", "profit_factor", "n_trades", "net_pnl")


class WriteBack:
    """Runs in APScheduler's threads; reads the live book, never the ledger's connection."""

    def __init__(
        self,
        registry: ModelRegistry,
        book: LiveBook,
        metric_log: MetricLog,
        settings: RecorderSettings,
        *,
        publish: Callable[[str, dict[str, Any]], None],
        clock: Callable[[], int],
    ) -> None:
        self._registry = registry
        self._book = book
        self._metric_log = metric_log
        self._settings = settings
        self._publish = publish
        self._clock = clock
        self._writing = threading.Lock()
        # A late run is better than none, and two at once are never wanted.
        defaults = {"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        self._scheduler = BackgroundScheduler(timezone=UTC, job_defaults=defaults)

    def start(self) -> None:
        """Begin the periodic jobs."""
        settings = self._settings
        self._scheduler.add_job(self.write_changed, "interval", seconds=settings.writeback_seconds)
        self._scheduler.add_job(self.log_all, "interval", seconds=settings.metric_log_seconds)
        self._scheduler.start()

    def soon(self) -> None:
        """Write what has changed now, without waiting; for a build that leaves production."""
        self._scheduler.add_job(self.write_changed)

    def stop(self) -> None:
        """End the jobs and write what has changed since the last run."""
        self._scheduler.shutdown(wait=True)
        self.write_changed()
        self.log_all()
        self._metric_log.close()

    def write_changed(self) -> None:
        """Write each build whose trades have changed; one that fails is tried again next time."""
        with self._writing:
            failed = [
                build for build in sorted(self._book.take_changed()) if not self._write(build)
            ]
            self._book.mark_changed(failed)

    def log_all(self) -> None:
        """Write one metric line for each build."""
        now = self._clock()
        for build in self._book.builds():
            block = self._book.block(build, as_of=now)
            self._metric_log.write(build, block, self._book.latency(build))

    def _write(self, build: str) -> bool:
        now = self._clock()
        try:
            metadata = self._registry.metadata(build)
            performance = metadata.document.get("performance") or {}
            block = self._book.block(build, as_of=now)
            block |= comparability(block, performance.get("validation"))
            past = (performance.get("live") or {}).get("history") or []
            block["history"] = _history(past, block, now=now, days=self._settings.history_days)
            self._registry.record_live_performance(build, block)
        except (RegistryError, OSError) as error:
            log.error("writeback_failed", build=build, reason=str(error))
            return False
        figures = {name: block[name] for name in SNAPSHOT}
        log.info("writeback", build=build, **figures)
        self._publish(f"metrics.{metadata.name.model_id}", {"build": build, **figures})
        return True


def _history(
    past: list[dict[str, Any]], block: dict[str, Any], *, now: int, days: int
) -> list[dict[str, Any]]:
    """Return the daily snapshots with today's replaced, the oldest beyond the bound dropped."""
    today = datetime.fromtimestamp(now / 1000, UTC).strftime("%Y-%m-%d")
    kept = [each for each in past if each.get("date") != today]
    return [*kept, {"date": today} | {name: block[name] for name in SNAPSHOT}][-days:]
