"""What each performance figure means: pure definitions, shared by evaluation and live trading.

Conventions, which are part of every number: equity is starting capital plus cumulative net pnl in
close order; returns are UTC-daily, flat days between the first and the last day included; the
Sharpe ratio (Sharpe, 1994) is mean over sample deviation (ddof 1) of those returns at risk-free
rate 0, times the square root of the calendar's trading days a year.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

Calendar = Literal["24x7", "weekdays"]

SCHEMA_VERSION = 1
DAY_MS = 86_400_000
PROVISIONAL_DAYS = 30
FEWEST_DAYS = 2
TRADING_DAYS: dict[Calendar, int] = {"24x7": 365, "weekdays": 252}
DDOF = 1
RISK_FREE = 0.0
CONVENTION = ("annualization", "ddof", "risk_free", "day_boundary")
FRIDAY = 4
WEEK = 7
EPOCH_WEEKDAY = 3
"""1970-01-01 was a Thursday."""

CRYPTO = ("btc", "eth", "sol", "xrp", "ada", "doge", "ltc", "bnb", "dot", "avax", "link", "usdt")


class ClosedTrade(msgspec.Struct, frozen=True):
    """A final closed trade: when it closed (ms since the epoch, UTC) and its net pnl."""

    closed_at: int
    pnl: float


class Flow(msgspec.Struct, frozen=True):
    """Capital that joins later (an account that starts trading): a flow, never a return."""

    at: int
    amount: float


class _Path(msgspec.Struct):
    """The equity path, walked trade by trade."""

    equity: float
    peak: float
    drawdown: float = 0.0
    ruined: bool = False

    def add(self, pnl: float) -> None:
        self.equity += pnl
        self.peak = max(self.peak, self.equity)
        self.ruined = self.ruined or self.equity <= 0
        if self.peak > 0:
            self.drawdown = max(self.drawdown, 1 - self.equity / self.peak)

    def join(self, amount: float) -> None:
        self.equity += amount
        self.peak += amount


def default_calendar(market: str) -> Calendar:
    """Return `24x7` for the names of crypto markets and `weekdays` for all others."""
    return "24x7" if market.startswith(CRYPTO) else "weekdays"


def figures(
    trades: Iterable[ClosedTrade],
    *,
    starting_equity: float,
    currency: str | None,
    calendar: Calendar,
    as_of: int | None = None,
    flows: Sequence[Flow] = (),
    mode: str = "demo",
) -> dict[str, Any]:
    """Return the flat block of figures; what is undefined is None and its status says why.

    `as_of` (ms) names the open day, whose trades count in everything but the daily returns.
    Fractions are of equity; money is in `currency`.
    """
    ordered = sorted(trades, key=lambda trade: trade.closed_at)
    path = _walk(ordered, flows, starting_equity)
    today = None if as_of is None else trading_day(as_of, calendar)
    closed = [t for t in ordered if today is None or trading_day(t.closed_at, calendar) < today]
    open_pnl = [t.pnl for t in ordered[len(closed) :]]
    returns = daily_returns(closed, starting_equity=starting_equity, calendar=calendar, flows=flows)
    stamp = as_of if as_of is not None else ordered[-1].closed_at if ordered else None
    return {
        **_risk(returns, calendar=calendar, ruined=path.ruined),
        "max_drawdown": path.drawdown,
        "current_drawdown": 1 - path.equity / path.peak if path.peak > 0 else None,
        **_trading([trade.pnl for trade in ordered]),
        "period_start": _iso(ordered[0].closed_at) if ordered else None,
        "period_end": _iso(ordered[-1].closed_at) if ordered else None,
        "as_of": None if stamp is None else _iso(stamp),
        "open_day": {"n_trades": len(open_pnl), "net_pnl": math.fsum(open_pnl)},
        "starting_equity": starting_equity,
        "equity": path.equity,
        "joined_equity": math.fsum(flow.amount for flow in flows),
        "currency": currency,
        "calendar": calendar,
        "annualization": TRADING_DAYS[calendar],
        "ddof": DDOF,
        "risk_free": RISK_FREE,
        "day_boundary": "UTC",
        "mode": mode,
        "schema_version": SCHEMA_VERSION,
    }


def daily_returns(
    trades: Sequence[ClosedTrade],
    *,
    starting_equity: float,
    calendar: Calendar,
    flows: Sequence[Flow] = (),
) -> list[float]:
    """Return one return for each trading day from the first close to the last.

    A day's return is its net pnl over the equity before it; capital that joins on a day counts
    to the equity before it.
    """
    pnl: dict[int, list[float]] = defaultdict(list)
    joined: dict[int, float] = defaultdict(float)
    for trade in trades:
        pnl[trading_day(trade.closed_at, calendar)].append(trade.pnl)
    for flow in flows:
        joined[trading_day(flow.at, calendar)] += flow.amount
    if not pnl:
        return []
    first, last = min(pnl), max(pnl)
    equity = starting_equity + math.fsum(amount for day, amount in joined.items() if day < first)
    returns = []
    for day in range(first, last + 1):
        if calendar == "weekdays" and _weekday(day) > FRIDAY:
            continue
        equity += joined.get(day, 0.0)
        earned = math.fsum(pnl.get(day, ()))
        returns.append(earned / equity if equity else 0.0)
        equity += earned
    return returns


def trading_day(at: int, calendar: Calendar) -> int:
    """Return the UTC day (days since the epoch) to which an instant counts.

    On weekdays-only markets Saturday and Sunday count to the Friday before.
    """
    day = at // DAY_MS
    return day - max(0, _weekday(day) - FRIDAY) if calendar == "weekdays" else day


def comparability(live: Mapping[str, Any], promised: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return whether validation figures may stand beside live ones, and why not.

    Sharpe and drawdown mean little without their convention, so one that is not stated, or
    another than live's, is not comparable.
    """
    if not promised:
        reasons = ["there are no validation figures"]
    else:
        reasons = [
            f"validation does not state its {name}"
            if name not in promised
            else f"validation has {name} {promised[name]}, live {live.get(name)}"
            for name in CONVENTION
            if name not in promised or promised[name] != live.get(name)
        ]
    return {"comparable": not reasons, "not_comparable_reasons": reasons}


