"""Trains the demo's models on real bars, walk-forward, with their real figures as metadata."""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from tickserve_bots.backtest import Span, performance, shifted, simulate
from tickserve_bots.bars import Bars
from tickserve_bots.broker import Costs
from tickserve_bots.features import KIT, WARM_UP_BARS, definitions, matrix
from tickserve_bots.strategy import ThresholdStrategy

FEATURES = tuple(KIT)
HORIZON_BARS = 6
"""The target: whether the close that many bars ahead is higher."""

TRAIN = Span(start=WARM_UP_BARS, end=2_000)
TUNE = Span(start=2_000, end=2_500)
VALIDATE = Span(start=2_500, end=3_500)
LIVE = Span(start=3_500, end=5_000)
"""Four spans in time order; bots trade only LIVE, which no model or threshold has seen."""

ACTIVE_SHARE = 0.3
"""Thresholds are quantiles of the outputs on TUNE that leave this share active on each side."""

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
    booster = model.get_booster()
    outputs = shifted(
        booster.inplace_predict(inputs[WARM_UP_BARS:]), first=WARM_UP_BARS, total=len(bars)
    )
    info = {
        "market": "eurusd",
        "timeframe": "1h",
        "model_type": "xgb",
        "strategy": "trend",
        "version": recipe.version,
        "features": list(FEATURES),
        "hyperparameters": recipe.hyperparameters(),
        "notes": recipe.notes,
        **_described(bars, outputs, Span(start=recipe.train_start, end=TRAIN.end)),
    }
    return model, info, inputs[rows]


def pretrained_breakout(bars: Bars) -> tuple[bytes, dict[str, Any], Any]:
    """Return the pretrained LSTM: (ONNX bytes, model_info, training sample of windows)."""
    import onnxruntime

    folder = importlib.resources.files("tickserve_bots") / "pretrained"
    data = (folder / f"{PRETRAINED}.onnx").read_bytes()
    info: dict[str, Any] = json.loads((folder / f"{PRETRAINED}.json").read_text("utf-8"))
    windows, first = windows_of(matrix(bars, info["features"]), length=info["input"]["length"])
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    answers = session.run(["output"], {"input": windows})[0][:, 0]
    outputs = shifted(answers, first=first, total=len(bars))
    sample = windows[: TRAIN.end - first : 5]
    return data, info | _described(bars, outputs, TRAIN), sample


def windows_of(
    inputs: npt.NDArray[np.float32], *, length: int
) -> tuple[npt.NDArray[np.float32], int]:
    """Return the windows [rows, length, features] that end at each bar, and the first such bar."""
    first = WARM_UP_BARS + length - 1
    view = np.lib.stride_tricks.sliding_window_view(inputs[WARM_UP_BARS:], length, axis=0)
    return np.ascontiguousarray(view.transpose(0, 2, 1)), first


def _described(bars: Bars, outputs: npt.NDArray[Any], trained: Span) -> dict[str, Any]:
    """Return thresholds, feature definitions, training period, backtest and validation."""
    tuning = outputs[TUNE.start : TUNE.end]
    above = round(float(np.quantile(tuning, 1 - ACTIVE_SHARE)), 4)
    below = round(float(np.quantile(tuning, ACTIVE_SHARE)), 4)
    strategy, costs = ThresholdStrategy(), Costs()

    def figures_on(span: Span) -> dict[str, Any]:
        trades = simulate(
            bars,
            outputs,
            span,
            strategy=strategy,
            costs=costs,
            long_above=above,
            short_below=below,
        )
        return performance(trades, bars=bars, span=span, costs=costs)

    return {
        "output": {"kind": "probability", "long_above": above, "short_below": below},
        "feature_definitions": definitions(FEATURES),
        "training_period": {
            "start": bars.date(trained.start),
            "end": bars.date(trained.end - 1),
        },
        "strategy_parameters": strategy.described(),
        "calendar": "weekdays",
        "performance": {
            "backtest": figures_on(Span(start=max(trained.start, 100), end=trained.end)),
            "validation": figures_on(VALIDATE),
        },
    }
