"""Drawdown of equity as a run marked it to the market, open positions included."""

from __future__ import annotations

from typing import Any, Self


class MarkedEquity:
    """Takes snapshots in the order of their times; one that comes late makes it outdated.

    `snapshots` counts them, below zero while outdated.
    """

    def __init__(self) -> None:
        self.snapshots = 0
        self.drawdown = 0.0
        self._last_at = 0
        self._peak = 0.0

    @property
    def is_outdated(self) -> bool:
        """Whether it has to be made anew from all snapshots."""
        return self.snapshots < 0

    def add(self, at: int, equity: float) -> None:
        """Take a snapshot; the peak starts with the first."""
        if self.is_outdated or (self.snapshots and at <= self._last_at):
            self.snapshots = -abs(self.snapshots) - 1
            return
        self._peak = max(self._peak, equity) if self.snapshots else equity
        if self._peak > 0:
            self.drawdown = max(self.drawdown, 1 - equity / self._peak)
        self._last_at = at
        self.snapshots += 1

    def dump(self) -> dict[str, Any]:
        """Return the state as a row."""
        return {
            "snapshots": self.snapshots,
            "last_at": self._last_at,
            "peak": self._peak,
            "drawdown": self.drawdown,
        }

    @classmethod
    def load(cls, row: dict[str, Any]) -> Self:
        """Return what dump() gave away."""
        marked = cls()
        marked.snapshots, marked.drawdown = row["snapshots"], row["drawdown"]
        marked._last_at, marked._peak = row["last_at"], row["peak"]
        return marked
