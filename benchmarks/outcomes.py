"""Outcomes: acknowledged a second, latency beside a bare commit, and costs as the ledger grows."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import zmq

from benchmarks.daemon import Service, model_info, train
from benchmarks.round_trip import percentile
from tickserve_registry.model_registry import ModelRegistry

START_MS = 1_577_836_800_000
MINUTE_MS = 60_000
CONNECTIONS = 8
IN_FLIGHT = 64
BATCH = 500
LATER = 1_000_000
"""Number of the first trade after those that measure the latency, so that it closes later."""


def main(options: Sequence[str]) -> None:
    """Measure latency and rate on a new ledger, then rate, write-back and restart as it grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outcomes", type=int, default=1_000_000, help="in the end")
    parser.add_argument("--builds", type=int, default=200)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--singles", type=int, default=20_000, help="sent one by one at first")
    chosen = parser.parse_args(options)
    with TemporaryDirectory() as folder:
        service = Service(Path(folder), writeback_seconds=3600.0)
        builds = _builds(ModelRegistry(str(service.storage)), chosen.builds)
        with service:
            _latency(service, builds[0], Path(folder))
            messages = _outcomes("single", builds, chosen.singles, first=LATER)
            seconds = _send(service, [msgspec.msgpack.encode(each) for each in messages])
            rate = chosen.singles / seconds
            print(f"one by one, {CONNECTIONS * IN_FLIGHT} in flight: {rate:,.0f}/s acknowledged")
        print("outcomes in the ledger | ingested/s | write-back of one new trade a build | restart")
        done = LATER + chosen.singles
        for _ in range(chosen.steps):
            done = _grow(service, builds, first=done, count=chosen.outcomes // chosen.steps)


def _grow(service: Service, builds: list[str], *, first: int, count: int) -> int:
    """Add outcomes in batches, then measure a write-back and a restart; return the next number."""
    after = first + count
    with service:
        items = list(_outcomes("many", builds, count, first=first))
        bodies = [
            msgspec.msgpack.encode({"op": "batch", "items": items[start : start + BATCH]})
            for start in range(0, count, BATCH)
        ]
        del items
        seconds = _send(service, bodies, in_flight=4)
        _write_back(service)
        newest = _outcomes("many", builds, len(builds), first=after)
        _send(service, [msgspec.msgpack.encode(each) for each in newest])
        cycle = _write_back(service)
        restart = _restart(service)
    with sqlite3.connect(service.storage / "ledger" / "ledger.sqlite3") as ledger:
        (total,) = ledger.execute("select count(*) from outcomes").fetchone()
        size = service.storage / "ledger" / "ledger.sqlite3"
    print(
        f"{total:22,} | {count / seconds:10,.0f} | {cycle * 1000:32.0f} ms | {restart:.2f} s "
        f"({size.stat().st_size / 2**20:,.0f} MiB)"
    )
    return after + len(builds)


def _builds(registry: ModelRegistry, count: int) -> list[str]:
    model: Any = train(trees=5, depth=2)
    for number in range(count):
        registry.save_model(model, {**model_info(), "market": f"m{number}"})
    return [entry.build for entry in registry.entries()]


def _outcomes(
    run: str, builds: list[str], count: int, *, first: int = 0
) -> Iterator[dict[str, Any]]:
    """Return trades in close order, the builds in turn, one a minute for each build."""
    for number in range(first, first + count):
        closed = START_MS + number // len(builds) * MINUTE_MS
        yield {
            "op": "outcome",
            "id": str(number),
            "bot": f"bot{number % CONNECTIONS}",
            "run": run,
            "trade": str(number),
            "seq": 1,
            "status": "closed",
            "final": True,
            "build": builds[number % len(builds)],
            "side": "long",
            "qty": 1000.0,
            "entry_price": 1.1,
            "exit_price": 1.1005,
            "pnl": (number * 7919 % 2001 - 990) / 100,
            "fees": 0.12,
            "currency": "USD",
            "opened_at": closed - MINUTE_MS,
            "closed_at": closed,
            "exit_reason": "target",
        }


def _send(service: Service, bodies: list[bytes], *, in_flight: int = IN_FLIGHT) -> float:
    """Send over several connections, so many unanswered on each; return the seconds it took."""
    with zmq.Context() as context:
        sockets = [context.socket(zmq.DEALER) for _ in range(CONNECTIONS)]
        poller = zmq.Poller()
        for socket in sockets:
            socket.linger = 0
            socket.connect(service.endpoints.feedback)
            poller.register(socket, zmq.POLLIN)
        started, waiting, answered = time.perf_counter(), iter(bodies), 0
        for socket in sockets:
            for body in _first(waiting, in_flight):
                socket.send(body)
        while answered < len(bodies):
            for socket, _ in poller.poll(10_000):
                reply = socket.recv()
                assert b"recorded" in reply, reply
                answered += 1
                for body in _first(waiting, 1):
                    socket.send(body)
        seconds = time.perf_counter() - started
        for socket in sockets:
            socket.close()
    return seconds


def _first(bodies: Iterator[bytes], count: int) -> Iterator[bytes]:
    for _, body in zip(range(count), bodies, strict=False):
        yield body


def _latency(service: Service, build: str, folder: Path, rounds: int = 500) -> None:
    """Acknowledge one outcome after the other, beside a bare durable commit of the same bytes."""
    bare = sqlite3.connect(folder / "bare.sqlite3", isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        bare.execute(f"PRAGMA {pragma}")
    bare.execute("CREATE TABLE outcomes (key TEXT PRIMARY KEY, content TEXT)")
    ours, theirs = [], []
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(service.endpoints.feedback)
        for number, each in enumerate(_outcomes("slow", [build], rounds)):
            body = msgspec.json.encode(each)
            started = time.perf_counter_ns()
            socket.send(body)
            socket.recv()
            ours.append(time.perf_counter_ns() - started)
            started = time.perf_counter_ns()
            bare.execute("BEGIN IMMEDIATE")
            bare.execute("INSERT INTO outcomes VALUES (?, ?)", (str(number), body.decode()))
            bare.execute("COMMIT")
            theirs.append(time.perf_counter_ns() - started)
    bare.close()
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        acknowledged, committed = percentile(ours, share), percentile(theirs, share)
        print(
            f"low load {name}: acknowledged after {acknowledged:.0f} µs, bare commit "
            f"{committed:.0f} µs, ratio {acknowledged / committed:.2f}"
        )


def _write_back(service: Service) -> float:
    """Have all figures written by ending the recorder in order; return how long that run took."""
    recorder = service.child("recorder")
    before = service.log.stat().st_size
    os.kill(recorder, signal.SIGTERM)
    _await_recorder(service, other_than=recorder)
    with service.log.open("rb") as log:
        log.seek(before)
        for line in log:
            if b"figures_written" in line:
                return float(json.loads(line)["seconds"])
    raise RuntimeError("no write-back in the log")


def _restart(service: Service) -> float:
    """Kill the recorder; return the time from the new process's start to its first answer."""
    recorder = service.child("recorder")
    os.kill(recorder, signal.SIGKILL)
    started = _await_recorder(service, other_than=recorder)
    return time.time() - started


def _await_recorder(service: Service, *, other_than: int) -> float:
    """Wait until another recorder answers; return when its process started (epoch seconds)."""
    while (found := service.child("recorder")) == other_than:
        time.sleep(0.005)
    started = time.time()
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.rcvtimeo = 60_000
        socket.connect(service.endpoints.feedback)
        socket.send(b'{"op":"ping"}')
        socket.recv()
    assert found
    return started
