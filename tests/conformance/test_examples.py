"""The worked examples of docs/protocol.md: each runs as printed, in its own language."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.conftest import Case
from tests.conformance.toolchain import compiled, node, printed
from tickserve_client import Client

SHOWN_ENDPOINT = "tcp://127.0.0.1:5555"
ROW = {"rsi_14": 55.1, "ema_20": 1.08, "ema_50": 1.07, "atr_14": 0.0009, "hour_of_day": 13}


def in_python(program: Path) -> list[str]:
    """Return the command that runs a Python program, warnings being errors."""
    return [sys.executable, "-W", "error", str(program)]


def in_node(program: Path) -> list[str]:
    """Return the command that runs a program in Node."""
    return [node(), str(program)]


def in_c(program: Path) -> list[str]:
    """Return the command that runs a C program, once it is compiled."""
    return [str(compiled(program, program.with_suffix("")))]


COMMANDS: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "python": ("bot.py", in_python),
    "js": ("bot.js", in_node),
    "c": ("bot.c", in_c),
}


@pytest.fixture(scope="module")
def page(project_root: Path) -> str:
    """Return the text of the page."""
    return (project_root / "docs" / "protocol.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("language", COMMANDS)
def test_an_example_gets_the_answer_and_its_trade_is_recorded(
    language: str, page: str, case: Case, tmp_path: Path
) -> None:
    """It prints what the Python client is told, to the last bit, and that its trade is stored."""
    (source,) = re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert SHOWN_ENDPOINT in source
    assert "tickserve" not in source
    name, command = COMMANDS[language]
    program = tmp_path / name
    program.write_text(source.replace(SHOWN_ENDPOINT, case.predict), encoding="utf-8")
    output, *rest = printed(command(program)).split()
    with Client(case.predict, timeout=5) as client:
        expected = client.predict(case.model, ROW)
    assert (float(output), rest) == (expected.output, [expected.action, "recorded"])


def test_every_program_on_the_page_is_run(page: str) -> None:
    """No example stands in a language that is not tried here, but for messages in JSON."""
    assert set(re.findall(r"^```(\w+)$", page, re.MULTILINE)) == {"json", *COMMANDS}
