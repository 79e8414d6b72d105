"""Features: a bot's stream gives what training saw, bit by bit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from tickserve_bots.bars import Bars, eurusd_hours
from tickserve_bots.features import (
    KIT,
    WARM_UP_BARS,
    FeatureStream,
    definitions,
    feature,
    features_of,
    matrix,
)
from tickserve_registry.errors import FeatureUnknown

SEED = ("rsi_14", "ema_20", "ema_50", "atr_14", "hour_of_day")
"""The features of the naming convention's own example."""

COMPUTED = tuple(
    dict.fromkeys([*KIT, *SEED, "sma_30", "roc_1", "roc_12", "return_3", "rsi_2", "atr_1"])
)
NAMES = (*COMPUTED, "close")


@pytest.fixture(scope="module")
def bars() -> Bars:
    """The real bars."""
    return eurusd_hours()


def test_the_bars_are_real_hours_in_order(bars: Bars) -> None:
    """Five thousand hours of 2017 and 2018; highs and lows enclose open and close."""
    assert (len(bars), bars.date(0), bars.date(len(bars) - 1)) == (5000, "2017-04-19", "2018-02-07")
    assert (np.diff(bars.times) > 0).all()
    assert (bars.high >= np.maximum(bars.open, bars.close)).all()
    assert (bars.low <= np.minimum(bars.open, bars.close)).all()


@pytest.mark.parametrize("history", [WARM_UP_BARS + 1, 3_400])
def test_stream_and_batch_are_bit_identical(bars: Bars, history: int) -> None:
    """Every streamed value equals the batch value of its bar, wherever the stream opens."""
    batch = np.column_stack([feature(name).batch(bars) for name in NAMES])
    stream = FeatureStream(bars.first(history), NAMES)
    for index in range(history, len(bars)):
        row = np.array(list(stream.update(bars, index).values()))
        assert (row == batch[index]).all(), index


def test_warm_up_is_stated_truly(bars: Bars) -> None:
    """No feature is a gap from `minimum_bars` on, and each one before it is."""
    batch = matrix(bars, NAMES)
    assert np.isfinite(batch[WARM_UP_BARS - 1 :]).all()
    for column, definition in enumerate(definitions(NAMES)):
        gaps = int(np.isnan(batch[:, column]).sum())
        assert gaps == definition["minimum_bars"] - 1, definition["name"]


def test_a_recorded_definition_gives_the_feature_it_was_made_from(bars: Bars) -> None:
    """What `definitions` wrote is read back, under its own name or under another."""
    recorded = definitions(COMPUTED)
    again = matrix(bars, features_of(COMPUTED, recorded))
    assert np.array_equal(again, matrix(bars, COMPUTED), equal_nan=True)
    (renamed,) = features_of(["momentum"], [{**recorded[0], "name": "momentum"}])
    assert np.array_equal(renamed.batch(bars), feature(COMPUTED[0]).batch(bars), equal_nan=True)


def test_a_column_of_the_bars_is_used_as_it_is(bars: Bars) -> None:
    """It wins over the computed feature of its name, since whoever wrote the file chose it."""
    given = np.arange(len(bars), dtype=np.float64)
    own = dataclasses.replace(bars, columns={"rsi_14": given, "sentiment": -given})
    kit = features_of(["rsi_14", "sentiment"], None, columns=own.columns)
    assert (matrix(own, kit) == np.column_stack([given, -given])).all()
    assert own.first(3).columns["sentiment"].tolist() == [0.0, -1.0, -2.0]


@pytest.mark.parametrize(
    ("name", "definition"),
    [
        ("sentiment", None),
        ("rsi_0", None),
        ("rsi_999999999", None),
        ("macd", {"library": "TA-Lib", "function": "MACD", "parameters": {"fastperiod": 12}}),
        ("ema_20", {"library": "pandas", "function": "EMA", "parameters": {"timeperiod": 20}}),
        ("ema_20", {"library": "TA-Lib", "function": "EMA", "parameters": {"timeperiod": 2.5}}),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(
    name: str, definition: dict[str, Any] | None
) -> None:
    """The error names the feature and the way out: a column in the bars file."""
    with pytest.raises(FeatureUnknown, match="column of that name") as raised:
        feature(name, definition=definition)
    assert raised.value.feature == name
