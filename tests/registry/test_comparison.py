"""Tests of builds side by side."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tickserve_registry.comparison import compare
from tickserve_registry.errors import ModelNotFound
from tickserve_registry.model_registry import ModelRegistry

FAMILY = "eurusd_1h_xgb_trend"


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


@pytest.mark.parametrize(
    ("backtest", "validation", "decay"),
    [(2.0, 1.0, 0.5), (2.0, 3.0, -0.5), (2.0, -1.0, 1.5), (0.0, 1.0, None), (-1.0, -2.0, None)],
)
def test_only_what_was_earned_can_decay(
    listed: ModelRegistry, backtest: float, validation: float, decay: float | None
) -> None:
    """Decay is 1 − later/earlier; of a Sharpe that was not positive nothing can be lost."""
    blocks = {"backtest": {"sharpe_ratio": backtest}, "validation": {"sharpe_ratio": validation}}
    row = compare([(listed.find(FAMILY), {"performance": blocks}, None)]).iloc[0]
    found = row["validation_sharpe_decay"]
    assert math.isnan(found) if decay is None else found == decay
    assert math.isnan(row["live_sharpe_decay"])


def test_the_best_live_sharpe_comes_first(listed: ModelRegistry) -> None:
    """Then what has none, by its validation; equal ones stay in the order given."""
    for version, sharpe in ((1, -0.5), (2, 0.25)):
        build = listed.find(f"{FAMILY}_v{version}").build
        listed.record_live_performance(build, {"sharpe_ratio": sharpe})
    assert listed.compare([FAMILY])["live_sharpe_ratio"].tolist() == [0.25, -0.5]


@pytest.mark.parametrize("value", ["many", True, [1], {"a": 1}, None, 10**400])
def test_what_is_no_figure_is_missing(listed: ModelRegistry, value: Any) -> None:
    """Counts and money that a hand made texts or lists do not stop the comparison."""
    path = Path(listed.list_models()["metadata_path"][0])
    document = json.loads(path.read_text())
    block = {"n_trades": value, "net_pnl": value, "sharpe_ratio": value}
    document["performance"] = {"backtest": block, "live": block, "validation": value}
    path.write_text(json.dumps(document))
    frame = listed.compare([FAMILY])
    assert len(frame) == 2
    for column in ("backtest_n_trades", "live_net_pnl", "live_sharpe_ratio"):
        assert frame[column].dtype == "float64"
        assert frame[column].isna().all()


@pytest.mark.parametrize("kind", ["torn", "link", "pipe"])
def test_unreadable_metadata_costs_its_own_row(
    listed: ModelRegistry, tmp_path: Path, kind: str
) -> None:
    """The other version is compared; this one says why it is not."""
    path = Path(listed.list_models()["metadata_path"][1])
    path.rename(tmp_path / "aside")
    makers: dict[str, Callable[[], object]] = {
        "torn": lambda: path.write_text("{"),
        "link": lambda: path.symlink_to(tmp_path / "aside"),
        "pipe": lambda: os.mkfifo(path),
    }
    makers[kind]()
    frame = listed.compare([FAMILY])
    assert frame.loc[:, "model_id"].tolist() == [f"{FAMILY}_v1", f"{FAMILY}_v2"]
    assert frame["backtest_sharpe_ratio"].tolist()[0] == 2.0
    assert not frame["comparable"].iloc[1]
    assert path.name in frame["not_comparable_reasons"].iloc[1][0]


def test_no_builds_have_the_same_columns(listed: ModelRegistry) -> None:
    """An empty comparison is a frame of the contract's columns."""
    assert list(compare([]).columns) == list(listed.compare([FAMILY]).columns)
