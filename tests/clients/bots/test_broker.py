"""The paper broker's fills, stops, costs and the end of the replay."""

from __future__ import annotations

import numpy as np
import pytest

from tickserve_bots.bars import HOUR_MS, Bars
from tickserve_bots.broker import Costs, Order, PaperBroker, Trade
from tickserve_bots.strategy import ThresholdStrategy, action_of

COSTS = Costs(spread=0.0002, fee_rate=0.00005)


def bars_of(*rows: tuple[float, float, float, float]) -> Bars:
    """Bars from (open, high, low, close) rows, an hour apart."""
    prices = np.array(rows)
    return Bars(
        times=np.arange(len(rows), dtype=np.int64) * HOUR_MS,
        open=prices[:, 0],
        high=prices[:, 1],
        low=prices[:, 2],
        close=prices[:, 3],
    )


def order(side: str) -> Order:
    """An order with a stop one cent away."""
    return Order(side=side, qty=1000, stop_distance=0.01, prediction_id="p", build="b")


def traded(bars: Bars, side: str, *, hold_bars: int = 3) -> Trade:
    """The trade that comes of an order before the first bar."""
    broker = PaperBroker(costs=COSTS, hold_bars=hold_bars)
    broker.submit(order(side))
    for index in range(len(bars)):
        closed = broker.on_bar(bars, index)
        if closed is not None:
            assert broker.is_flat
            return closed
    closed = broker.finish(bars, len(bars) - 1)
    assert closed is not None
    return closed


QUIET = (1.1, 1.101, 1.099, 1.1)


def test_a_round_trip_without_movement_costs_spread_and_fees() -> None:
    """Both sides pay half the spread on entry and on exit, and a fee each way."""
    for side in ("long", "short"):
        trade = traded(bars_of(QUIET, QUIET, QUIET), side)
        assert trade.exit_reason == "time"
        assert trade.pnl == pytest.approx(-1000 * 0.0002 - 2 * 1000 * 0.00005)
        assert trade.fees == pytest.approx(0.1)
        assert (trade.opened_at, trade.closed_at) == (0, 3 * HOUR_MS)


def test_a_stop_fills_at_its_price_or_at_the_gap() -> None:
    """Inside the bar at the stop, at the open where the market gaps over it."""
    inside = traded(bars_of(QUIET, (1.1, 1.1, 1.08, 1.085)), "long")
    assert inside.exit_reason == "stop"
    assert inside.exit_price == pytest.approx(1.09 - 0.0001)
    gapped = traded(bars_of(QUIET, (1.07, 1.08, 1.06, 1.075)), "long")
    assert gapped.exit_price == pytest.approx(1.07 - 0.0001)
    short = traded(bars_of(QUIET, (1.1, 1.12, 1.1, 1.1)), "short")
    assert short.exit_price == pytest.approx(1.11 + 0.0001)
    assert short.pnl < -9


def test_what_is_open_at_the_end_is_closed_and_counted() -> None:
    """No position disappears with the last bar."""
    trade = traded(bars_of(QUIET, (1.1, 1.13, 1.1, 1.12)), "long", hold_bars=50)
    assert trade.exit_reason == "end"
    assert trade.pnl == pytest.approx(1000 * (0.02 - 0.0002) - 0.1)


def test_the_strategy_enters_only_on_an_action_with_a_stop() -> None:
    """Flat, no action and no range each mean no order."""
    strategy = ThresholdStrategy(qty=5.0, stop_atr=2.0)
    placed = strategy.order("short", atr=0.001, prediction_id="p", build="b")
    assert placed is not None
    assert (placed.side, placed.qty, placed.stop_distance) == ("short", 5.0, 0.002)
    for action, atr in (("flat", 0.001), (None, 0.001), ("long", 0.0), ("long", float("nan"))):
        assert strategy.order(action, atr=atr, prediction_id="p", build="b") is None
    outputs = (0.6, 0.5, 0.4, float("nan"))
    actions = [action_of(each, long_above=0.55, short_below=0.45) for each in outputs]
    assert actions == ["long", "flat", "short", "flat"]
