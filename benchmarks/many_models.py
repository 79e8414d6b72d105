"""A daemon with 200 production models: time to ready, memory, and latency spread over all."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import zmq

from benchmarks.daemon import Service, model_info, train
from benchmarks.round_trip import percentile
from tickserve_client.messages import Predict
from tickserve_registry.model_registry import ModelRegistry

MODELS = 200
MEBIBYTE = 1 << 20
ROUNDS = 60


def main(options: Sequence[str]) -> None:
    """Measure with one model and with many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=MODELS)
    count = parser.parse_args(options).models
    with TemporaryDirectory() as folder:
        service = Service(Path(folder))
        registry = ModelRegistry(str(service.storage))
        model: Any = train()
        families: list[str] = []
        memory: list[int] = []
        tails: list[float] = []
        for target in (1, count):
            for number in range(len(families), target):
                info = {**model_info(), "market": f"m{number}"}
                registry.save_model(model, info, environment="production")
                families.append(f"m{number}_1h_xgb_bench")
            started = time.perf_counter()
            with service:
                ready = time.perf_counter() - started
                tails.append(percentile(_ask(service, families), 0.99))
                memory.append(resident(service.child("serving")))
            print(
                f"{target:4} models: ready after {ready:.2f} s, serving process "
                f"{memory[-1] / MEBIBYTE:.0f} MiB, p99 over all {tails[-1]:.0f} µs"
            )
        each = (memory[1] - memory[0]) / max(1, count - 1) / MEBIBYTE
        print(f"{each:.2f} MiB a model, p99 ratio {tails[1] / tails[0]:.2f}")


def _ask(service: Service, families: list[str]) -> list[int]:
    """Ask all models in turn, again and again; return durations in nanoseconds."""
    row: dict[str, float | None] = {f"f{index}": 0.1 * index for index in range(5)}
    bodies = [
        msgspec.msgpack.encode(Predict(id="1", model=name, features=row)) for name in families
    ]
    durations = []
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.rcvtimeo = 10_000
        socket.connect(service.endpoints.predict)
        for turn in range(ROUNDS * MODELS):
            started = time.perf_counter_ns()
            socket.send(bodies[turn % len(bodies)])
            reply = socket.recv()
            durations.append(time.perf_counter_ns() - started)
            assert b"output" in reply, reply
    return durations[len(families) :]


def resident(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)
