"""Features from one definition, for training on all bars and for a bot, bar by bar."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import talib
from talib import stream

from tickserve_bots.bars import HOUR_MS, Bars, Prices

HOURS_A_DAY = 24

Update = Callable[[Bars, int], float]
"""Takes the bars and the index of the one that has just closed; returns the feature there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feature:
    """One feature: `batch` gives its value for every bar, `open` begins a stream after history.

    Both start at the same first bar and run the same code, so that a stream's values are
    bit-identical to the batch's.
    """

    name: str
    function: str
    parameters: dict[str, int]
    minimum_bars: int
    scale: str
    batch: Callable[[Bars], Prices]
    open: Callable[[Bars], Update]

    def definition(self) -> dict[str, Any]:
        """Return what the metadata records of the feature."""
        return {
            "name": self.name,
            "library": "TA-Lib" if self.parameters else "numpy",
            "function": self.function,
            "parameters": self.parameters,
            "minimum_bars": self.minimum_bars,
            "scale": self.scale,
        }


class FeatureStream:
    """Features of a bot: opened on the bars so far, then carried on one closed bar at a time."""

    def __init__(self, history: Bars, names: Sequence[str]) -> None:
        self._updates = {name: KIT[name].open(history) for name in names}

    def update(self, bars: Bars, index: int) -> dict[str, float]:
        """Take in the bar at `index`, the next one; return its features by name."""
        return {name: float(update(bars, index)) for name, update in self._updates.items()}


def _rsi(period: int) -> Feature:
    def opened(history: Bars) -> Update:
        handle = stream.RSI(history.close, period)
        return lambda bars, index: handle.update(bars.close[index])

    return Feature(
        name=f"rsi_{period}",
        function="RSI",
        parameters={"timeperiod": period},
        minimum_bars=period + 1,
        scale="0 to 100",
        batch=lambda bars: talib.RSI(bars.close, period),
        open=opened,
    )


def _ema_distance(period: int) -> Feature:
    def opened(history: Bars) -> Update:
        handle = stream.EMA(history.close, period)
        return lambda bars, index: bars.close[index] / handle.update(bars.close[index]) - 1

    return Feature(
        name=f"ema_{period}_distance",
        function="close / EMA - 1",
        parameters={"timeperiod": period},
        minimum_bars=period,
        scale="fraction of price",
        batch=lambda bars: bars.close / talib.EMA(bars.close, period) - 1,
        open=opened,
    )


def _atr_ratio(period: int) -> Feature:
    def opened(history: Bars) -> Update:
        handle = stream.ATR(history.high, history.low, history.close, period)

        def update(bars: Bars, index: int) -> float:
            close = bars.close[index]
            return float(handle.update(bars.high[index], bars.low[index], close) / close)

        return update

    return Feature(
        name=f"atr_{period}_ratio",
        function="ATR / close",
        parameters={"timeperiod": period},
        minimum_bars=period + 1,
        scale="fraction of price",
        batch=lambda bars: talib.ATR(bars.high, bars.low, bars.close, period) / bars.close,
        open=opened,
    )


def _return(bars_back: int) -> Feature:
    def opened(history: Bars) -> Update:
        handle = stream.ROCP(history.close, bars_back)
        return lambda bars, index: handle.update(bars.close[index])

    return Feature(
        name=f"return_{bars_back}",
        function="ROCP",
        parameters={"timeperiod": bars_back},
        minimum_bars=bars_back + 1,
        scale="fraction of price",
        batch=lambda bars: talib.ROCP(bars.close, bars_back),
        open=opened,
    )


def _hour_of_day() -> Feature:
    return Feature(
        name="hour_of_day",
        function="hour of the bar's opening time, UTC",
        parameters={},
        minimum_bars=1,
        scale="0 to 23",
        batch=lambda bars: (bars.times // HOUR_MS % HOURS_A_DAY).astype(np.float64),
        open=lambda _: lambda bars, index: float(bars.times[index] // HOUR_MS % HOURS_A_DAY),
    )


KIT: dict[str, Feature] = {
    feature.name: feature
    for feature in (
        _rsi(14),
        _ema_distance(20),
        _ema_distance(50),
        _atr_ratio(14),
        _return(1),
        _return(6),
        _hour_of_day(),
    )
}
WARM_UP_BARS = max(feature.minimum_bars for feature in KIT.values())


def matrix(bars: Bars, names: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return all bars' features [bars, features]; NaN before a feature has enough bars."""
    columns = [KIT[name].batch(bars) for name in names]
    return np.column_stack(columns).astype(np.float32)


def definitions(names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the definitions for the metadata's `feature_definitions`."""
    return [KIT[name].definition() for name in names]
