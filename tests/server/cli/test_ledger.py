"""The commands about live figures and the ledger: live, trades, export, ledger verify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from benchmarks.daemon import model_info, train
from tests.ledgers import DIALECTS, PostgreSQL
from tests.recording import Recorder, outcome
from tickserve_client.messages import Hello, Label
from tickserve_registry.drift import make_reference
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.performance import comparability
from tickserve_server.cli import app
from tickserve_server.errors import LedgerMissing, LedgerUnusable
from tickserve_server.recorder.live import Profile

BUILD = "eurusd_1h_xgb_bench_v1_20250101"
MONDAY = 1_742_774_400_000
HOUR = 3_600_000


class Place(NamedTuple):
    """Where a registry and its ledger are."""

    root: Path
    ledger: str


@pytest.fixture(scope="module", params=DIALECTS)
def storage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A storage root with one model, a ledger of five trades, and what a write-back made of it."""
    root = tmp_path_factory.mktemp("storage")
    registry = ModelRegistry(root)
    sample = np.random.default_rng(1).normal(size=(400, 5)).astype(np.float32)
    validation = {"sharpe_ratio": 1.2, "win_rate": 0.55, "n_trades": 80}
    info = model_info() | {"date": "20250101", "performance": {"validation": validation}}
    registry.save_model(train(trees=3), info, training_sample=sample)
    reference = make_reference(sample, [f"f{place}" for place in range(5)])
    url = f"sqlite:///{root / 'ledger' / 'ledger.sqlite3'}"
    if request.param == "postgresql":
        server: PostgreSQL = request.getfixturevalue("postgresql_server")
        url = server.database()
    with Recorder(url, profile=Profile("weekdays", reference), builds={BUILD}) as recorder:
        recorder.tell(Hello(bot="hand", run="r1", account="demo", currency="USD"))
        ids = recorder.predict([0.7, 0.3], build=BUILD, inputs=sample[:2] + 9)
        recorder.tell(*(Label(prediction_id=i, value=1, at=MONDAY) for i in ids))
        for number in range(5):
            at = MONDAY + number * 7 * HOUR
            trade = outcome(
                str(number), build=BUILD, pnl=number - 1.5, closed_at=at, opened_at=None
            )
            recorder.tell(trade)
        recorder.tell(outcome("waits", build=None, prediction_id="0-none", opened_at=MONDAY))
        block = recorder.block(BUILD)
    registry.record_live_performance(BUILD, block | comparability(block, validation))
    return Place(root, url)


def run(place: Place, *arguments: str) -> Result:
    """Run a command on the storage and its ledger as in a pipe."""
    command = [*arguments, "--storage", str(place.root)]
    if arguments[0] != "live":
        command += ["--ledger", place.ledger]
    return CliRunner().invoke(app, command, env={"COLUMNS": None})


def test_live_shows_both_sides_with_their_sizes(storage: Place) -> None:
    """Figures, numbers of trades, and why they may not be compared; details for one model."""
    shown = run(storage, "live", "eurusd_1h_xgb_bench")
    assert shown.exit_code == 0, shown.output
    validation, live = _rows(shown.output)
    assert validation[2:] == ["1.20", "–", "55.0%", "–", "80", "–"]
    assert live[-2:] == ["5", "2"]
    assert "not comparable with validation: validation does not state its annualization" in (
        shown.output
    )
    assert "labels: 2, hit rate 0.5" in shown.output
    assert "inputs: 0 of 5 features have drifted: none" in shown.output
    assert "2 predictions recorded, 2 without outcome" in shown.output


def _rows(output: str) -> tuple[list[str], list[str]]:
    validation, live = (
        line.split() for line in output.splitlines() if line.startswith(f" {BUILD} ")
    )
    return validation, live


def test_live_is_a_document_for_scripts(storage: Place) -> None:
    """Every build with live figures; a name that is none is an error."""
    (found,) = json.loads(run(storage, "live", "--json").output)
    assert (found["build"], found["live"]["n_trades"]) == (BUILD, 5)
    assert run(storage, "live", "eurusd_1h_xgb_none").exit_code == 1


def test_trades_lists_the_latest_first(storage: Place) -> None:
    """By model, bot, time; parked ones apart; as JSON everything that the bot told."""
    shown = run(storage, "trades", "eurusd_1h_xgb_bench", "--limit", "2")
    lines = [line for line in shown.output.splitlines() if BUILD in line]
    assert [line.split()[2] for line in lines] == ["4", "3"]
    found: list[dict[str, Any]] = json.loads(run(storage, "trades", "--json").output)
    assert len(found) == 6
    assert {"side", "trade", "pnl", "account", "received_at"} - set(found[0]) == {"side"}
    some = run(
        storage, "trades", "--since", "2025-03-24T13:00:00Z", "--until", "2025-03-25", "--json"
    )
    assert [each["trade"] for each in json.loads(some.output)] == ["3", "2"]
    assert "waits for 0-none" in run(storage, "trades", "--parked").output
    assert "no trades" in run(storage, "trades", "--bot", "nobody").output
    assert run(storage, "trades", "--since", "yesterday").exit_code == 2


def test_export_writes_parquet_files(storage: Place, tmp_path: Path) -> None:
    """What pandas reads is what was told; predictions are opened."""
    told = json.loads(run(storage, "export", str(tmp_path), "--json").output)
    rows = {each["source"]: each["rows"] for each in told}
    assert rows == {
        "runs": 1,
        "outcomes": 6,
        "outcome_revisions": 0,
        "labels": 2,
        "equity": 0,
        "predictions": 2,
        "metric_snapshots": 0,
        "events": 0,
    }
    trades = pd.read_parquet(tmp_path / "outcomes.parquet")
    assert trades["pnl"].sum() == pytest.approx(2.5 + 1.0)
    predictions = pd.read_parquet(tmp_path / "predictions.parquet")
    assert predictions["outputs"].map(lambda each: round(float(each[0]), 6)).tolist() == [0.7, 0.3]
    assert [len(each) for each in predictions["inputs"]] == [5, 5]
    assert set(predictions["build"]) == {BUILD}
    assert run(storage, "export", str(tmp_path), "--only", "secrets").exit_code == 2


def test_verify_reads_every_trade(storage: Place) -> None:
    """A sound ledger is told to be one, with what it holds."""
    shown = run(storage, "ledger", "verify")
    assert shown.exit_code == 0
    assert "6 outcomes" in shown.output
    assert "all is well" in shown.output


def test_a_ledger_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Nothing is made by looking for it."""
    place = Place(tmp_path, f"sqlite:///{tmp_path / 'none.sqlite3'}")
    for command in (["trades"], ["ledger", "verify"], ["export", str(tmp_path / "out")]):
        result = run(place, *command)
        assert isinstance(result.exception, LedgerMissing)
    other = run(Place(tmp_path, "mysql://x/y"), "trades")
    assert isinstance(other.exception, LedgerUnusable)
    assert list(tmp_path.iterdir()) == []
