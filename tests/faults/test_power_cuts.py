"""Power cuts: whatever a disk keeps of unsynced writes, no acknowledged outcome is lost."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import zmq

from benchmarks.daemon import Service, model_info, train
from tests.faults.preload.library import preload
from tests.faults.preload.trace import SYNC, Disk, Operation, read
from tickserve_registry.model_registry import ModelRegistry
from tickserve_server.recorder.database import Database
from tickserve_server.recorder.ledger import Ledger
from tickserve_server.recorder.live import Profile
from tickserve_server.recorder.reader import LedgerReader
from tickserve_server.recorder.verification import verify

CUTS = 1_200
EXAMINED_EVERY = 40
"""Every so many cuts the ledger is also opened and verified as the recorder would."""

SECONDS = 4.0
BOTS = 3
MONDAY = 1_742_860_800_000
MINUTE = 60_000
LEDGER = "ledger.sqlite3"
FAMILY = "eurusd_1h_xgb_bench"


class Acknowledged(NamedTuple):
    """A revision and when (monotonic ns) its acknowledgement was there."""

    at: int
    key: tuple[str, str]
    seq: int
    pnl: float


class Traced(NamedTuple):
    """What was done to the ledger's files, and what was acknowledged meanwhile."""

    operations: list[Operation]
    acknowledged: list[Acknowledged]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """Some seconds of feedback and predictions at a daemon whose ledger is traced."""
    folder = tmp_path_factory.mktemp("traced")
    trace = folder / "trace"
    preloaded = {"LD_PRELOAD": preload("disk", folder), "DISK_TRACE": str(trace)}
    service = Service(folder, writeback_seconds=1.0)
    service.environment |= preloaded | {"DISK_FOLDER": str(service.storage / "ledger")}
    registry = ModelRegistry(str(service.storage))
    registry.save_model(train(trees=5), model_info(), environment="production")
    (build,) = (entry.build for entry in registry.entries())
    acknowledged: list[list[Acknowledged]] = [[] for _ in range(BOTS)]
    with service:
        deadline = time.monotonic() + SECONDS
        threads = [
            threading.Thread(target=_report, args=(service, build, number, found, deadline))
            for number, found in enumerate(acknowledged)
        ]
        for thread in threads:
            thread.start()
        with service.client() as client:
            while time.monotonic() < deadline:
                client.predict(FAMILY, {f"f{place}": 0.1 for place in range(5)})
        for thread in threads:
            thread.join()
        os.kill(service.child("recorder"), 9)
        service.kill()
        service.await_end()
    return Traced(read(trace), sorted(chain.from_iterable(acknowledged)))


def _report(
    service: Service, build: str, number: int, found: list[Acknowledged], deadline: float
) -> None:
    chance, bot = np.random.default_rng(number), f"bot{number}"
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.rcvtimeo = 5_000
        socket.connect(service.endpoints.feedback)
        turn = 0
        while time.monotonic() < deadline:
            turn += 1
            items = [_outcome(bot, build, turn, place, chance) for place in range(1 + turn % 4)]
            socket.send(json.dumps({"op": "batch", "items": items}).encode())
            reply, at = json.loads(socket.recv()), time.monotonic_ns()
            for item, result in zip(items, reply["results"], strict=True):
                assert result["status"] == "recorded"
                found.append(Acknowledged(at, (bot, item["trade"]), item["seq"], item["pnl"]))


def _outcome(bot: str, build: str, turn: int, place: int, chance: Any) -> dict[str, Any]:
    """A trade; every third turn says its trades once more, with a higher seq."""
    trade = turn - turn % 3
    return {
        "op": "outcome",
        "bot": bot,
        "run": "r",
        "trade": f"{trade}.{place}",
        "seq": 1 + turn % 3,
        "status": "closed",
        "final": True,
        "build": build,
        "pnl": round(float(chance.normal()), 2),
        "currency": "USD",
        "opened_at": MONDAY - MINUTE,
        "closed_at": MONDAY + trade * MINUTE,
    }


