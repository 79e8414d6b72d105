"""Features: a bot's stream gives what training saw, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

from tickserve_bots.bars import Bars, eurusd_hours
from tickserve_bots.features import KIT, WARM_UP_BARS, FeatureStream, definitions, matrix

NAMES = tuple(KIT)


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
    batch = matrix(bars, NAMES)
    stream = FeatureStream(bars.first(history), NAMES)
    for index in range(history, len(bars)):
        row = np.array(list(stream.update(bars, index).values()), dtype=np.float32)
        assert (row == batch[index]).all(), index


def test_warm_up_is_stated_truly(bars: Bars) -> None:
    """No feature is a gap from `minimum_bars` on, and each one before it is."""
    batch = matrix(bars, NAMES)
    assert np.isfinite(batch[WARM_UP_BARS - 1 :]).all()
    for column, definition in enumerate(definitions(NAMES)):
        gaps = int(np.isnan(batch[:, column]).sum())
        assert gaps == definition["minimum_bars"] - 1, definition["name"]
