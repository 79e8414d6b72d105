"""The README: its Python examples run as printed, its commands and links exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE_SECONDS = 60.0
SHOWN_ENDPOINT = "tcp://127.0.0.1:5555"


@pytest.fixture(scope="module")
def readme(project_root: Path) -> str:
    """Return the README's text."""
    return (project_root / "README.md").read_text(encoding="utf-8")


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
