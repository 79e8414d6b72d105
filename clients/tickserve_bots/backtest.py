"""Trades of a span of bars: the bot's strategy and broker on answers that are known already."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy.typing as npt

from tickserve_bots.bars import Bars
from tickserve_bots.broker import Costs, PaperBroker, Trade
from tickserve_bots.features import feature
from tickserve_bots.strategy import RANGE, ThresholdStrategy, action_of
from tickserve_registry.metadata import Output


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
    output: Output,
) -> list[Trade]:
    """Trade a span on the model's outputs, one for each bar of `bars`; return closed trades."""
    broker = PaperBroker(costs=costs, hold_bars=strategy.hold_bars)
    ranges = feature(RANGE).batch(bars)
    trades = []
    for index in range(span.start, span.end):
        closed = broker.on_bar(bars, index)
        if closed is not None:
            trades.append(closed)
        if broker.is_flat:
            action = action_of(
                outputs[index], long_above=output.long_above, short_below=output.short_below
            )
            order = strategy.order(action, atr=ranges[index], prediction_id=None, build="")
            if order is not None:
                broker.submit(order)
    last = broker.finish(bars, span.end - 1)
    return [*trades, last] if last is not None else trades
