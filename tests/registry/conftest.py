"""Fixtures of the registry's tests: real models, and a registry in a temporary folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from tickserve_registry.model_registry import ModelRegistry

FEATURES = ["rsi_14", "ema_20", "ema_50", "atr_14", "hour_of_day"]


@pytest.fixture(scope="session")
def inputs() -> Any:
    """Return 200 rows of five features."""
    return np.random.default_rng(7).normal(size=(200, len(FEATURES))).astype(np.float32)


@pytest.fixture(scope="session")
def classifier(inputs: Any) -> Any:
    """Return a small binary classifier."""
    model = xgboost.XGBClassifier(n_estimators=5, max_depth=3)
    return model.fit(inputs, (inputs[:, 0] > 0).astype(int))


@pytest.fixture
def info() -> Callable[..., dict[str, Any]]:
    """Return a maker of metadata for eurusd_1h_xgb_trend."""

    def make(**changes: Any) -> dict[str, Any]:
        return {
            "market": "eurusd",
            "timeframe": "1h",
            "model_type": "xgb",
            "strategy": "trend",
            "version": 1,
            "features": FEATURES,
        } | changes

    return make


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    """Return an empty registry."""
    return ModelRegistry(tmp_path / "storage")


@pytest.fixture
def listed(registry: ModelRegistry, classifier: Any, info: Callable[..., Any]) -> ModelRegistry:
    """Return a registry with two versions, the first with backtest and validation."""
    performance = {"backtest": {"sharpe_ratio": 2.0}, "validation": {"sharpe_ratio": 1.0}}
    registry.save_model(classifier, info(performance=performance))
    registry.save_model(classifier, info(version=2))
    return registry
