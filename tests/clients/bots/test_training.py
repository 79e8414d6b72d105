"""Training: walk-forward spans, real figures, a pretrained LSTM that is what it says."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from tickserve_bots.bars import Bars, eurusd_hours
from tickserve_bots.features import matrix
from tickserve_bots.training import (
    FEATURES,
    LIVE,
    TRAIN,
    TREND_V1,
    TUNE,
    VALIDATE,
    pretrained_breakout,
    train_trend,
    windows_of,
)


@pytest.fixture(scope="module")
def bars() -> Bars:
    """The real bars."""
    return eurusd_hours()


def test_the_spans_follow_each_other_without_overlap() -> None:
    """Nothing that a bot trades was seen by a model or a threshold."""
    spans = [TRAIN, TUNE, VALIDATE, LIVE]
    assert all(a.end == b.start for a, b in itertools.pairwise(spans))
    assert LIVE.end == 5_000


def test_the_future_does_not_reach_into_training(bars: Bars) -> None:
    """Changing every bar after the training span leaves the trees as they are."""
    known, wild = slice(0, TRAIN.end), np.full(3_000, 2.0)
    altered = dataclasses.replace(
        bars,
        open=np.concatenate([bars.open[known], wild]),
        high=np.concatenate([bars.high[known], wild]),
        low=np.concatenate([bars.low[known], wild]),
        close=np.concatenate([bars.close[known], wild]),
    )
    rows = matrix(bars, FEATURES)[TRAIN.start : TRAIN.end]
    first, _, _ = train_trend(bars, TREND_V1)
    second, _, _ = train_trend(altered, TREND_V1)
    assert (first.predict_proba(rows) == second.predict_proba(rows)).all()


def test_the_backtest_states_its_convention_and_what_was_seen(bars: Bars) -> None:
    """The figures are of the training span; thresholds are as much knowledge as trees are."""
    _, info, _ = train_trend(bars, TREND_V1)
    backtest = info["performance"]["backtest"]
    assert backtest["n_trades"] > 100
    assert (backtest["annualization"], backtest["ddof"]) == (252, 1)
    assert (backtest["mode"], backtest["bars"]["count"]) == ("backtest", TRAIN.end - 100)
    assert backtest["span"]["end"] <= info["tuning_period"]["start"]
    assert info["tuning_period"]["end"] == bars.opens(VALIDATE.start)
    assert backtest["costs"]["spread"] > 0


def test_the_pretrained_lstm_answers_windows(bars: Bars) -> None:
    """Its windows end at their bar, and its outputs are probabilities that vary."""
    data, info, sample = pretrained_breakout(bars)
    assert len(data) < 200_000
    inputs = matrix(bars, FEATURES)
    windows, first = windows_of(inputs, length=info["input"]["length"])
    assert (windows[0][-1] == inputs[first]).all()
    assert sample.shape[1:] == (info["input"]["length"], len(FEATURES))
    assert 0 < info["output"]["short_below"] < info["output"]["long_above"] < 1
