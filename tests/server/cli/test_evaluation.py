"""`tickserve evaluate`: figures for people, JSON for scripts, one line for a refusal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tickserve_bots.bars import eurusd_hours
from tickserve_bots.training import TREND_V2, train_trend
from tickserve_registry.model_registry import ModelRegistry

MODEL = "eurusd_1h_xgb_trend_v2"
SPAN = ("--from", "2017-09-12T13:00:00Z", "--to", "2017-11-09T04:00:00Z")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a storage root with the demo's second trend model."""
    root = tmp_path_factory.mktemp("evaluate") / "model_storage"
    model, info, sample = train_trend(eurusd_hours(), TREND_V2)
    ModelRegistry(root).save_model(model, info, training_sample=sample)
    return root


def evaluate(storage: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command on the model as a user does."""
    command = [sys.executable, "-m", "tickserve_server", "evaluate", MODEL]
    command += ["--storage", str(storage), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_person_sees_the_figures_and_their_terms(storage: Path) -> None:
    """Sharpe and trades, and on which bars at what costs; nothing but that on standard error."""
    run = evaluate(storage, "--bars", "eurusd_1h", *SPAN)
    assert (run.returncode, run.stderr) == (0, "")
    lines = {" ".join(line.split()) for line in run.stdout.splitlines()}
    assert {"sharpe ratio 0.79", "trades 148", "net pnl 179.04 USD"} <= lines
    assert "1,000 bars of eurusd_1h, 2017-09-12T13:00:00Z to 2017-11-09T04:00:00Z" in lines
    assert "spread 0.00006, fee rate 0.000035" in run.stdout


def test_a_script_gets_what_was_written(storage: Path) -> None:
    """The JSON is the block in the metadata, at the costs that were given."""
    run = evaluate(storage, "--json", "--spread", "0.0001", "--fee-rate", "0", *SPAN)
    printed = json.loads(run.stdout)
    document = ModelRegistry(storage).metadata(MODEL).document
    assert printed == {
        "build": document["build"],
        "validation": document["performance"]["validation"],
    }
    assert printed["validation"]["costs"] == {"spread": 0.0001, "fee_rate": 0.0}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--from", "2017-06-01"), "training_period, 2017-04-21 to 2017-08-14"),
        (("--bars", "nowhere.csv"), "bars nowhere.csv: there is no such file"),
        (("--spread", "-1"), "costs are finite and not negative"),
        (("--fee-rate", "2"), "fee_rate is a fraction"),
    ],
)
def test_a_refusal_is_one_line(storage: Path, arguments: tuple[str, ...], words: str) -> None:
    """On standard error, with exit code 1."""
    run = evaluate(storage, *arguments)
    assert (run.returncode, run.stdout) == (1, "")
    assert words in run.stderr
    assert run.stderr.count("\n") == 1
