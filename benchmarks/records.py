"""Prediction records at the highest rates the server reaches: how many, and none lost."""

from __future__ import annotations

import argparse
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from benchmarks.batches import batch_frames
from benchmarks.daemon import Service, model_info, train
from benchmarks.load import Load, Result
from benchmarks.round_trip import request
from tickserve_registry.model_registry import ModelRegistry

CLIENTS = 32
BATCH_ROWS = 10_000


def main(options: Sequence[str]) -> None:
    """Count what clients were answered and what the ledger holds after the daemon's end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each turn")
    seconds = parser.parse_args(options).seconds
    rows = np.random.default_rng(5).normal(size=(BATCH_ROWS, 5)).astype("<f4")
    _turn("single rows", [msgspec.msgpack.encode(request(5))], CLIENTS, 1, seconds)
    _turn(f"batches of {BATCH_ROWS:,}", batch_frames(rows), 2, BATCH_ROWS, seconds)


def _turn(name: str, body: list[bytes], clients: int, rows: int, seconds: float) -> None:
    with TemporaryDirectory() as folder:
        service = Service(Path(folder))
        registry = ModelRegistry(str(service.storage))
        registry.save_model(train(), model_info(), environment="production")
        with service:
            load = Load(service.endpoints.predict, body, clients=clients, expect=b"prediction_id")
            result: Result = load.run(seconds)
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
