"""What each performance figure means, shared by evaluation and live trading.

Conventions, which are part of every number: equity is starting capital plus cumulative net pnl in
close order; returns are UTC-daily, flat days between the first and the last day included; the
Sharpe ratio (Sharpe, 1994) is mean over sample deviation (ddof 1) of those returns at risk-free
rate 0, times the square root of the calendar's trading days a year.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tickserve_registry.track_record import ClosedTrade, TrackRecord
from tickserve_registry.trading_calendar import Calendar

CONVENTION = ("annualization", "ddof", "risk_free", "day_boundary")
ONE_CURRENCY = 1


def figures(
    trades: Iterable[ClosedTrade],
    *,
    starting_equity: float,
    currency: str | None,
    calendar: Calendar,
    as_of: int | None = None,
    mode: str = "demo",
) -> dict[str, Any]:
    """Return the figures of trades in any order; see TrackRecord.figures.

    Each account of the trades starts with `starting_equity`, in `currency`.
    """
    record = TrackRecord(calendar, lambda _: starting_equity)
    for trade in sorted(trades, key=lambda trade: trade.place):
        record.add(trade)
    block = record.figures(as_of=as_of, mode=mode)
    stated = {} if record.n_trades else {"starting_equity": starting_equity}
    return block | stated | {"currency": currency}


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
    currencies = live.get("currencies") or []
    if len(currencies) > ONE_CURRENCY:
        reasons.append(f"live pnl in {', '.join(currencies)} is added up without conversion")
    return {"comparable": not reasons, "not_comparable_reasons": reasons}
