"""A service manager for tests: runs a unit's command as systemd does, watchdog and all."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

POLL_S = 0.02
STOP_S = 20.0


def directives(unit: str) -> dict[str, str]:
    """Return the directives of a unit; of one that stands there several times, the last."""
    lines = [line for line in unit.splitlines() if "=" in line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


class ServiceManager:
    """Starts the command of a `Type=notify` unit and keeps to its rules.

    It counts as started at READY=1. Without WATCHDOG=1 for `watchdog_s` it gets SIGABRT and then
    SIGKILL, with all its processes; one that failed is started again after RestartSec.
    """

    def __init__(
        self, unit: str, *, folder: Path, environment: Mapping[str, str], watchdog_s: float
    ) -> None:
        self._rules = directives(unit)
        assert self._rules["Type"] == "notify"
        self._folder = folder
        self._watchdog_s = watchdog_s
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = f"\0tickserve-test-{os.getpid()}-{id(self):x}"
        self._socket.bind(address)
        self._socket.settimeout(POLL_S)
        self._environment = {
            **environment,
            "NOTIFY_SOCKET": f"@{address[1:]}",
            "WATCHDOG_USEC": str(round(watchdog_s * 1e6)),
        }
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._process: subprocess.Popen[bytes] | None = None
        self.messages: list[tuple[float, str]] = []
        self.starts = self.watchdog_kills = 0
        self.exit_code: int | None = None

    @property
    def pid(self) -> int:
        """The main process's."""
        assert self._process is not None
        return self._process.pid

    def told(self, line: str) -> list[float]:
        """Return when (monotonic) the service told a line."""
        return [at for at, message in list(self.messages) if line in message.splitlines()]

    def reload(self) -> None:
        """Run ExecReload=."""
        command = self._rules["ExecReload"].replace("$MAINPID", str(self.pid))
        subprocess.run(shlex.split(command), check=True)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.starts += 1
            with (self._folder / "service.log").open("ab") as log:
                self._process = subprocess.Popen(
                    shlex.split(self._rules["ExecStart"]), env=self._environment, stderr=log
                )
            self._watch(self._process)
            self.exit_code = self._process.returncode
            if self.exit_code == 0 or self._rules["Restart"] != "on-failure":
                return
            self._stopping.wait(float(self._rules["RestartSec"]))

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Take messages until the process ends; kill it when it is silent for too long."""
        fed: float | None = None
        while process.poll() is None:
            with contextlib.suppress(TimeoutError):
                message = self._socket.recv(4096).decode()
                self.messages.append((time.monotonic(), message))
                if "READY=1" in message or "WATCHDOG=1" in message:
                    fed = time.monotonic()
            if fed is not None and time.monotonic() - fed > self._watchdog_s:
                self.watchdog_kills += 1
                children = descendants(process.pid)
                process.send_signal(signal.SIGABRT)
                process.send_signal(signal.SIGCONT)
                process.wait(STOP_S)
                for child in children:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(STOP_S)
        self._thread.join()
        self._socket.close()


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and theirs, as a control group has them."""
    command = ["pgrep", "-P", str(pid)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    children = [int(each) for each in found.stdout.split()]
    return children + [each for child in children for each in descendants(child)]
