"""An evaluation beside a bot: the same bars, thresholds and costs give the same trades."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.daemon import Service
from tickserve_bots.bars import Bars, eurusd_hours
from tickserve_bots.demo.storage import DemoFolder, save_models
from tickserve_bots.journal import read_lines
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