def cuts(operations: Sequence[Operation], chance: random.Random, count: int) -> list[int]:
    """Return after how many operations power fails: half of them right after a sync."""
    after_sync = [n + 1 for n, each in enumerate(operations[:-1]) if each.kind == SYNC]
    anywhere = range(1, len(operations))
    chosen = chance.choices(after_sync, k=count // 2) + chance.choices(
        anywhere, k=count - count // 2
    )
    return sorted(chosen)


def losses(traced: Traced, folder: Path, *, count: int, unsynced: str | None = None) -> int:
    """Cut the power so many times; return how often something acknowledged was not there."""
    chance = random.Random(3)  # noqa: S311 - moments, no secrets
    disk, done, lost = Disk(unsynced=unsynced), 0, 0
    operations = traced.operations
    for number, cut in enumerate(cuts(operations, chance, count)):
        for operation in operations[done:cut]:
            disk.do(operation)
        done = cut
        place = folder / str(number)
        place.mkdir()
        for path, content in disk.after_power_cut(chance):
            (place / Path(path).name).write_bytes(content)
        sound = _is_sound(place / LEDGER, traced.acknowledged, before=operations[cut].at)
        lost += not sound
        if unsynced is None and number % EXAMINED_EVERY == 0:
            _examine(place / LEDGER)
        for file in place.iterdir():
            file.unlink()
    return lost


def _is_sound(ledger: Path, acknowledged: Sequence[Acknowledged], *, before: int) -> bool:
    """Whether the database is whole and holds everything acknowledged before that moment, once."""
    expected = {each.key: each for each in acknowledged if each.at < before}
    try:
        with sqlite3.connect(ledger) as database:
            (integrity,) = database.execute("PRAGMA integrity_check").fetchone()
            rows = database.execute("SELECT bot, trade, seq, pnl FROM outcomes").fetchall()
    except sqlite3.DatabaseError:
        return not expected
    finally:
        database.close()
    found = {(bot, trade): (seq, pnl) for bot, trade, seq, pnl in rows}
    return (
        integrity == "ok"
        and len(found) == len(rows)
        and all(
            key in found and (found[key][0] > each.seq or found[key] == (each.seq, each.pnl))
            for key, each in expected.items()
        )
    )


def _examine(file: Path) -> None:
    """Open the ledger as the recorder does, and check its figures against all trades."""
    if not file.exists():
        return
    ledger = Ledger(f"sqlite:///{file}")
    assert ledger.set_aside is None
    ledger.close()
    reader = LedgerReader(Database(f"sqlite:///{file}"))
    profile = Profile("weekdays", None)
    assert not verify(reader, profile=lambda _: profile, default_capital=10_000.0).problems
    reader.close()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the machine has one: what is tried is no disk but what it holds."""
    shared = Path("/dev/shm")  # noqa: S108 - a folder of its own is made below it
    folder = (shared if os.access(shared, os.W_OK) else tmp_path) / f"cuts-{os.getpid()}"
    folder.mkdir()
    yield folder
    for place in folder.iterdir():
        for file in place.iterdir():
            file.unlink()
        place.rmdir()
    folder.rmdir()


def test_no_acknowledged_outcome_is_lost(
    traced: Traced, memory: Path, figure: Callable[[str], None]
) -> None:
    """After 1,200 power cuts at any moment, half of them right after a sync."""
    assert len(traced.acknowledged) > 300
    assert len(traced.operations) > 1_000
    lost = losses(traced, memory, count=CUTS)
    assert lost == 0
    figure(f"{CUTS:,} cuts, {lost} acknowledged outcomes lost")


def test_a_log_that_is_not_synced_loses_outcomes(traced: Traced, memory: Path) -> None:
    """The check can fail: as if synchronous were off for the write-ahead log."""
    assert losses(traced, memory, count=60, unsynced="-wal") > 20
