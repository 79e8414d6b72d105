"""The live book: every build's final closed trades in memory, and figures made of them."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tickserve_registry.performance import Calendar, ClosedTrade, Flow, figures, trading_day
from tickserve_server.latency import LatencyHistogram

Key = tuple[str, str, str]
Account = tuple[str, str]


class Trade(NamedTuple):
    """A trade of a build as now known; without `closed_at` it does not count (any more)."""

    build: str
    key: Key
    closed_at: int | None
    pnl: float | None
    currency: str | None


class Capital(NamedTuple):
    """What a run says of its account; capital belongs to (bot, account)."""

    bot: str
    run: str
    account: str
    starting_equity: float | None


class LiveBook:
    """Fed by the recorder's loop after each commit, read by the write-back's thread."""

    def __init__(self, *, default_capital: float, calendar: Callable[[str], Calendar]) -> None:
        self._default_capital = default_capital
        self._calendar = calendar
        self._lock = threading.Lock()
        self._trades: dict[str, dict[Key, Trade]] = defaultdict(dict)
        self._accounts: dict[tuple[str, str], str] = {}
        self._capital: dict[Account, float] = {}
        self._changed: set[str] = set()
        self._predictions: dict[str, int] = defaultdict(int)
        self._serving: dict[str, Any] = {}

    def add(self, trades: Iterable[Trade], capital: Iterable[Capital] = ()) -> None:
        """Take in what a commit has made durable."""
        with self._lock:
            for each in capital:
                self._accounts[each.bot, each.run] = each.account
                if each.starting_equity is not None:
                    self._capital.setdefault((each.bot, each.account), each.starting_equity)
            for trade in trades:
                if trade.closed_at is None:
                    self._trades[trade.build].pop(trade.key, None)
                else:
                    self._trades[trade.build][trade.key] = trade
                self._changed.add(trade.build)

    def count_predictions(self, build: str, rows: int) -> None:
        """Count recorded predictions of a build."""
        with self._lock:
            self._predictions[build] += rows

    def set_serving(self, report: dict[str, Any]) -> None:
        """Take the newest figures of the serving process, of the models whose have changed."""
        with self._lock:
            self._serving |= {model["build"]: model for model in report["models"]}

    def take_changed(self) -> set[str]:
        """Return the builds whose trades changed since the last call."""
        with self._lock:
            changed, self._changed = self._changed, set()
            return changed

    def mark_changed(self, builds: Iterable[str]) -> None:
        """Have builds written again, because writing them failed."""
        with self._lock:
            self._changed.update(builds)

    def builds(self) -> list[str]:
        """Return the builds that have trades or predictions."""
        with self._lock:
            return sorted({*(b for b, t in self._trades.items() if t), *self._predictions})

    def block(self, build: str, *, as_of: int) -> dict[str, Any]:
        """Return the live figures of a build at `as_of` (ms since the epoch)."""
        with self._lock:
            trades = list(self._trades[build].values())
            calendar = self._calendar(build)
            capital = {self._account(trade): self._starting(trade) for trade in trades}
            serving = self._serving_block(build)
        start, flows = _split_capital(trades, capital, self._account, calendar)
        currencies = {trade.currency for trade in trades if trade.currency}
        block = figures(
            [ClosedTrade(t.closed_at or 0, t.pnl or 0.0) for t in trades],
            starting_equity=start if trades else self._default_capital,
            currency=currencies.pop() if len(currencies) == 1 else None,
            calendar=calendar,
            as_of=as_of,
            flows=flows,
        )
        return block | {"n_accounts": len(capital), "serving": serving}

    def latency(self, build: str) -> LatencyHistogram:
        """Return the latencies of a build since it was loaded."""
        with self._lock:
            model = self._serving.get(build)
        return LatencyHistogram() if model is None else LatencyHistogram.load(model["latency"])

    def _account(self, trade: Trade) -> Account:
        bot, run, _ = trade.key
        return bot, self._accounts.get((bot, run), "")

    def _starting(self, trade: Trade) -> float:
        return self._capital.get(self._account(trade), self._default_capital)

    def _serving_block(self, build: str) -> dict[str, Any]:
        model = self._serving.get(build)
        block: dict[str, Any] = {"predictions": self._predictions.get(build, 0)}
        if model is not None:
            block["errors"] = model["errors"]
            block["latency"] = LatencyHistogram.load(model["latency"]).summary()
        return block


def _split_capital(
    trades: list[Trade],
    capital: dict[Account, float],
    account_of: Callable[[Trade], Account],
    calendar: Calendar,
) -> tuple[float, list[Flow]]:
    """Return the starting capital, and flows for accounts whose first close is on a later day."""
    first: dict[Account, int] = {}
    for trade in trades:
        account, closed_at = account_of(trade), trade.closed_at or 0
        first[account] = min(closed_at, first.get(account, closed_at))
    opening = min((trading_day(at, calendar) for at in first.values()), default=0)
    start = sum(
        capital[account] for account, at in first.items() if trading_day(at, calendar) == opening
    )
    flows = [
        Flow(at, capital[account])
        for account, at in first.items()
        if trading_day(at, calendar) > opening
    ]
    return start, flows
