"""Trains the demo's models on real bars, walk-forward, with their real figures as metadata."""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from tickserve_bots.backtest import Span
from tickserve_bots.bars import Bars
from tickserve_bots.broker import Costs
from tickserve_bots.evaluation import replayed_span
from tickserve_bots.features import KIT, WARM_UP_BARS, definitions, matrix
from tickserve_bots.inputs import Inputs
from tickserve_bots.strategy import HORIZON_BARS, ThresholdStrategy
from tickserve_bots.terms import Terms
from tickserve_registry.evaluation import performance_block
from tickserve_registry.metadata import Input, Output
from tickserve_registry.replay import Predict
from tickserve_registry.trading_calendar import Calendar

FEATURES = tuple(KIT)
TRAIN = Span(start=WARM_UP_BARS, end=2_000)
TUNE = Span(start=2_000, end=2_500)
VALIDATE = Span(start=2_500, end=3_500)
LIVE = Span(start=3_500, end=5_000)
"""Four spans in time order; bots trade only LIVE, which no model or threshold has seen."""

ACTIVE_SHARE = 0.3
"""Thresholds are quantiles of the outputs on TUNE that leave this share active on each side."""

BACKTEST_START = 100
NAMED_BARS = "eurusd_1h"
CALENDAR: Calendar = "weekdays"
CURRENCY = "USD"

PRETRAINED = "eurusd_1h_lstm_breakout_v1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one version of the trend model is trained."""

    version: int
    n_estimators: int
    max_depth: int
    learning_rate: float
    train_start: int
    notes: str

    def hyperparameters(self) -> dict[str, Any]:
        """Return what XGBoost is told."""
        return {
            "n_estimators": self.n_estimators,
            "max_depth": self.max_depth,
            "learning_rate": self.learning_rate,
            "subsample": 0.8,
            "colsample_bytree": 0.8,
            "random_state": 42,
        }


TREND_V1 = Recipe(
    version=1,
    n_estimators=100,
    max_depth=3,
    learning_rate=0.05,
    train_start=TRAIN.start,
    notes="Trend model on all training bars",
)
TREND_V2 = Recipe(
    version=2,
    n_estimators=150,
    max_depth=2,
    learning_rate=0.03,
    train_start=TRAIN.start,
    notes="Simpler trees that learn more slowly",
)


def targets(bars: Bars) -> npt.NDArray[np.int64]:
    """Return 1 where the close `HORIZON_BARS` ahead is higher; the last bars have 0."""
    rises = np.zeros(len(bars), dtype=np.int64)
    rises[:-HORIZON_BARS] = bars.close[HORIZON_BARS:] > bars.close[:-HORIZON_BARS]
    return rises


def train_trend(bars: Bars, recipe: Recipe) -> tuple[Any, dict[str, Any], Any]:
    """Train one version of the trend model; return (model, model_info, training sample)."""
    import xgboost

    inputs, rises = matrix(bars, FEATURES), targets(bars)
    # The last rows of the span would see prices beyond it through their target.
    rows = slice(recipe.train_start, TRAIN.end - HORIZON_BARS)
    model = xgboost.XGBClassifier(**recipe.hyperparameters()).fit(inputs[rows], rises[rows])
    predict = model.get_booster().inplace_predict
    shown = Inputs(inputs, Input(), FEATURES)
    info = {
        "market": "eurusd",
        "timeframe": "1h",
        "model_type": "xgb",
        "strategy": "trend",
        "version": recipe.version,
        "features": list(FEATURES),
        "hyperparameters": recipe.hyperparameters(),
        "notes": recipe.notes,
        **_described(bars, shown, predict, Span(start=recipe.train_start, end=TRAIN.end)),
    }
    return model, info, inputs[rows]


def pretrained_breakout(bars: Bars) -> tuple[bytes, dict[str, Any], Any]:
    """Return the pretrained LSTM: (ONNX bytes, model_info, training sample of windows)."""
    import onnxruntime

    folder = importlib.resources.files("tickserve_bots") / "pretrained"
    data = (folder / f"{PRETRAINED}.onnx").read_bytes()
    info: dict[str, Any] = json.loads((folder / f"{PRETRAINED}.json").read_text("utf-8"))
    kind = msgspec.convert(info["input"], Input)
    inputs = matrix(bars, info["features"])
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def predict(windows: npt.NDArray[np.float32]) -> Any:
        return session.run(["output"], {"input": windows})[0]

    windows, first = windows_of(inputs, length=kind.length)
    sample = windows[: TRAIN.end - first : 5]
    shown = Inputs(inputs, kind, tuple(info["features"]))
    return data, info | _described(bars, shown, predict, TRAIN), sample


def windows_of(
    inputs: npt.NDArray[np.float32], *, length: int
) -> tuple[npt.NDArray[np.float32], int]:
    """Return the windows [rows, length, features] that end at each bar, and the first such bar."""
    first = WARM_UP_BARS + length - 1
    view = np.lib.stride_tricks.sliding_window_view(inputs[WARM_UP_BARS:], length, axis=0)
    return np.ascontiguousarray(view.transpose(0, 2, 1)), first


def _described(bars: Bars, inputs: Inputs, predict: Predict, trained: Span) -> dict[str, Any]:
    """Return thresholds, feature definitions, what was seen when, and the backtest."""
    outputs = inputs.answers(predict, Span(start=trained.start, end=TUNE.end))
    terms = Terms(
        output=_thresholds(outputs[TUNE.start : TUNE.end]),
        strategy=ThresholdStrategy(),
        costs=Costs(),
    )
    span = Span(start=max(trained.start, BACKTEST_START), end=trained.end)
    replayed = replayed_span(NAMED_BARS, bars, span, outputs, inputs, terms=terms)
    return {
        "output": msgspec.to_builtins(terms.output),
        "feature_definitions": definitions(FEATURES),
        "training_period": {
            "start": bars.date(trained.start),
            "end": bars.date(trained.end - 1),
        },
        "tuning_period": {"start": bars.opens(TUNE.start), "end": bars.opens(TUNE.end)},
        "strategy_parameters": terms.strategy.described(),
        "calendar": CALENDAR,
        "currency": CURRENCY,
        "performance": {
            "backtest": performance_block(
                replayed, mode="backtest", calendar=CALENDAR, currency=CURRENCY
            )
        },
    }


def _thresholds(outputs: npt.NDArray[np.float64]) -> Output:
    """Return quantiles of the outputs, which leave `ACTIVE_SHARE` active on each side."""
    return Output(
        long_above=round(float(np.quantile(outputs, 1 - ACTIVE_SHARE)), 4),
        short_below=round(float(np.quantile(outputs, ACTIVE_SHARE)), 4),
    )
