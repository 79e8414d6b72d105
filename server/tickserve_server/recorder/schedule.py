"""Periodic jobs that keep running whatever the clock does."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC

import structlog
from apscheduler.schedulers.background import BackgroundScheduler

log = structlog.get_logger(__name__)

STEP_S = 2.0
"""A difference between the clock and the time that has passed that is no mere adjustment."""


class Schedule:
    """Jobs in APScheduler's threads, each by its period in seconds, never two runs at once.

    APScheduler goes by the clock: set back by an hour, it would wait for an hour. watch() sees such
    a step and begins all periods anew.
    """

    def __init__(self) -> None:
        # A late run is better than none, and two at once are never wanted.
        defaults = {"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        self._scheduler = BackgroundScheduler(timezone=UTC, job_defaults=defaults)
        self._periods: dict[str, float] = {}
        self._offset = _offset()

    def every(self, seconds: float, job: Callable[[], None]) -> None:
        """Run a job periodically, first after one period."""
        name = job.__name__
        self._periods[name] = seconds
        self._scheduler.add_job(job, "interval", seconds=seconds, id=name)

    def soon(self, job: Callable[[], None]) -> None:
        """Run a job once, without waiting for it."""
        self._scheduler.add_job(job)

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()

    def stop(self) -> None:
        """Wait for the jobs under way, and end."""
        self._scheduler.shutdown(wait=True)

    def watch(self) -> None:
        """Begin all periods anew when the clock has stepped; cheap, for a loop to call often."""
        offset = _offset()
        step = offset - self._offset
        if abs(step) < STEP_S:
            return
        self._offset = offset
        log.warning("clock_stepped", seconds=round(step, 3))
        for name, seconds in self._periods.items():
            self._scheduler.reschedule_job(name, trigger="interval", seconds=seconds)


def _offset() -> float:
    return time.time() - time.monotonic()
