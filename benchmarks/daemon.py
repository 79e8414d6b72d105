"""A real daemon on free loopback ports with one model, for benchmarks to talk to."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xgboost
from tickserve_client import Client, ClientError
from tickserve_registry.model_registry import ModelRegistry

START_S = 60.0


class Endpoints(NamedTuple):
    """Where the daemon listens."""

    predict: str
    feedback: str
    events: str


def free_endpoint() -> str:
    """Return a loopback endpoint whose port is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def train(*, features: int, trees: int, depth: int) -> xgboost.XGBClassifier:
    """Train a binary classifier of the given size on seeded noise."""
    random = np.random.default_rng(7)
    inputs = random.normal(size=(2_000, features)).astype(np.float32)
    labels = (inputs[:, 0] + random.normal(size=2_000) > 0).astype(int)
    return xgboost.XGBClassifier(n_estimators=trees, max_depth=depth).fit(inputs, labels)


def model_info(*, features: int, version: int = 1) -> dict[str, object]:
    """Metadata of the benchmark's model."""
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
def running(*, features: int = 5, trees: int = 100, depth: int = 5) -> Iterator[Endpoints]:
    """Run a daemon over one production model in a temporary storage root."""
    with tempfile.TemporaryDirectory() as root:
        registry = ModelRegistry(str(Path(root) / "storage"))
        model = train(features=features, trees=trees, depth=depth)
        registry.save_model(model, model_info(features=features), environment="production")
        endpoints = Endpoints(free_endpoint(), free_endpoint(), free_endpoint())
        command = [sys.executable, "-m", "tickserve_server", "serve"]
        command += ["--storage", str(registry.storage_root)]
        for name, endpoint in endpoints._asdict().items():
            command += [f"--{name}", endpoint]
        with (Path(root) / "daemon.log").open("wb") as log:
            daemon = subprocess.Popen(command, stderr=log)
            try:
                await_ready(endpoints.predict)
                yield endpoints
            finally:
                daemon.terminate()
                daemon.wait(20)


def await_ready(endpoint: str) -> None:
    """Wait until the daemon answers; raise TimeoutError after `START_S` seconds."""
    deadline = time.monotonic() + START_S
    with Client(endpoint) as client:
        while time.monotonic() < deadline:
            with contextlib.suppress(ClientError):
                if client.ping().ready:
                    return
    raise TimeoutError(f"no daemon at {endpoint} within {START_S:g} s")
