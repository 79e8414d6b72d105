"""The benchmarks run, scaled down; nothing here is timed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["registry_costs", "--largest", "10"], "write-back ÷ bare"),
        (["round_trip", "--blocks", "1"], "served ÷ echo"),
        (["throughput", "--repeats", "1", "--seconds", "0.3"], "32 clients"),
        (["batches", "--repeats", "1", "--seconds", "0.3"], "single rows beside"),
        (["reloads", "--reloads", "4"], "first reply by the new build"),
        (["many_models", "--models", "5"], "MiB a model"),
        (["records", "--seconds", "0.5"], ", 0 lost, 0 errors"),
        (["wire_parity", "--rows", "1000"], "MessagePack  tensor"),
    ],
)
def test_a_benchmark_runs(project_root: Path, arguments: list[str], words: str) -> None:
    """Each prints the machine's facts and its table."""
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=project_root,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert "ONNX Runtime" in run.stdout
    assert words in run.stdout


def test_an_unknown_benchmark_is_named(project_root: Path) -> None:
    """A wrong name lists the right ones."""
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "speed"],
        cwd=project_root,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 1
    assert "registry_costs" in run.stderr
