"""A real daemon on free loopback ports over a storage root, for benchmarks and tests."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import xgboost

from tickserve_client import BotKeys, Client, ClientError
from tickserve_registry.model_registry import ModelRegistry
from tickserve_server.runtime import Runtime

START_S = 60.0
STOP_S = 20.0


class Endpoints(NamedTuple):
    """Where a daemon listens."""

    predict: str
    feedback: str
    events: str


def free_endpoints() -> Endpoints:
    """Return loopback endpoints whose ports are free now and differ."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in Endpoints._fields]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return Endpoints(*(f"tcp://127.0.0.1:{probe.getsockname()[1]}" for probe in probes))


class Service:
    """`tickserve serve` in a process of its own; its log is in `log`.

    `settings` are environment variables without their prefix: {"SERVING__SPIN_US": "100"}.
    """

    def __init__(
        self,
        folder: Path,
        *,
        writeback_seconds: float = 60.0,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.storage = folder / "model_storage"
        self.endpoints = free_endpoints()
        self.log = folder / "daemon.log"
        self.environment = {
            **os.environ,
            "TICKSERVE_RECORDER__WRITEBACK_SECONDS": str(writeback_seconds),
            **{f"TICKSERVE_{name}": value for name, value in (settings or {}).items()},
        }
        self.keys: BotKeys | None = None
        """With which its clients connect, where it asks for keys."""

        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Return the command line."""
        command = [sys.executable, "-m", "tickserve_server", "serve"]
        command += ["--storage", str(self.storage)]
        for name, endpoint in self.endpoints._asdict().items():
            command += [f"--{name}", endpoint]
        return command

    def start(self) -> Self:
        """Start it and wait until both its processes answer; raise TimeoutError or RuntimeError."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self.command(), env=self.environment, stderr=log)
        deadline = time.monotonic() + START_S
        for endpoint in (self.endpoints.feedback, self.endpoints.predict):
            self._await_answer(endpoint, deadline)
        return self

    def _await_answer(self, endpoint: str, deadline: float) -> None:
        assert self._process is not None
        with Client(endpoint, timeout=0.5, keys=self.keys) as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(ClientError):
                    if client.ping().ready:
                        return
                if self._process.poll() is not None:
                    raise RuntimeError(self.log.read_text())
        raise TimeoutError(f"no daemon at {endpoint} within {START_S:g} s")

    def client(self, *, bot: str = "bot", timeout: float = 0.5) -> Client:
        """Return a client of the daemon."""
        return Client(
            self.endpoints.predict, bot=bot, currency="USD", timeout=timeout, keys=self.keys
        )

    def child(self, name: str) -> int:
        """Return the pid of the recorder or the serving process, from its command line.

        Waits for one that is being restarted; raises TimeoutError after `START_S` seconds.
        """
        assert self._process is not None
        command = ["pgrep", "-P", str(self._process.pid), "-f", f"tickserve_server {name}"]
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            found = subprocess.run(command, capture_output=True, text=True, check=False)
            if found.stdout:
                return int(found.stdout.split()[0])
            time.sleep(0.05)
        raise TimeoutError(f"no {name} process within {START_S:g} s")

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> int:
        """End it with SIGTERM and return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOP_S)

    def kill(self) -> None:
        """Kill the supervisor without warning; its children notice and leave."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(STOP_S)

    def await_end(self) -> None:
        """Wait until no process of a killed daemon is left."""
        deadline = time.monotonic() + STOP_S
        command = ["pgrep", "-f", f"tickserve_server.*{Runtime(self.storage).folder.name}"]
        while time.monotonic() < deadline:
            if not subprocess.run(command, capture_output=True, check=False).stdout:
                return
            time.sleep(0.05)
        raise TimeoutError("processes of a killed daemon are still there")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()


def train(*, features: int = 5, trees: int = 100, depth: int = 5, seed: int = 7) -> xgboost.Booster:
    """Train a binary classifier of the given size on seeded noise."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(2_000, features)).astype(np.float32)
    labels = (inputs[:, 0] + random.normal(size=2_000) > 0).astype(int)
    model = xgboost.XGBClassifier(n_estimators=trees, max_depth=depth)
    return model.fit(inputs, labels)


def model_info(*, features: int = 5, version: int = 1) -> dict[str, object]:
    """Metadata of a model made by train()."""
    return {
        "market": "eurusd",
        "timeframe": "1h",
        "model_type": "xgb",
        "strategy": "bench",
        "version": version,
        "features": [f"f{index}" for index in range(features)],
        "output": {"kind": "probability", "long_above": 0.55, "short_below": 0.45},
    }


@contextlib.contextmanager
def running(
    *,
    features: int = 5,
    trees: int = 100,
    depth: int = 5,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Service]:
    """Run a daemon over one production model in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder), settings=settings)
        model = train(features=features, trees=trees, depth=depth)
        registry = ModelRegistry(str(service.storage))
        registry.save_model(model, model_info(features=features), environment="production")
        with service:
            yield service
