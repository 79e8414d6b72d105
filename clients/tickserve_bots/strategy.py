"""The threshold strategy: follow the model's action, size fixed, stop in multiples of ATR."""

from __future__ import annotations

import dataclasses
from typing import Any

from tickserve_bots.broker import Order

HORIZON_BARS = 6
"""What the models predict: whether the close that many bars ahead is higher."""

RANGE = "atr_14"
"""The feature that stops are multiples of."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThresholdStrategy:
    """Enters when flat; quantity in base units, stop in ATRs of the last 14 bars."""

    qty: float = 20_000.0
    stop_atr: float = 2.0
    hold_bars: int = 6

    def order(
        self, action: object, *, atr: float, prediction_id: str | None, build: str
    ) -> Order | None:
        """Return the order that an action calls for; None for `flat`, or for no stop distance."""
        if action not in {"long", "short"} or not atr > 0:
            return None
        return Order(
            side=str(action),
            qty=self.qty,
            stop_distance=self.stop_atr * atr,
            prediction_id=prediction_id,
            build=build,
        )

    def described(self) -> dict[str, Any]:
        """Return what the metadata records of the strategy."""
        return dataclasses.asdict(self)


def action_of(output: float, *, long_above: float | None, short_below: float | None) -> str:
    """Return what thresholds make of one output, as the daemon does; NaN is flat."""
    if long_above is not None and output > long_above:
        return "long"
    return "short" if short_below is not None and output < short_below else "flat"
