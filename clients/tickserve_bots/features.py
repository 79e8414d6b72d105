"""Features from one definition, for training on all bars and for a bot, bar by bar."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tickserve_bots.bars import PRICES, Bars, Prices
from tickserve_bots.indicators import HOUR_FUNCTION, INDICATORS, Update, hour_of_day
from tickserve_registry.errors import FeatureUnknown

STANDARD = {
    r"rsi_(\d+)": "RSI",
    r"ema_(\d+)": "EMA",
    r"sma_(\d+)": "SMA",
    r"atr_(\d+)": "ATR",
    r"roc_(\d+)": "ROC",
    r"return_(\d+)": "ROCP",
    r"ema_(\d+)_distance": "close / EMA - 1",
    r"atr_(\d+)_ratio": "ATR / close",
}
"""Names that say what the feature is; the number is its period in bars."""

HOUR = "hour_of_day"
TALIB = ("ta-lib", "talib")
LONGEST_PERIOD = 100_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feature:
    """One feature: `batch` gives its value for every bar, `open` begins a stream after history.

    Both start at the same first bar and run the same code, so that a stream's values are
    bit-identical to the batch's.
    """

    name: str
    library: str
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
            "library": self.library,
            "function": self.function,
            "parameters": self.parameters,
            "minimum_bars": self.minimum_bars,
            "scale": self.scale,
        }


class FeatureStream:
    """Features of a bot: opened on the bars so far, then carried on one closed bar at a time."""

    def __init__(self, history: Bars, names: Sequence[str]) -> None:
        self._updates = {name: feature(name).open(history) for name in names}

    def update(self, bars: Bars, index: int) -> dict[str, float]:
        """Take in the bar at `index`, the next one; return its features by name."""
        return {name: float(update(bars, index)) for name, update in self._updates.items()}


def feature(
    name: str, *, definition: Mapping[str, Any] | None = None, columns: Collection[str] = ()
) -> Feature:
    """Return a feature: a column of the bars, else as it was defined, else by its standard name.

    `definition` is one entry of the metadata's `feature_definitions`. Raises FeatureUnknown.
    """
    if name in columns or name in PRICES:
        return _column(name)
    if definition is not None:
        return _defined(name, definition)
    if name == HOUR:
        return _hour(name)
    for pattern, function in STANDARD.items():
        match = re.fullmatch(pattern, name, re.ASCII)
        if match:
            return _indicator(name, function, int(match[1]))
    raise FeatureUnknown(feature=name, problem="has neither a definition nor a standard name")


def features_of(
    names: Iterable[str], definitions: object, *, columns: Collection[str] = ()
) -> tuple[Feature, ...]:
    """Return a model's features in its order, from the metadata's `feature_definitions`.

    Raises FeatureUnknown.
    """
    listed = definitions if isinstance(definitions, list | tuple) else ()
    known = {each.get("name"): each for each in listed if isinstance(each, Mapping)}
    return tuple(feature(name, definition=known.get(name), columns=columns) for name in names)


def matrix(bars: Bars, chosen: Sequence[str | Feature]) -> npt.NDArray[np.float32]:
    """Return all bars' features [bars, features]; NaN before a feature has enough bars."""
    kit = [feature(each) if isinstance(each, str) else each for each in chosen]
    return np.column_stack([each.batch(bars) for each in kit]).astype(np.float32)


def definitions(names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the definitions for the metadata's `feature_definitions`."""
    return [feature(name).definition() for name in names]


def _defined(name: str, definition: Mapping[str, Any]) -> Feature:
    """Return the feature that a recorded definition describes, whatever it is called."""
    function, parameters = definition.get("function"), definition.get("parameters") or {}
    if function == HOUR_FUNCTION and not parameters:
        return _hour(name)
    library = definition.get("library")
    if function not in INDICATORS or str(library).lower() not in TALIB:
        problem = f"the function {function!r} of {library} is not known here"
        raise FeatureUnknown(feature=name, problem=problem)
    period = parameters.get("timeperiod") if isinstance(parameters, Mapping) else None
    if not isinstance(period, int) or isinstance(period, bool) or len(parameters) != 1:
        problem = f"{function} takes one whole number, timeperiod, not {parameters}"
        raise FeatureUnknown(feature=name, problem=problem)
    return _indicator(name, str(function), period)


def _indicator(name: str, function: str, period: int) -> Feature:
    indicator = INDICATORS[function]
    if not indicator.shortest <= period <= LONGEST_PERIOD:
        problem = f"{function} takes {indicator.shortest} to {LONGEST_PERIOD} bars, not {period}"
        raise FeatureUnknown(feature=name, problem=problem)
    return Feature(
        name=name,
        library="TA-Lib",
        function=function,
        parameters={"timeperiod": period},
        minimum_bars=period + indicator.bars_before,
        scale=indicator.scale,
        batch=lambda bars: indicator.batch(bars, period),
        open=lambda history: indicator.open(history, period),
    )


def _hour(name: str) -> Feature:
    return Feature(
        name=name,
        library="numpy",
        function=HOUR_FUNCTION,
        parameters={},
        minimum_bars=1,
        scale="0 to 23",
        batch=lambda bars: hour_of_day(bars.times),
        open=lambda _: lambda bars, index: float(hour_of_day(bars.times[index])),
    )


def _column(name: str) -> Feature:
    def values(bars: Bars) -> Prices:
        found: Prices = getattr(bars, name) if name in PRICES else bars.columns[name]
        return found

    return Feature(
        name=name,
        library="none",
        function="column of the bars",
        parameters={},
        minimum_bars=1,
        scale="as in the bars",
        batch=values,
        open=lambda _: lambda bars, index: float(values(bars)[index]),
    )


KIT: dict[str, Feature] = {
    name: feature(name)
    for name in (
        "rsi_14",
        "ema_20_distance",
        "ema_50_distance",
        "atr_14_ratio",
        "return_1",
        "return_6",
        HOUR,
    )
}
WARM_UP_BARS = max(each.minimum_bars for each in KIT.values())