def _walk(ordered: Sequence[ClosedTrade], flows: Sequence[Flow], start: float) -> _Path:
    path = _Path(equity=start, peak=start)
    waiting = sorted(flows, key=lambda flow: flow.at, reverse=True)
    for trade in ordered:
        while waiting and waiting[-1].at <= trade.closed_at:
            path.join(waiting.pop().amount)
        path.add(trade.pnl)
    return path


def _risk(returns: Sequence[float], *, calendar: Calendar, ruined: bool) -> dict[str, Any]:
    """Sharpe and moments; skew and kurtosis are the population's, a normal's kurtosis is 3."""
    n = len(returns)
    mean = math.fsum(returns) / n if n else 0.0
    squares, cubes, fourths = (
        math.fsum((value - mean) ** power for value in returns) for power in (2, 3, 4)
    )
    varies = n >= FEWEST_DAYS and squares > 0
    status = (
        "ruined"
        if ruined
        else "too_few_days"
        if n < FEWEST_DAYS
        else "zero_deviation"
        if not varies
        else "provisional"
        if n < PROVISIONAL_DAYS
        else "ok"
    )
    per_day = mean / math.sqrt(squares / (n - DDOF)) if varies and not ruined else None
    return {
        "sharpe_ratio": None if per_day is None else per_day * math.sqrt(TRADING_DAYS[calendar]),
        "sharpe_status": status,
        "sharpe_per_day": per_day,
        "skew": cubes / n / (squares / n) ** 1.5 if varies else None,
        "kurtosis": fourths / n / (squares / n) ** 2 if varies else None,
        "n_days": n,
    }


def _trading(pnl: Sequence[float]) -> dict[str, Any]:
    wins = [value for value in pnl if value > 0]
    losses = [-value for value in pnl if value < 0]
    profit, loss, n = math.fsum(wins), math.fsum(losses), len(pnl)
    return {
        "win_rate": len(wins) / n if n else None,
        "profit_factor": profit / loss if losses else None,
        "profit_factor_status": "ok" if losses else "no_losses" if n else "no_trades",
        "n_trades": n,
        "n_wins": len(wins),
        "n_losses": len(losses),
        "n_breakeven": n - len(wins) - len(losses),
        "gross_profit": profit,
        "gross_loss": loss,
        "net_pnl": math.fsum(pnl),
        "expectancy": math.fsum(pnl) / n if n else None,
        "average_win": profit / len(wins) if wins else None,
        "average_loss": loss / len(losses) if losses else None,
    }


def _weekday(day: int) -> int:
    return (day + EPOCH_WEEKDAY) % WEEK


def _iso(milliseconds: int) -> str:
    stamp = dt.datetime.fromtimestamp(milliseconds // 1000, dt.UTC)
    return stamp.strftime("%Y-%m-%dT%H:%M:%SZ")
