"""The figures once more, straight from their definitions: slow, simple, and sharing no code.

Every trade is a dictionary with account, key, closed_at (ms), pnl. Money is added up in fractions
and every daily return rounded once, so that the only error left is that of the last operations.
"""

from __future__ import annotations

import datetime as dt
import math
import statistics
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

Trade = Mapping[str, Any]
YEAR = {"24x7": 365, "weekdays": 252}


def figures(
    trades: Sequence[Trade],
    *,
    capital: Mapping[Any, float],
    calendar: str,
    as_of: int | None = None,
) -> dict[str, Any]:
    """Return the figures that trades have, in whatever order they are given.

    The open day is that of `as_of`, or of the newest trade where the clock is behind it.
    """
    ordered = sorted(trades, key=lambda trade: (trade["closed_at"], trade["key"]))
    if not ordered:
        return {"n_trades": 0, "sharpe_ratio": None, "win_rate": None, "profit_factor": None}
    days = [_day(trade["closed_at"], calendar) for trade in ordered]
    joins = _joins(ordered, days)
    drawdown, current, equity, ruined = _walk(ordered, days, joins, capital)
    returns = _returns(ordered, days, joins, capital, calendar=calendar)
    today = None if as_of is None else max(_day(as_of, calendar), days[-1])
    closed = [value for day, value in returns if today is None or day < today]
    open_pnl = [t["pnl"] for t, day in zip(ordered, days, strict=True) if today and day >= today]
    pnl = [Fraction(trade["pnl"]) for trade in ordered]
    profit = float(sum((each for each in pnl if each > 0), Fraction()))
    loss = float(-sum((each for each in pnl if each < 0), Fraction()))
    wins, losses = sum(each > 0 for each in pnl), sum(each < 0 for each in pnl)
    per_day = None if ruined else _sharpe(closed)
    first = days[0]
    return {
        "sharpe_per_day": per_day,
        "sharpe_ratio": None if per_day is None else per_day * math.sqrt(YEAR[calendar]),
        "n_days": len(closed),
        **_shape(closed),
        "max_drawdown": drawdown,
        "current_drawdown": current,
        "equity": equity,
        "n_trades": len(pnl),
        "n_wins": wins,
        "n_losses": losses,
        "n_breakeven": len(pnl) - wins - losses,
        "win_rate": wins / len(pnl),
        "profit_factor": profit / loss if losses else None,
        "gross_profit": profit,
        "gross_loss": loss,
        "net_pnl": float(sum(pnl, Fraction())),
        "expectancy": float(sum(pnl, Fraction())) / len(pnl),
        "average_win": profit / wins if wins else None,
        "average_loss": loss / losses if losses else None,
        "starting_equity": _total(capital[a] for a, day in joins.items() if day == first),
        "joined_equity": _total(capital[a] for a, day in joins.items() if day > first),
        "open_day": {"n_trades": len(open_pnl), "net_pnl": _total(open_pnl)},
    }


def _joins(ordered: Sequence[Trade], days: Sequence[Any]) -> dict[Any, Any]:
    """Return the day on which each account traded first."""
    first: dict[Any, Any] = {}
    for trade, day in zip(ordered, days, strict=True):
        first.setdefault(trade["account"], day)
    return first


def _walk(
    ordered: Sequence[Trade], days: Sequence[Any], joins: Mapping[Any, Any], capital: Any
) -> tuple[float, float | None, float, bool]:
    opening = [account for account, day in joins.items() if day == days[0]]
    money = sum((Fraction(capital[account]) for account in opening), Fraction())
    peak, worst, ruined, seen = float(money), 0.0, False, set(opening)
    for trade in ordered:
        if trade["account"] not in seen:
            seen.add(trade["account"])
            money += Fraction(capital[trade["account"]])
            peak += capital[trade["account"]]
        money += Fraction(trade["pnl"])
        peak, ruined = max(peak, float(money)), ruined or money <= 0
        worst = max(worst, 1 - float(money) / peak)
    return worst, 1 - float(money) / peak, float(money), ruined


def _returns(
    ordered: Sequence[Trade],
    days: Sequence[dt.date],
    joins: Mapping[Any, Any],
    capital: Any,
    *,
    calendar: str,
) -> list[tuple[dt.date, float]]:
    money, returns, day = Fraction(), [], days[0]
    while day <= days[-1]:
        if calendar == "24x7" or day.weekday() < 5:
            money += sum((Fraction(capital[a]) for a, d in joins.items() if d == day), Fraction())
            earned = sum(
                (Fraction(t["pnl"]) for t, d in zip(ordered, days, strict=True) if d == day),
                Fraction(),
            )
            returns.append((day, float(earned) / float(money) if money else 0.0))
            money += earned
        day += dt.timedelta(days=1)
    return returns


def _sharpe(returns: Sequence[float]) -> float | None:
    if len(returns) < 2 or len(set(returns)) == 1:
        return None
    exact = [Fraction(value) for value in returns]
    return float(statistics.fmean([float(sum(exact) / len(exact))])) / statistics.stdev(exact)


def _shape(returns: Sequence[float]) -> dict[str, float | None]:
    if len(returns) < 2 or len(set(returns)) == 1:
        return {"skew": None, "kurtosis": None}
    exact = [Fraction(value) for value in returns]
    mean = sum(exact, Fraction()) / len(exact)
    m2, m3, m4 = (sum(((x - mean) ** k for x in exact), Fraction()) / len(exact) for k in (2, 3, 4))
    return {"skew": _root_ratio(m3, m2), "kurtosis": float(m4 / m2**2)}


def _root_ratio(m3: Fraction, m2: Fraction) -> float:
    return math.copysign(math.sqrt(float(m3**2 / m2**3)), float(m3.numerator > 0) - 0.5)


def _total(amounts: Any) -> float:
    return float(sum((Fraction(each) for each in amounts), Fraction()))


def _day(at: int, calendar: str) -> dt.date:
    day = dt.datetime.fromtimestamp(at / 1000, dt.UTC).date()
    late = max(0, day.weekday() - 4) if calendar == "weekdays" else 0
    return day - dt.timedelta(days=late)
