"""Tests of the registry as a frame."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tickserve_registry.listing import COLUMNS, FIGURE_COLUMNS
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.store import CLOCK_TICK_NS

FAMILY = "eurusd_1h_xgb_trend"


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


@pytest.mark.parametrize("value", [True, "1.5", [1.5], {"a": 1}, None, 10**400])
def test_what_is_no_figure_is_none(listed: ModelRegistry, value: Any) -> None:
    """A boolean, a text or an integer that no float holds, left by a hand, is a missing figure."""
    path = Path(listed.list_models()["metadata_path"][0])
    document = json.loads(path.read_text())
    document["performance"] = {"backtest": {"sharpe_ratio": value}, "validation": value}
    path.write_text(json.dumps(document))
    frame = listed.list_models()
    assert math.isnan(frame["backtest_sharpe_ratio"][0])
    assert frame["problem"].tolist() == [None, None]


@pytest.mark.parametrize("make", ["link", "pipe", "folder", "linked folder", "unreadable"])
def test_whatever_lies_there_costs_one_row(
    listed: ModelRegistry, tmp_path: Path, make: str
) -> None:
    """Links are not followed, pipes not waited for; the other row has its figures."""
    listed.record_live_performance(listed.find(f"{FAMILY}_v2").build, {"sharpe_ratio": 1.5})
    path = Path(listed.list_models()["metadata_path"][0])
    aside = tmp_path / "aside"
    if make == "linked folder":
        path.parent.rename(aside)
        path.parent.symlink_to(aside)
    else:
        path.rename(aside)
        makers: dict[str, Callable[[], object]] = {
            "link": lambda: path.symlink_to(aside),
            "pipe": lambda: os.mkfifo(path),
            "folder": path.mkdir,
            "unreadable": lambda: path.write_bytes(b"\xff"),
        }
        makers[make]()
    frame = ModelRegistry(listed.storage_root).list_models()
    assert path.parent.name in frame["problem"][0]
    assert math.isnan(frame["backtest_sharpe_ratio"][0])
    assert (frame["problem"][1], frame["live_sharpe_ratio"][1]) == (None, 1.5)


def test_a_young_fingerprint_proves_nothing(listed: ModelRegistry) -> None:
    """A file of the same inode, size and time is read again while its time is that young."""
    path = Path(listed.list_models()["metadata_path"][0])
    later = time.time_ns() + 10**10
    for value in (b"2.0", b"7.0"):
        path.write_bytes(path.read_bytes().replace(b": 2.0", b": " + value))
        os.utime(path, ns=(later, later))
        assert listed.list_models()["backtest_sharpe_ratio"][0] == float(value)


def test_a_replaced_file_is_read_again(listed: ModelRegistry) -> None:
    """A figure that another process writes shows in the next list, cached rows or not."""
    build = listed.find(f"{FAMILY}_v1").build
    other = ModelRegistry(listed.storage_root)
    for value in (1.0, 2.0, 3.0):
        time.sleep(CLOCK_TICK_NS * 2 / 1e9)  # so that the row may be cached
        listed.list_models()
        other.record_live_performance(build, {"sharpe_ratio": value})
        assert listed.list_models()["live_sharpe_ratio"][0] == value
