"""Single-row round trip of one raw client beside a bare ROUTER/DEALER echo of the same bytes."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Iterator, Sequence

import msgspec
import zmq

from benchmarks.daemon import free_endpoints, running
from tickserve_client.messages import Predict

SPIN_US = "200"
BLOCK = 500
"""Requests to one side before it is the other side's turn."""


def echo(endpoint: str) -> None:
    """Send back what comes, for ever: the least that any Python server can do."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.bind(endpoint)
        while True:
            socket.send_multipart(socket.recv_multipart())


@contextlib.contextmanager
def echo_server() -> Iterator[str]:
    """Run the echo in a process of its own."""
    endpoint = free_endpoints().predict
    process = multiprocessing.get_context("spawn").Process(target=echo, args=(endpoint,))
    process.start()
    try:
        yield endpoint
    finally:
        process.terminate()
        process.join()


def time_block(socket: zmq.Socket[bytes], body: bytes, count: int) -> list[int]:
    """Time `count` round trips one after the other, in nanoseconds."""
    durations = []
    for _ in range(count):
        started = time.perf_counter_ns()
        socket.send(body)
        reply = socket.recv()
        durations.append(time.perf_counter_ns() - started)
        assert len(reply) >= len(body) // 4, reply
    return durations


def request(features: int) -> Predict:
    """One single-row request by feature name."""
    row: dict[str, float | None] = {f"f{index}": 0.1 * index for index in range(features)}
    return Predict(id="1", model="eurusd_1h_xgb_bench", features=row)


def percentile(values: list[int], fraction: float) -> float:
    """Return a percentile of nanoseconds, in µs."""
    return sorted(values)[int(fraction * (len(values) - 1))] / 1000


def compare(served: str, echoed: str, body: bytes, *, blocks: int) -> tuple[list[int], list[int]]:
    """Interleave blocks of round trips to both sides; return both sides' durations."""
    ours: list[int] = []
    theirs: list[int] = []
    context: zmq.Context[zmq.Socket[bytes]]
    with zmq.Context() as context, context.socket(zmq.DEALER) as left:
        right = context.socket(zmq.DEALER)
        left.connect(served)
        right.connect(echoed)
        for socket in (left, right):
            socket.rcvtimeo = 10_000
            time_block(socket, body, BLOCK)
        for _ in range(blocks):
            ours += time_block(left, body, BLOCK)
            theirs += time_block(right, body, BLOCK)
        right.close()
    return ours, theirs


def report(name: str, ours: list[int], theirs: list[int]) -> None:
    """Print percentiles of both sides and their ratios."""
    cells = [f"{name:28}"]
    for fraction in (0.5, 0.99):
        a, b = percentile(ours, fraction), percentile(theirs, fraction)
        cells.append(f"p{fraction * 100:g} {a:7.1f} µs  echo {b:7.1f} µs  ratio {a / b:5.2f}")
    print("   ".join(cells))


def main(options: Sequence[str]) -> None:
    """Measure both codecs on the 5-feature 100-tree model, with `spin_us`, and a larger model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=20, help=f"blocks of {BLOCK} round trips")
    parser.add_argument("--plain", action="store_true", help="the first two rows alone")
    chosen = parser.parse_args(options)
    blocks = chosen.blocks
    small, large = request(5), request(40)
    pack, dump = msgspec.msgpack.encode, msgspec.json.encode
    with echo_server() as echoed:
        with running() as service:
            endpoint = service.endpoints.predict
            first = _measure("MessagePack", endpoint, echoed, pack(small), blocks)
            second = _measure("JSON", endpoint, echoed, dump(small), blocks)
        print(f"served ÷ echo, medians: {first:.2f} MessagePack, {second:.2f} JSON")
        if chosen.plain:
            return
        with running(settings={"SERVING__SPIN_US": SPIN_US}) as service:
            name = f"MessagePack, spin_us = {SPIN_US}"
            _measure(name, service.endpoints.predict, echoed, pack(small), blocks)
        with running(features=40, trees=500, depth=6) as service:
            name = "40 features, 500 trees"
            _measure(name, service.endpoints.predict, echoed, pack(large), blocks)


def _measure(name: str, served: str, echoed: str, body: bytes, blocks: int) -> float:
    """Compare, report, and return the ratio of the medians."""
    ours, theirs = compare(served, echoed, body, blocks=blocks)
    report(name, ours, theirs)
    return statistics.median(ours) / statistics.median(theirs)
