"""What the demo shows while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import collections
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

STEPS_KEPT = 8


class DemoView:
    """Steps as they happen, and each bot's progress."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._steps: collections.deque[str] = collections.deque(maxlen=STEPS_KEPT)
        self._table = Table()
        self._live = Live(console=out, refresh_per_second=8, transient=True)

    def step(self, text: str) -> None:
        """Tell what happens now."""
        self._steps.append(text)
        if not self._out.is_terminal:
            self._out.print(text, highlight=False, soft_wrap=True)
        self._refresh()

    def progress(
        self, requests: list[dict[str, Any]], trades: list[dict[str, Any]], *, expected: int
    ) -> None:
        """Show how far the bots are."""
        if not self._out.is_terminal:
            return
        table = Table("bot", "trades", "pnl USD", "answered by")
        pnl: dict[str, list[float]] = collections.defaultdict(list)
        builds: dict[str, str] = {}
        for trade in trades:
            pnl[trade["bot"]].append(trade["pnl"])
            builds[trade["bot"]] = trade["build"]
        for bot, results in pnl.items():
            table.add_row(bot, str(len(results)), f"{sum(results):+.2f}", builds[bot])
        failed = sum("error" in line for line in requests)
        table.caption = f"{len(requests)} of {expected} predictions, {failed} failed"
        self._table = table
        self._refresh()

    def __enter__(self) -> Self:
        if self._out.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._out.is_terminal:
            self._live.stop()
            for step in self._steps:
                self._out.print(step, highlight=False)

    def _refresh(self) -> None:
        if self._live.is_started:
            self._live.update(Group(Text("\n".join(self._steps)), self._table))
