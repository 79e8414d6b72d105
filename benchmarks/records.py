"""Prediction records at the highest rates the server reaches: how many, and none lost."""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from benchmarks.batches import batch_frames
from benchmarks.daemon import Service, model_info, running, train
from benchmarks.load import Load, Result
from benchmarks.round_trip import percentile, request
from tickserve_registry.model_registry import ModelRegistry

CLIENTS = 32
BATCH_ROWS = 10_000


def main(options: Sequence[str]) -> None:
    """Count what clients were answered and what the ledger holds after the daemon's end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each turn")
    parser.add_argument("--repeats", type=int, default=5, help="of the comparison of p99")
    chosen = parser.parse_args(options)
    seconds = chosen.seconds
    rows = np.random.default_rng(5).normal(size=(BATCH_ROWS, 5)).astype("<f4")
    single = [msgspec.msgpack.encode(request(5))]
    _turn("single rows", single, CLIENTS, 1, seconds)
    _turn("single rows, recorder killed half-way", single, CLIENTS, 1, seconds, kill=True)
    _turn(f"batches of {BATCH_ROWS:,}", batch_frames(rows), 2, BATCH_ROWS, seconds)
    _with_and_without(chosen.repeats, seconds / chosen.repeats)


def _with_and_without(repeats: int, seconds: float) -> None:
    """Compare what clients wait when their rows are recorded, and when they are history."""
    recorded = request(5)
    history = msgspec.structs.replace(recorded, log=False)
    with running() as service:
        bodies = [msgspec.msgpack.encode(each) for each in (recorded, history)]
        for clients in (1, CLIENTS):
            loads = [
                Load(service.endpoints.predict, [body], clients=clients, expect=b"output")
                for body in bodies
            ]
            waited: list[list[int]] = [[], []]
            for _ in range(repeats):
                for place, load in enumerate(loads):
                    waited[place] += load.run(seconds).durations
            for load in loads:
                load.close()
            with_p99, without_p99 = (percentile(durations, 0.99) for durations in waited)
            print(
                f"{clients} clients: p99 {with_p99:.0f} µs with records, {without_p99:.0f} µs "
                f"without, ratio {with_p99 / without_p99:.2f}"
            )


def _turn(
    name: str, body: list[bytes], clients: int, rows: int, seconds: float, *, kill: bool = False
) -> None:
    with TemporaryDirectory() as folder:
        service = Service(Path(folder))
        registry = ModelRegistry(str(service.storage))
        registry.save_model(train(), model_info(), environment="production")
        with service:
            load = Load(service.endpoints.predict, body, clients=clients, expect=b"prediction_id")
            load.begin(seconds)
            if kill:
                time.sleep(seconds / 2)
                os.kill(service.child("recorder"), signal.SIGKILL)
            result: Result = load.end()
            load.close()
            stopped = time.perf_counter()
            service.stop()
            drained = time.perf_counter() - stopped
        recorded = _recorded(service.storage)
    answered = result.replies * rows
    print(
        f"{name}: {answered / result.seconds:,.0f} rows/s answered, {answered:,} in all, "
        f"{recorded:,} recorded, {answered - recorded:,} lost, {result.wrong} errors "
        f"(stopped in {drained:.1f} s)"
    )


def _recorded(storage: Path) -> int:
    """Return how many predicted rows the ledger holds."""
    with sqlite3.connect(storage / "ledger" / "ledger.sqlite3") as ledger:
        found = ledger.execute("select rows from prediction_parcels").fetchall()
    return sum(
        sum(msgspec.json.decode(counts, type=dict[str, int]).values()) for (counts,) in found
    )
