"""Tests of the systemd files: what systemd's own tools say of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service_manager import directives
from tickserve_server.daemon import STOP_TIMEOUT_S
from tickserve_server.settings import Settings
from tickserve_server.unit import MADE_BY, WATCHDOG_S, system_files, user_files

PROGRAM = Path("/opt/tickserve/bin/tickserve")
MOST_EXPOSURE = 1.5
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


def install(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `tickserve install-service`."""
    command = [sys.executable, "-m", "tickserve_server", "install-service", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_files_in_the_repository_are_those_that_are_installed(project_root: Path) -> None:
    """config/systemd holds what the command writes for a program in /opt/tickserve."""
    for file in system_files(PROGRAM):
        if not file.is_yours:
            kind = file.path.parent.name.removesuffix(".d")
            name = "tickserve.service" if kind == "system" else f"{kind}.conf"
            kept = project_root / "config" / "systemd" / name
            assert kept.read_text() == file.text, kept


def test_its_watchdog_waits_longer_than_the_supervisor_does() -> None:
    """A stuck process is the supervisor's to kill; only a stuck supervisor is systemd's."""
    rules = directives(system_files(PROGRAM)[0].text)
    assert int(rules["WatchdogSec"]) == WATCHDOG_S
    assert 1.5 * Settings().supervisor.stuck_seconds <= WATCHDOG_S
    assert int(rules["TimeoutStopSec"]) > STOP_TIMEOUT_S


@needs_systemd
def test_systemd_finds_little_exposed(tmp_path: Path) -> None:
    """The exposure that `systemd-analyze security` computes is at most 1.5 of 10."""
    assert ANALYZE is not None
    unit = tmp_path / "tickserve.service"
    unit.write_text(system_files(PROGRAM)[0].text)
    command = [ANALYZE, "security", "--offline=true", "--no-pager", str(unit)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", shown)
    assert found is not None, shown
    assert 0 < float(found[1]) <= MOST_EXPOSURE


@needs_systemd
@pytest.mark.parametrize("whose", ["--system", "--user"])
def test_systemd_understands_the_unit(tmp_path: Path, whose: str) -> None:
    """`systemd-analyze verify` has nothing to say about either unit."""
    assert ANALYZE is not None
    program = Path(sys.executable).parent / "tickserve"
    files = (
        system_files(program)
        if whose == "--system"
        else user_files(program, home=tmp_path, config=None, storage=tmp_path / "a b")
    )
    unit = tmp_path / "tickserve.service"
    unit.write_text(files[0].text)
    command = [ANALYZE, "verify", "--man=no", whose, str(unit)]
    home = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=home)
    complaints = [line for line in done.stderr.splitlines() if "tickserve" in line]
    assert (done.returncode, complaints) == (0, [])


def test_the_command_writes_what_it_shows_and_never_over_what_is_not_its_own(
    tmp_path: Path,
) -> None:
    """A dry run writes nothing; settings that are there stay; a foreign unit stops it all."""
    root = ("--system", "--root", str(tmp_path))
    shown = install(*root, "--dry-run")
    assert (shown.returncode, list(tmp_path.iterdir())) == (0, [])
    assert install(*root).returncode == 0
    unit = tmp_path / "etc/systemd/system/tickserve.service"
    assert unit.read_text() in shown.stdout
    settings = tmp_path / "etc/tickserve/tickserve.toml"
    settings.write_text("# mine\n")
    assert install(*root).returncode == 0
    assert settings.read_text() == "# mine\n"
    unit.write_text("[Service]\n")
    refused = install(*root)
    assert (refused.returncode, "not made by this command" in refused.stderr) == (1, True)
    assert unit.read_text() == "[Service]\n"
    assert MADE_BY in (tmp_path / "etc/sysusers.d/tickserve.conf").read_text()
    assert install("--system", "--user").returncode == 1
