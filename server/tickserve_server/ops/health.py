"""Whether the service lives, and whether it is ready: what probes and alerts ask."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

TURN_S = 10.0
"""A loop that has not turned for so long is stuck."""

SILENCE_S = 5.0
"""The serving process tells of itself every second."""


class ServingState(msgspec.Struct, frozen=True, kw_only=True):
    """What the serving process tells of itself; counts are since it started."""

    pid: int = 0
    ready: bool = False
    good: int = 0
    failing: int = 0
    halted: int = 0
    reloads: int = 0
    load_failures: int = 0
    connections_refused: int = 0
    degraded: tuple[str, ...] = ()


class Health:
    """Put together from the recorder's own loop and what the serving process tells.

    `failure` is why the ledger cannot be written, if it cannot; `degraded` lists what else is
    wrong with the recorder.
    """

    def __init__(
        self, *, failure: Callable[[], str | None], degraded: Callable[[], list[str]]
    ) -> None:
        self._failure = failure
        self._degraded = degraded
        self._turned_at = time.monotonic()
        self._heard_at = 0.0
        self.serving = ServingState()

    def turned(self) -> None:
        """The recorder's loop has turned."""
        self._turned_at = time.monotonic()

    def hear(self, state: ServingState) -> None:
        """Take what the serving process tells."""
        self.serving = state
        self._heard_at = time.monotonic()

    @property
    def is_alive(self) -> bool:
        """Whether the recorder's loop turns."""
        return time.monotonic() - self._turned_at < TURN_S

    @property
    def serving_age_s(self) -> float:
        """Seconds since the serving process was heard."""
        return time.monotonic() - self._heard_at

    @property
    def is_writable(self) -> bool:
        """Whether the ledger took what came last."""
        return self._failure() is None

    def alive(self) -> dict[str, Any]:
        """Return what /healthz tells."""
        return {"alive": self.is_alive, "turned_s": round(time.monotonic() - self._turned_at, 3)}

    def readiness(self) -> dict[str, Any]:
        """Return what /readyz tells: ready, or why not, and all that is not as it should be."""
        reasons, silent = [], self.serving_age_s > SILENCE_S
        if silent:
            reasons.append("the serving process is not heard")
        elif not (self.serving.ready and self.serving.good):
            reasons.append("no model is served")
        failure = self._failure()
        if failure is not None:
            reasons.append(f"the ledger cannot be written: {failure}")
        degraded = [*(() if silent else self.serving.degraded), *self._degraded()]
        return {
            "ready": not reasons,
            "reasons": reasons,
            "degraded": degraded,
            "models": 0 if silent else self.serving.good,
            "failing": self.serving.failing,
            "halted": self.serving.halted,
        }
