"""A paper broker for one position at a time: spread, fees, stops, and closed trades."""

from __future__ import annotations

import dataclasses

from tickserve_bots.bars import Bars


@dataclasses.dataclass(frozen=True, kw_only=True)
class Costs:
    """Trading costs: `spread` in price units, `fee_rate` as a fraction of the quantity, a side."""

    spread: float = 0.00006
    fee_rate: float = 0.000035


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """An entry at the next bar's open, because of a prediction."""

    side: str
    qty: float
    stop_distance: float
    prediction_id: str | None
    build: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trade:
    """A closed trade; prices include the spread, `pnl` is net of fees, in the quote currency."""

    trade: str
    build: str
    prediction_id: str | None
    side: str
    qty: float
    entry_price: float
    exit_price: float
    opened_at: int
    closed_at: int
    fees: float
    pnl: float
    exit_reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Position:
    """An open position; `stop` is a mid price."""

    order: Order
    entry_price: float
    stop: float
    opened_at: int
    opened_index: int


class PaperBroker:
    """Fills at the next open, stops inside a bar (at its open if it gaps over), time exits."""

    def __init__(self, *, costs: Costs, hold_bars: int) -> None:
        self._costs = costs
        self._hold_bars = hold_bars
        self._order: Order | None = None
        self._position: Position | None = None
        self._count = 0

    @property
    def is_flat(self) -> bool:
        """Whether there is neither a position nor a waiting order."""
        return self._position is None and self._order is None

    def open_pnl(self, bars: Bars, index: int) -> float:
        """Return what the open position would earn at a bar's close, before its fees."""
        position = self._position
        if position is None:
            return 0.0
        sign = _sign(position.order.side)
        price = float(bars.close[index]) - sign * self._costs.spread / 2
        return sign * (price - position.entry_price) * position.order.qty

    def submit(self, order: Order) -> None:
        """Accept an order for the next bar's open."""
        self._order = order

    def on_bar(self, bars: Bars, index: int) -> Trade | None:
        """Let one bar happen; return the trade that it closed, if any."""
        if self._order is not None:
            self._fill(bars, index, self._order)
        position = self._position
        if position is None:
            return None
        stopped_at = _stop_price(position, bars, index)
        if stopped_at is not None:
            return self._close(bars, index, position, price=stopped_at, reason="stop")
        if index - position.opened_index + 1 >= self._hold_bars:
            return self._close(bars, index, position, price=bars.close[index], reason="time")
        return None

    def finish(self, bars: Bars, index: int) -> Trade | None:
        """Close what is open at a bar's close, because there are no more bars."""
        self._order = None
        if self._position is None:
            return None
        return self._close(bars, index, self._position, price=bars.close[index], reason="end")

    def _fill(self, bars: Bars, index: int, order: Order) -> None:
        sign = _sign(order.side)
        mid = float(bars.open[index])
        self._position = Position(
            order=order,
            entry_price=mid + sign * self._costs.spread / 2,
            stop=mid - sign * order.stop_distance,
            opened_at=int(bars.times[index]),
            opened_index=index,
        )
        self._order = None

    def _close(
        self, bars: Bars, index: int, position: Position, *, price: float, reason: str
    ) -> Trade:
        order, sign = position.order, _sign(position.order.side)
        exit_price = float(price) - sign * self._costs.spread / 2
        fees = 2 * order.qty * self._costs.fee_rate
        self._position = None
        self._count += 1
        return Trade(
            trade=str(self._count),
            build=order.build,
            prediction_id=order.prediction_id,
            side=order.side,
            qty=order.qty,
            entry_price=position.entry_price,
            exit_price=exit_price,
            opened_at=position.opened_at,
            closed_at=int(bars.times[index]) + bars.step_ms,
            fees=fees,
            pnl=sign * (exit_price - position.entry_price) * order.qty - fees,
            exit_reason=reason,
        )


def _stop_price(position: Position, bars: Bars, index: int) -> float | None:
    """Return the mid price at which the stop fills within the bar, or None."""
    stop = position.stop
    if position.order.side == "long":
        return min(stop, float(bars.open[index])) if bars.low[index] <= stop else None
    return max(stop, float(bars.open[index])) if bars.high[index] >= stop else None


def _sign(side: str) -> int:
    return 1 if side == "long" else -1
