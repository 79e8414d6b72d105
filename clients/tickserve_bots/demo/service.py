"""The daemon of the demo, as a process of its own on free loopback ports."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

from tickserve_bots.demo.storage import DemoFolder
from tickserve_client import Client, ClientError

START_S = 30.0
STOP_S = 15.0
WRITEBACK_S = 2.0
NAMES = ("predict", "feedback", "events")


class DaemonFailed(Exception):
    """The daemon did not start, or did not end as it should; its log says why."""


class DemoDaemon:
    """`tickserve serve` over the demo's storage root."""

    def __init__(self, folder: DemoFolder) -> None:
        self._folder = folder
        self.endpoints = dict(zip(NAMES, _free_endpoints(len(NAMES)), strict=True))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "tickserve_server", "serve"]
        command += ["--storage", str(self._folder.storage)]
        for name, endpoint in self.endpoints.items():
            command += [f"--{name}", endpoint]
        environment = {
            **os.environ,
            "TICKSERVE_RECORDER__WRITEBACK_SECONDS": str(WRITEBACK_S),
            "TICKSERVE_RECORDER__METRIC_LOG_SECONDS": "10",
        }
        with self._folder.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=environment, stderr=log, start_new_session=True
            )
        self._await_answer(self._process)

    def stop(self) -> None:
        """End it with SIGTERM; raise DaemonFailed unless its exit code is 0."""
        process = self._process
        if process is None:
            return
        self._process = None
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise DaemonFailed(f"the daemon did not end; see {self._folder.log}") from None
        if code != 0:
            raise DaemonFailed(f"the daemon ended with code {code}; see {self._folder.log}")

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_S
        with Client(self.endpoints["predict"]) as client:
            while time.monotonic() < deadline and process.poll() is None:
                with contextlib.suppress(ClientError):
                    if client.ping().ready:
                        return
        raise DaemonFailed(f"the daemon does not answer; see {self._folder.log}")


def _free_endpoints(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [f"tcp://127.0.0.1:{probe.getsockname()[1]}" for probe in probes]
