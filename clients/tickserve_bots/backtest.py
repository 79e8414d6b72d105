"""Backtests with the bot's own features, strategy, broker and costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import talib

from tickserve_bots.bars import Bars
from tickserve_bots.broker import Costs, PaperBroker, Trade
from tickserve_bots.strategy import ThresholdStrategy, action_of
from tickserve_registry.performance import ClosedTrade, default_calendar, figures

STARTING_EQUITY = 10_000.0
ATR_PERIOD = 14


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """Bars from `start` to before `end`."""

    start: int
    end: int


def simulate(
    bars: Bars,
    outputs: npt.NDArray[Any],
    span: Span,
    *,
    strategy: ThresholdStrategy,
    costs: Costs,
    long_above: float,
    short_below: float,
) -> list[Trade]:
    """Trade a span on the model's outputs, one for each bar of `bars`; return closed trades."""
    broker = PaperBroker(costs=costs, hold_bars=strategy.hold_bars)
    ranges = talib.ATR(bars.high, bars.low, bars.close, ATR_PERIOD)
    trades = []
    for index in range(span.start, span.end):
        closed = broker.on_bar(bars, index)
        if closed is not None:
            trades.append(closed)
        if broker.is_flat:
            action = action_of(outputs[index], long_above=long_above, short_below=short_below)
            order = strategy.order(action, atr=ranges[index], prediction_id=None, build="")
            if order is not None:
                broker.submit(order)
    last = broker.finish(bars, span.end - 1)
    return [*trades, last] if last is not None else trades


def performance(
    trades: Sequence[Trade], *, bars: Bars, span: Span, costs: Costs, market: str = "eurusd"
) -> dict[str, Any]:
    """Return the figures of trades with their convention, costs and span."""
    block = figures(
        [ClosedTrade(trade.closed_at, trade.pnl) for trade in trades],
        starting_equity=STARTING_EQUITY,
        currency="USD",
        calendar=default_calendar(market),
        mode="backtest",
    )
    return block | {
        "costs": dataclasses.asdict(costs),
        "bars": span.end - span.start,
        "span": {"start": bars.date(span.start), "end": bars.date(span.end - 1)},
    }


def shifted(outputs: npt.NDArray[Any], *, first: int, total: int) -> npt.NDArray[np.float64]:
    """Return outputs aligned to all bars: neutral before `first`, where no model can answer."""
    aligned = np.full(total, np.nan)
    aligned[first:] = outputs
    return aligned
