"""docs/live-metrics.md: its commands run, and it names every figure of the metadata."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.daemon import model_info, train
from tests.recording import BUILD, Recorder, outcome
from tests.server.recorder.blocks import written_back
from tickserve_registry.model_registry import ModelRegistry
from tickserve_server.ops.metrics import LIVE

DOCUMENT = Path(__file__).parents[1] / "docs" / "live-metrics.md"
TEXT = DOCUMENT.read_text("utf-8")
COMMANDS = [
    shlex.split(line, comments=True)
    for line in re.findall(r"^tickserve (?:live|trades|export|ledger).*$", TEXT, re.MULTILINE)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model that the page speaks of, one trade, and its figures."""
    root = tmp_path_factory.mktemp("page")
    registry = ModelRegistry(root / "model_storage")
    info = model_info() | {"strategy": "trend", "date": "20250101"}
    registry.save_model(train(trees=3), info)
    url = f"sqlite:///{root / 'model_storage' / 'ledger' / 'ledger.sqlite3'}"
    with Recorder(url, calendar="weekdays") as recorder:
        recorder.tell(outcome(pnl=3.0))
        written_back(recorder, registry)
    return root


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[1:]))
def test_a_command_runs_as_printed(folder: Path, command: list[str]) -> None:
    """With and without --json, from a folder that holds the storage."""
    program = [sys.executable, "-m", "tickserve_server", *command[1:]]
    for extra in ([], ["--json"]):
        run = subprocess.run(
            [*program, *extra], cwd=folder, capture_output=True, text=True, check=False, timeout=60
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout
    json.loads(run.stdout)


def test_every_figure_is_explained(folder: Path) -> None:
    """A field that the metadata has and the page has not would be a riddle."""
    registry = ModelRegistry(folder / "model_storage")
    live: dict[str, Any] = registry.metadata(BUILD).document["performance"]["live"]
    plain = {"as_of", "period_start", "period_end", "ddof", "risk_free", "day_boundary"}
    plain |= {"mode", "schema_version", "ledger"}
    for name in live.keys() - plain:
        assert f"`{name}`" in TEXT, name


def test_every_metric_is_listed() -> None:
    """As a scrape names it."""
    assert all(f"`{name}`" in TEXT for name in LIVE)
