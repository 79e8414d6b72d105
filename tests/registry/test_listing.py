"""Tests of the registry as a frame, and of builds side by side."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tickserve_registry.errors import ModelNotFound
from tickserve_registry.listing import COLUMNS, FIGURE_COLUMNS
from tickserve_registry.model_registry import ModelRegistry

FAMILY = "eurusd_1h_xgb_trend"


@pytest.fixture
def listed(registry: ModelRegistry, classifier: Any, info: Callable[..., Any]) -> ModelRegistry:
    """Return a registry with two versions, the first with backtest and validation."""
    performance = {"backtest": {"sharpe_ratio": 2.0}, "validation": {"sharpe_ratio": 1.0}}
    registry.save_model(classifier, info(performance=performance))
    registry.save_model(classifier, info(version=2))
    return registry


def test_one_row_a_build_with_the_contracts_columns(listed: ModelRegistry) -> None:
    """Paths can be opened; missing figures are NaN; an empty registry has the columns too."""
    frame = listed.list_models()
    assert list(frame.columns) == [*COLUMNS, *FIGURE_COLUMNS, "problem"]
    assert frame["version"].tolist() == [1, 2]
    assert all(Path(path).is_file() for path in frame["file_path"])
    assert frame.loc[0, "backtest_sharpe_ratio"] == 2.0
    assert math.isnan(frame.loc[1, "backtest_sharpe_ratio"])
    assert all(frame[name].dtype == "float64" for name in FIGURE_COLUMNS)
    empty = listed.list_models(market="gold")
    assert (len(empty), list(empty.columns)) == (0, list(frame.columns))


def test_live_figures_show_at_once(listed: ModelRegistry) -> None:
    """A figure written twice within a clock tick of the file system is not the cached one."""
    build = listed.find(f"{FAMILY}_v1").build
    for value in range(40):
        listed.record_live_performance(build, {"sharpe_ratio": float(value)})
        assert listed.list_models()["live_sharpe_ratio"][0] == value


def test_unreadable_metadata_costs_its_own_figures(listed: ModelRegistry) -> None:
    """The row stays, and says what is wrong."""
    path = Path(listed.list_models()["metadata_path"][0])
    path.write_bytes(path.read_bytes()[:50])
    frame = listed.list_models()
    assert len(frame) == 2
    assert path.name in frame["problem"][0]
    assert frame["problem"][1] is None
    assert math.isnan(frame["backtest_sharpe_ratio"][0])


def test_versions_side_by_side(listed: ModelRegistry) -> None:
    """A family stands for its versions; decay is what was lost from one phase to the next."""
    listed.record_live_performance(
        listed.find(f"{FAMILY}_v1").build, {"sharpe_ratio": 0.25, "n_trades": 40}
    )
    frame = listed.compare([FAMILY])
    assert frame.index.name == "build"
    assert frame["model_id"].tolist() == [f"{FAMILY}_v1", f"{FAMILY}_v2"]
    first = frame.iloc[0]
    assert (first["validation_sharpe_decay"], first["live_sharpe_decay"]) == (0.5, 0.75)
    assert first["live_n_trades"] == 40
    assert not first["comparable"]
    assert "does not state" in first["not_comparable_reasons"][0]
    assert pd.isna(frame.iloc[1]["live_sharpe_decay"])


def test_compare_takes_any_names(listed: ModelRegistry) -> None:
    """Without names it is what is in production; a name twice is one row; unknown is an error."""
    assert len(listed.compare()) == 0
    listed.promote_model(f"{FAMILY}_v2")
    assert listed.compare()["model_id"].tolist() == [f"{FAMILY}_v2"]
    assert len(listed.compare([FAMILY, f"{FAMILY}_v1"])) == 2
    with pytest.raises(ModelNotFound):
        listed.compare(["nothing"])
