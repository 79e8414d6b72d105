"""Indicators of one period over bars: TA-Lib's batch, and TA-Lib's stream that continues it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import talib
from talib import stream

from tickserve_bots.bars import HOUR_MS, Bars, Prices

HOURS_A_DAY = 24
HOUR_FUNCTION = "hour of the bar's opening time, UTC"

Update = Callable[[Bars, int], float]
"""Takes the bars and the index of the one that has just closed; returns the feature there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Indicator:
    """A function of bars and a period; its first value needs `period + bars_before` bars."""

    batch: Callable[[Bars, int], Prices]
    open: Callable[[Bars, int], Update]
    scale: str
    bars_before: int
    shortest: int


def hour_of_day(times: npt.NDArray[np.int64]) -> Prices:
    """Return the UTC hour of each time in ms."""
    return (times // HOUR_MS % HOURS_A_DAY).astype(np.float64)


def _of_close(
    batch: Callable[[Prices, int], Prices],
    opened: Callable[[Prices, int], Any],
    *,
    scale: str,
    bars_before: int,
    shortest: int,
) -> Indicator:
    def begin(history: Bars, period: int) -> Update:
        handle = opened(history.close, period)
        return lambda bars, index: handle.update(bars.close[index])

    return Indicator(
        batch=lambda bars, period: batch(bars.close, period),
        open=begin,
        scale=scale,
        bars_before=bars_before,
        shortest=shortest,
    )


def _range_batch(bars: Bars, period: int) -> Prices:
    ranges: Prices = talib.ATR(bars.high, bars.low, bars.close, period)
    return ranges


def _range_stream(history: Bars, period: int) -> Update:
    handle = stream.ATR(history.high, history.low, history.close, period)
    return lambda bars, index: handle.update(bars.high[index], bars.low[index], bars.close[index])


def _distance(history: Bars, period: int) -> Update:
    average = EMA.open(history, period)
    return lambda bars, index: bars.close[index] / average(bars, index) - 1


def _range_ratio(history: Bars, period: int) -> Update:
    ranges = ATR.open(history, period)
    return lambda bars, index: ranges(bars, index) / bars.close[index]


RSI = _of_close(talib.RSI, stream.RSI, scale="0 to 100", bars_before=1, shortest=2)
EMA = _of_close(talib.EMA, stream.EMA, scale="price", bars_before=0, shortest=2)
SMA = _of_close(talib.SMA, stream.SMA, scale="price", bars_before=0, shortest=2)
ROC = _of_close(talib.ROC, stream.ROC, scale="percent of price", bars_before=1, shortest=1)
ROCP = _of_close(talib.ROCP, stream.ROCP, scale="fraction of price", bars_before=1, shortest=1)
ATR = Indicator(batch=_range_batch, open=_range_stream, scale="price", bars_before=1, shortest=1)
EMA_DISTANCE = Indicator(
    batch=lambda bars, period: bars.close / EMA.batch(bars, period) - 1,
    open=_distance,
    scale="fraction of price",
    bars_before=0,
    shortest=2,
)
ATR_RATIO = Indicator(
    batch=lambda bars, period: ATR.batch(bars, period) / bars.close,
    open=_range_ratio,
    scale="fraction of price",
    bars_before=1,
    shortest=1,
)
INDICATORS: dict[str, Indicator] = {
    "RSI": RSI,
    "EMA": EMA,
    "SMA": SMA,
    "ROC": ROC,
    "ROCP": ROCP,
    "ATR": ATR,
    "close / EMA - 1": EMA_DISTANCE,
    "ATR / close": ATR_RATIO,
}
"""By the function's name in the metadata."""
