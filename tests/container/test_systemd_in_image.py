"""The hardened unit under a real systemd, in a container of systemd-nspawn."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.roots import prepare, run
from tests.service_manager import descendants
from tickserve_server.unit import WATCHDOG_S

pytestmark = pytest.mark.image

START_S = 60.0
RESTART_S = 60.0
"""Beside the watchdog's: systemd waits for what is left of the service, and starts it."""

SYSTEMD = "/usr/lib/systemd/systemd"


class Machine:
    """A booted container; commands run inside it."""

    def __init__(self, nspawn: int) -> None:
        self._nspawn = nspawn
        self.leader = 0

    def run(self, *command: str) -> str:
        """Run a command inside; return what it printed."""
        enter = ["nsenter", "--target", str(self.leader), "--all", *command]
        return subprocess.run(enter, capture_output=True, text=True, check=False).stdout.strip()

    def show(self, name: str) -> str:
        """Return a property of the service."""
        return self.run("systemctl", "show", "--property", name, "--value", "tickserve")

    def until(self, name: str, value: str, *, seconds: float) -> None:
        """Wait for a property."""
        deadline = time.monotonic() + seconds
        while self.show(name) != value:
            assert time.monotonic() < deadline, self.run("journalctl", "-u", "tickserve")
            time.sleep(0.5)

    def find_leader(self) -> None:
        """Wait for the container's first process."""
        deadline = time.monotonic() + START_S
        while not self.leader:
            assert time.monotonic() < deadline
            for pid in descendants(self._nspawn):
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0] == SYSTEMD:
                        self.leader = pid
            time.sleep(0.2)


@pytest.fixture(scope="module")
def machine(image: Path, project_root: Path) -> Iterator[Machine]:
    """The image with systemd in it, booted; skipped where that cannot be."""
    if shutil.which("systemd-nspawn") is None:
        pytest.skip("needs systemd-nspawn (apt-get install systemd-container)")
    prepare(image, project_root)
    inside = ["chroot", str(image), "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    packages = "apt-get update -qq && apt-get install -y -qq --no-install-recommends systemd dbus"
    run([*inside, "DEBIAN_FRONTEND=noninteractive", "sh", "-c", packages])
    run([*inside, "/opt/tickserve/bin/tickserve", "install-service", "--system"])
    run([*inside, "systemctl", "enable", "tickserve"])
    command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot"]
    command += ["--private-network", "--console=pipe", "--directory", str(image)]
    variables = {**os.environ}
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        variables["SYSTEMD_NSPAWN_UNIFIED_HIERARCHY"] = "0"
    booted = subprocess.Popen(
        command,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        made = Machine(booted.pid)
        made.find_leader()
        yield made
    finally:
        booted.terminate()
        booted.wait(START_S)


def test_the_hardened_unit_is_ready_watched_and_stopped(machine: Machine) -> None:
    """READY under every restriction, reload, a stuck supervisor killed, a clean stop."""
    machine.until("ActiveState", "active", seconds=START_S)
    assert machine.show("StatusText").startswith("serving at tcp://127.0.0.1:5555")
    machine.run("systemctl", "reload", "tickserve")
    assert machine.show("NRestarts") == "0"
    machine.run("kill", "-STOP", machine.show("MainPID"))
    machine.until("NRestarts", "1", seconds=WATCHDOG_S + RESTART_S)
    machine.until("ActiveState", "active", seconds=START_S)
    machine.run("systemctl", "stop", "tickserve")
    assert (machine.show("ActiveState"), machine.show("Result")) == ("inactive", "success")
    log = machine.run("journalctl", "-u", "tickserve")
    assert "Watchdog timeout" in log
    assert '"event": "stopped"' in log
