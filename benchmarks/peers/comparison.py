"""Latency at one client, throughput at 8 and 32, and memory, of each peer beside tickserve."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec

from benchmarks.daemon import free_endpoints, running, train
from benchmarks.load import Load, Result
from benchmarks.many_models import MEBIBYTE
from benchmarks.peers import http_load
from benchmarks.round_trip import percentile, request

FOLDER = Path(__file__).parent
ENVIRONMENTS = FOLDER.parents[1] / ".bench-peers"
ROW = [0.1 * index for index in range(5)]
PLAIN = msgspec.json.encode({"features": ROW})
V2 = msgspec.json.encode(
    {"inputs": [{"name": "x", "shape": [1, 5], "datatype": "FP32", "data": ROW}]}
)
START_S = 60.0
CLIENTS = (1, 8, 32)


class Peer(NamedTuple):
    """A model server: what to post where, and what every right answer holds."""

    name: str
    request: bytes
    expect: bytes


PEERS = (
    Peer("fastapi", http_load.post("/predict", PLAIN), b'"output":'),
    Peer("mlserver", http_load.post("/v2/models/bench/infer", V2), b'"outputs":'),
    Peer("bentoml", http_load.post("/predict", PLAIN), b'"output":'),
    Peer("litserve", http_load.post("/predict", PLAIN), b'"output":'),
)


def main(options: Sequence[str]) -> None:
    """Compare every peer whose environment is there, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=[peer.name for peer in PEERS])
    parser.add_argument("--repeats", type=int, default=4, help="turns of each side")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn")
    chosen = parser.parse_args(options)
    model: Any = train()
    with TemporaryDirectory() as folder, running() as service:
        file = Path(folder) / "model.json"
        model.save_model(file)
        pid = service.pid
        for peer in PEERS:
            if chosen.only and peer.name not in chosen.only:
                continue
            if not (ENVIRONMENTS / peer.name / "bin" / "python").exists():
                print(f"{peer.name}: not installed; run: make bench-peers")
                continue
            with served(peer, file) as (endpoint, process):
                _compare(peer, endpoint, service.endpoints.predict, chosen)
                print(
                    f"  memory {tree_memory(process) / MEBIBYTE:.0f} MiB, "
                    f"tickserve {tree_memory(pid) / MEBIBYTE:.0f} MiB (three processes and a trial)"
                )


@contextlib.contextmanager
def served(peer: Peer, model: Path) -> Iterator[tuple[str, int]]:
    """Run a peer in its environment; yield host:port and pid."""
    port = int(free_endpoints().predict.rpartition(":")[2])
    python = ENVIRONMENTS / peer.name / "bin" / "python"
    process = subprocess.Popen(
        [str(python), "serve.py", str(port)],
        cwd=FOLDER / peer.name,
        env=os.environ | {"MODEL": str(model), "BENTOML_DO_NOT_TRACK": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    endpoint = f"127.0.0.1:{port}"
    try:
        _await(peer, endpoint, process)
        yield endpoint, process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _await(peer: Peer, endpoint: str, process: subprocess.Popen[bytes]) -> None:
    """Wait for the first right answer."""
    deadline = time.monotonic() + START_S
    answer = b""
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, StopIteration):
            (connection,) = http_load.connect(endpoint, 1)
            with connection:
                connection.sendall(peer.request)
                answer = http_load.receive(connection)
                if peer.expect in answer:
                    return
        time.sleep(0.25)
    raise TimeoutError(f"{peer.name} gave no right answer within {START_S:g} s: {answer[:300]!r}")


def _compare(peer: Peer, endpoint: str, ours: str, chosen: argparse.Namespace) -> None:
    """Interleave turns of both sides at each number of clients, and print the ratios."""
    print(peer.name)
    body = msgspec.msgpack.encode(request(5))
    for clients in CLIENTS:
        with contextlib.ExitStack() as stack:
            loads = []
            for where, what, expect in (
                (endpoint, peer.request, peer.expect),
                (ours, body, b"prediction_id"),
            ):
                load = Load(where, [what], clients=clients, expect=expect)
                stack.callback(load.close)
                load.run(0.5)
                loads.append(load)
            turns = [[load.run(chosen.seconds) for load in loads] for _ in range(chosen.repeats)]
        theirs, own = ([turn[side] for turn in turns] for side in (0, 1))
        assert not any(result.wrong for turn in turns for result in turn)
        rates = [statistics.median(result.rate for result in side) for side in (theirs, own)]
        p50, p99 = (_ratio(theirs, own, at) for at in (0.5, 0.99))
        print(
            f"  {clients:2} clients: {rates[0]:7,.0f}/s, tickserve {rates[1]:8,.0f}/s, "
            f"{rates[1] / rates[0]:5.1f} times; p50 {p50}; p99 {p99}"
        )


def _ratio(theirs: Sequence[Result], ours: Sequence[Result], at: float) -> str:
    """Return a percentile of both sides in milliseconds, and how many times lower ours is."""
    left, right = (
        percentile([duration for result in side for duration in result.durations], at) / 1000
        for side in (theirs, ours)
    )
    return f"{left:.2f}/{right:.2f} ms, {left / right:.1f} times lower"


def tree_memory(pid: int) -> int:
    """Return the proportional resident memory of a process and all below it, in bytes."""
    own, children = 0, ""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                own = int(line.split()[1]) * 1024
    return own + sum(tree_memory(int(child)) for child in children.split())
