"""Batches beside the model's own `predict` in this process, and other bots' rows beside them."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import zmq

from benchmarks.daemon import running, train
from benchmarks.load import Load
from benchmarks.round_trip import percentile, request
from tickserve_client.messages import Predict

FAMILY = "eurusd_1h_xgb_bench"
SIZES = (1_000, 100_000)
LARGEST = SIZES[-1]
TOLERANCE = 1e-5


def batch_frames(rows: npt.NDArray[Any]) -> list[bytes]:
    """Return the frames that ask for the rows."""
    message = Predict(id="1", model=FAMILY, tensor=list(rows.shape))
    return [msgspec.msgpack.encode(message), rows.tobytes()]


def main(options: Sequence[str]) -> None:
    """Measure batches of 1,000 and 100,000 rows, then single rows beside the latter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15, help="batches of each size")
    parser.add_argument("--seconds", type=float, default=3.0, help="single rows, a turn")
    chosen = parser.parse_args(options)
    model: Any = train()
    random = np.random.default_rng(5)
    with running() as service:
        for size in SIZES:
            rows = random.normal(size=(size, 5)).astype("<f4")
            _compare(service.endpoints.predict, model.predict_proba, rows, chosen.repeats)
        _beside(service.endpoints.predict, rows, chosen.seconds)


def _compare(
    endpoint: str,
    predict: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
    rows: npt.NDArray[Any],
    repeats: int,
) -> None:
    """Interleave batches over the wire and in this process."""
    frames = batch_frames(rows)
    ours: list[float] = []
    theirs: list[float] = []
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.rcvtimeo = 30_000
        socket.connect(endpoint)
        for turn in range(repeats + 1):
            started = time.perf_counter()
            socket.send_multipart(frames)
            _, answer = socket.recv_multipart()
            middle = time.perf_counter()
            expected = predict(rows)[:, 1]
            ended = time.perf_counter()
            error = float(np.abs(np.frombuffer(answer, "<f4") - expected).max())
            assert error < TOLERANCE, error
            if turn:
                ours.append(middle - started)
                theirs.append(ended - middle)
    left, right = statistics.median(ours) * 1000, statistics.median(theirs) * 1000
    print(
        f"batch of {len(rows):7,} rows   {left:8.2f} ms  predict in process {right:8.2f} ms  "
        f"ratio {left / right:.2f}"
    )


def _beside(endpoint: str, rows: npt.NDArray[Any], seconds: float) -> None:
    """Measure one bot's single rows, without and with another that sends large batches."""
    single = Load(endpoint, [msgspec.msgpack.encode(request(5))], clients=1, expect=b"prediction")
    batches = Load(endpoint, batch_frames(rows), clients=1, expect=b"prediction")
    single.run(0.5)
    batches.run(0.5)
    alone, crowded = [], []
    served = 0
    for _ in range(3):
        alone += single.run(seconds).durations
        batches.begin(seconds)
        crowded += single.run(seconds).durations
        served += batches.end().replies
    single.close()
    batches.close()
    print(f"single rows beside {served} batches of {LARGEST:,}", end="")
    for at in (0.5, 0.99):
        beside, before = percentile(crowded, at), percentile(alone, at)
        print(f"   p{at * 100:g} {beside:.0f} µs  ratio {beside / before:.2f}", end="")
    print()
