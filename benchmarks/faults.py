"""What clients wait while the ledger cannot be written, and how soon it is written again."""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import zmq

from benchmarks.daemon import Service, model_info, train
from benchmarks.load import Load
from benchmarks.round_trip import percentile, request
from tickserve_registry.model_registry import ModelRegistry

PRELOADED = Path(__file__).parent.parent / "tests" / "faults" / "preload" / "disk.c"
FAULTS = ("full", "readonly", "sync", "locked")
CLIENTS = 4
PACE_S = 0.005
ANSWER_MS = 10_000
AGAIN_S = 0.02


def main(options: Sequence[str]) -> None:
    """Compare p99 with and without each fault, the two interleaved, and time the recovery."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each fault")
    parser.add_argument("--only", choices=FAULTS, action="append", help="may be given again")
    chosen = parser.parse_args(options)
    seconds = chosen.seconds
    with TemporaryDirectory() as name:
        folder = Path(name)
        library, control = folder / "disk.so", folder / "fault"
        command = ["cc", "-shared", "-fPIC", "-O1", str(PRELOADED), "-o", str(library), "-ldl"]
        subprocess.run(command, check=True)
        service = Service(folder)
        service.environment |= {
            "LD_PRELOAD": str(library),
            "DISK_FOLDER": str(service.storage / "ledger"),
            "DISK_FAULT": str(control),
        }
        registry = ModelRegistry(str(service.storage))
        registry.save_model(train(), model_info(), environment="production")
        (build,) = (entry.build for entry in registry.entries())
        with service:
            body = [msgspec.msgpack.encode(request(5))]
            endpoint = service.endpoints.predict
            load = Load(endpoint, body, clients=CLIENTS, expect=b"output", pace_s=PACE_S)
            load.run(2.0)
            for fault in chosen.only or FAULTS:
                cause = _locked(service) if fault == "locked" else _failing(control, fault)
                _measure(fault, load, seconds, cause, lambda: _report(service, build))
            load.close()


def _measure(
    name: str, load: Load, seconds: float, cause: Iterator[None], report: Callable[[], str]
) -> None:
    before = load.run(seconds)
    next(cause)
    refused = report()
    during = load.run(seconds)
    next(cause, None)
    started = time.monotonic()
    while report() == "retry":
        time.sleep(AGAIN_S)
    recovered = time.monotonic() - started
    with_p99, without_p99 = (percentile(each.durations, 0.99) for each in (during, before))
    print(
        f"{name:9} p99 {with_p99:.0f} µs, without {without_p99:.0f} µs, ratio "
        f"{with_p99 / without_p99:.2f}; {during.replies:,} predictions, {during.wrong} errors; "
        f"feedback {refused}; stored again after {recovered:.2f} s"
    )


def _failing(control: Path, word: str) -> Iterator[None]:
    control.write_text(word)
    yield
    control.write_text("")


def _locked(service: Service) -> Iterator[None]:
    other = sqlite3.connect(service.storage / "ledger" / "ledger.sqlite3", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    yield
    other.execute("ROLLBACK")
    other.close()


@contextmanager
def _feedback(service: Service) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.rcvtimeo = ANSWER_MS
        socket.connect(service.endpoints.feedback)
        yield socket


def _report(service: Service, build: str) -> str:
    """Report a trade that is new each time; return what became of it."""
    closed = time.time_ns() // 1_000_000
    message = {
        "op": "outcome",
        "bot": "hand",
        "run": "r",
        "trade": str(time.monotonic_ns()),
        "seq": 1,
        "status": "closed",
        "final": True,
        "build": build,
        "pnl": 1.0,
        "closed_at": closed,
    }
    with _feedback(service) as socket:
        socket.send(json.dumps(message).encode())
        status: str = json.loads(socket.recv())["status"]
    return status
