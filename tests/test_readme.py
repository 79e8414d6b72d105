"""The README: its Python examples run as printed, its commands and links exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.daemon import Service

EXAMPLE_SECONDS = 60.0
SHOWN_ENDPOINT = "tcp://127.0.0.1:5555"


class Reader:
    """Someone who follows the README's Python examples in one folder."""

    def __init__(self, readme: str, folder: Path) -> None:
        self._folder = folder
        self._blocks = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)

    def run_example(self, containing: str, *, predict: str = SHOWN_ENDPOINT) -> str:
        """Run the one example that contains a text; return what it prints."""
        (block,) = [block for block in self._blocks if containing in block]
        run = subprocess.run(
            [sys.executable, "-W", "error", "-c", block.replace(SHOWN_ENDPOINT, predict)],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=EXAMPLE_SECONDS,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout


@pytest.fixture(scope="module")
def readme(project_root: Path) -> str:
    """Return the README's text."""
    return (project_root / "README.md").read_text(encoding="utf-8")


def test_examples_run_as_printed(readme: str, tmp_path: Path) -> None:
    """The first example's model answers the other examples and gets live figures."""
    reader = Reader(readme, tmp_path)
    assert "eurusd_5m_xgb_trend_v1" in reader.run_example("save_model(")
    with Service(tmp_path) as service:
        predict = service.endpoints.predict
        reply = json.loads(reader.run_example("zmq.REQ", predict=predict))
        printed = reader.run_example("import Client", predict=predict).split()
        assert service.stop() == 0
    assert reply["model_id"] == "eurusd_5m_xgb_trend_v1"
    assert printed == [reply["build"], str(reply["output"]), reply["action"], "recorded"]
    (metadata,) = (service.storage / "production").rglob("*.json")
    live = json.loads(metadata.read_text(encoding="utf-8"))["performance"]["live"]
    assert (live["n_trades"], live["net_pnl"]) == (1, 4.4)


def test_request_example_takes_eight_lines(readme: str) -> None:
    """A prediction from a plain REQ socket fits into eight lines of code."""
    (block,) = re.findall(r"^```python\n(import zmq\n.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) <= 8


def test_commands_exist(readme: str) -> None:
    """Every `tickserve` command that the README shows is there."""
    run = subprocess.run(
        [sys.executable, "-m", "tickserve_server", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    shown = set(re.findall(r"^tickserve (\w+)", readme, re.MULTILINE))
    assert shown
    assert [name for name in shown if not re.search(rf"\b{name}\b", run.stdout)] == []


def test_make_targets_exist(readme: str, project_root: Path) -> None:
    """Every make target that the README shows is in the Makefile."""
    makefile = (project_root / "Makefile").read_text(encoding="utf-8")
    shown = set(re.findall(r"(?:^|`)make (\w+)", readme, re.MULTILINE))
    assert [name for name in shown if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []


def test_links_lead_somewhere(readme: str, project_root: Path) -> None:
    """Each relative link of the README points to a file or folder of the checkout."""
    links = re.findall(r"\]\(([^)#]+)\)", readme)
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (project_root / link).exists()] == []
