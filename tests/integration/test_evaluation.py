"""An evaluation beside a bot: the same bars, thresholds and costs give the same trades."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import empyrical
import pandas as pd
import pytest

from benchmarks.daemon import Service
from tickserve_bots.bars import Bars, eurusd_hours
from tickserve_bots.demo.storage import DemoFolder, save_models
from tickserve_bots.journal import read_lines
from tickserve_bots.strategy import HORIZON_BARS
from tickserve_bots.training import LIVE
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.performance import comparability

SPAN = (LIVE.start, LIVE.start + 260)
LONGEST_S = 60.0
MODELS = ("eurusd_1h_xgb_trend_v1", "eurusd_1h_lstm_breakout_v1")


@pytest.fixture(scope="module")
def bars() -> Bars:
    """The real bars."""
    return eurusd_hours()


@pytest.fixture(scope="module")
def folder(bars: Bars, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a bot has traded each production model over one span."""
    root = tmp_path_factory.mktemp("evaluation")
    save_models(DemoFolder(root), bars)
    with Service(root) as service:
        for model in MODELS:
            trade(service, model, root)
        assert service.stop() == 0
    return root


def trade(service: Service, model: str, root: Path) -> None:
    """Let a demo bot trade a model over the span, in a process of its own."""
    command = [sys.executable, "-m", "tickserve_bots.bot", "--name", model, "--model", model]
    command += ["--predict", service.endpoints.predict, "--folder", str(root / "bots")]
    command += ["--start", str(SPAN[0]), "--end", str(SPAN[1]), "--bars-per-second", "150"]
    subprocess.run(command, check=True, timeout=LONGEST_S)
    requests = read_lines(root / "bots" / f"{model}.requests.jsonl")
    assert len(requests) == SPAN[1] - SPAN[0]
    assert not [line for line in requests if "error" in line]


@pytest.mark.parametrize("model", MODELS)
def test_a_bots_trades_are_the_evaluations_trades(model: str, folder: Path, bars: Bars) -> None:
    """To the last bit, for rows and for windows; so live figures of them are the validation's."""
    registry = ModelRegistry(folder / "model_storage")
    block = registry.evaluate(model, start=bars.opens(SPAN[0]), end=bars.opens(SPAN[1]))
    own = read_lines(folder / "bots" / f"{model}.trades.jsonl")
    names = ("opened_at", "closed_at", "side", "pnl")
    assert block["trades"] == [{name: trade[name] for name in names} for trade in own]
    assert len(own) > 20
    live: dict[str, Any] = registry.metadata(model).document["performance"]["live"]
    assert comparability(live, block) == {"comparable": True, "not_comparable_reasons": []}
    for name in ("sharpe_ratio", "max_drawdown", "win_rate", "profit_factor", "net_pnl", "n_days"):
        assert live[name] == pytest.approx(block[name], abs=1e-9), name


@pytest.mark.parametrize("model", MODELS)
def test_empyrical_agrees_on_a_bots_trades(model: str, folder: Path) -> None:
    """Sharpe of daily returns and drawdown by trade, made with pandas of the bot's own log."""
    own = pd.DataFrame(read_lines(folder / "bots" / f"{model}.trades.jsonl"))
    live = ModelRegistry(folder / "model_storage").metadata(model).document["performance"]["live"]
    equity = 10_000.0 + own["pnl"].cumsum()
    by_trade = own["pnl"] / equity.shift(fill_value=10_000.0)
    drawdown = -empyrical.max_drawdown(by_trade)
    assert live["max_drawdown"] == pytest.approx(drawdown, abs=1e-9)
    day = pd.to_datetime(own["closed_at"], unit="ms").dt.normalize()
    day -= pd.to_timedelta((day.dt.day_of_week - 4).clip(lower=0), unit="D")
    earned = own.groupby(day)["pnl"].sum()
    earned = earned.reindex(pd.bdate_range(earned.index[0], earned.index[-1]), fill_value=0.0)
    before = (10_000.0 + earned.cumsum()).shift(fill_value=10_000.0)
    sharpe = empyrical.sharpe_ratio(earned / before, risk_free=0, annualization=252)
    assert live["sharpe_ratio"] == pytest.approx(sharpe, abs=1e-9)
    assert live["n_days"] == len(earned)


def test_the_bots_labels_and_equity_are_in_the_metadata(folder: Path) -> None:
    """What a person judges a model by, besides its trades."""
    registry = ModelRegistry(folder / "model_storage")
    for model in MODELS:
        live = registry.metadata(model).document["performance"]["live"]
        quality, serving = live["quality"], live["serving"]
        assert quality["n"] == SPAN[1] - SPAN[0] - HORIZON_BARS
        assert 0 < quality["n_positive"] < quality["n"]
        assert 0.1 < quality["brier"] < 0.4
        assert live["max_drawdown_marked_status"] == "ok"
        assert live["max_drawdown_marked"] > 0
        assert serving["predictions"] == SPAN[1] - SPAN[0]
        assert serving["predictions_without_outcome"] == serving["predictions"] - live["n_trades"]
        assert {each["n"] for each in live["inputs"].values()} == {serving["predictions"]}
