"""What a wrong set-up says: one line, what to do, an exit code that is not 0."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.daemon import Service, model_info, train
from tickserve_registry.model_registry import ModelRegistry

FAMILY = "eurusd_1h_xgb_bench"


def ended(command: list[str]) -> tuple[int, str]:
    """Run a command that should fail; return its exit code and its last line of error."""
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in run.stderr
    return run.returncode, run.stderr.strip().splitlines()[-1]


def saved(service: Service, *, version: int = 1) -> Path:
    """Save a production model and return its metadata file."""
    registry = ModelRegistry(service.storage)
    info = model_info(version=version)
    _, path = registry.save_model(
        train(seed=version, trees=10), info, environment="production" if version == 1 else "staging"
    )
    return Path(path)


def test_an_unusable_storage_root_is_one_line(tmp_path: Path) -> None:
    """A root below a file cannot be made, and the line names it."""
    service = Service(tmp_path)
    blocker = tmp_path / "file"
    blocker.write_text("")
    service.storage = blocker / "storage"
    code, line = ended(service.command())
    assert code == 1
    assert str(service.storage) in line


@pytest.mark.parametrize("victim", ["metadata", "catalog"])
def test_corrupt_storage_is_one_line(tmp_path: Path, victim: str) -> None:
    """A torn JSON file is named, with what to do."""
    service = Service(tmp_path)
    path = saved(service)
    if victim == "catalog":
        path = service.storage / "metadata" / "registry.json"
    path.write_bytes(path.read_bytes()[:40])
    code, line = ended(service.command())
    assert code == 1
    assert path.name in line
    assert "tickserve" in line.removeprefix("tickserve:")


def test_an_unknown_setting_is_one_line(tmp_path: Path) -> None:
    """The file and the key are named."""
    config = tmp_path / "tickserve.toml"
    config.write_text("[serving]\nspin = 1\n")
    code, line = ended([*Service(tmp_path).command(), "--config", str(config)])
    assert code == 1
    assert "spin" in line
    assert str(config) in line


def test_a_ledger_that_is_none_is_one_line(tmp_path: Path) -> None:
    """A file that is no database is reported and left as it is."""
    ledger = tmp_path / "ledger.sqlite3"
    ledger.write_text("these are my notes, not a database" * 100)
    service = Service(tmp_path)
    saved(service)
    code, line = ended([*service.command(), "--ledger", f"sqlite:///{ledger}"])
    assert code == 1
    assert "ledger" in line
    assert ledger.read_text().startswith("these are my notes")


@pytest.mark.parametrize(
    "arguments",
    [
        ["promote", "eurusd_1h_xgb_bunch"],
        ["promote", "../../etc/passwd"],
        ["archive", "nothing"],
        ["show", "nothing"],
    ],
)
def test_a_command_about_an_unknown_model_is_one_line(tmp_path: Path, arguments: list[str]) -> None:
    """The name is repeated and the nearest, or where to look, is told."""
    service = Service(tmp_path)
    saved(service)
    command = [sys.executable, "-m", "tickserve_server", *arguments]
    code, line = ended([*command, "--storage", str(service.storage)])
    assert code == 1
    assert arguments[1] in line


def test_a_successor_that_cannot_be_loaded_leaves_the_old_build_answering(tmp_path: Path) -> None:
    """A corrupt artefact is refused before parsing; the family goes on, and status says so."""
    service = Service(tmp_path)
    saved(service)
    saved(service, version=2)
    row = {f"f{index}": 0.5 for index in range(5)}
    registry = ModelRegistry(service.storage)
    with service, service.client() as client:
        serving = service.child("serving")
        os.kill(serving, signal.SIGSTOP)
        registry.promote_model(f"{FAMILY}_v2")
        artefact = next((service.storage / "production").rglob("*_v2_*.onnx"))
        good = artefact.read_bytes()
        artefact.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        os.kill(serving, signal.SIGCONT)
        deadline = time.monotonic() + 10
        while "model_load_failed" not in service.log.read_text() and time.monotonic() < deadline:
            assert client.predict(FAMILY, row).model_id == f"{FAMILY}_v1"
        assert client.predict(FAMILY, row).model_id == f"{FAMILY}_v1"
        report = status(service)
        assert [build for build in report["failures"] if "_v2_" in build]
        artefact.write_bytes(good)
        while client.predict(FAMILY, row).model_id != f"{FAMILY}_v2":
            assert time.monotonic() < deadline + 10


def status(service: Service) -> dict[str, Any]:
    """What `tickserve status --json` prints."""
    command = [sys.executable, "-m", "tickserve_server", "status", "--json"]
    run = subprocess.run(
        [*command, "--storage", str(service.storage)], capture_output=True, check=False, timeout=30
    )
    report: dict[str, Any] = json.loads(run.stdout)
    return report
