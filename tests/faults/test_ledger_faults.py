"""A ledger that cannot be written: predictions go on, feedback comes again, nothing is lost."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import pytest
import zmq

from benchmarks.daemon import Service, model_info, train
from tests.faults.preload.library import preload
from tickserve_client import ClientError
from tickserve_registry.model_registry import ModelRegistry

FAMILY = "eurusd_1h_xgb_bench"
ROW = {f"f{place}": 0.1 for place in range(5)}
MONDAY = 1_742_860_800_000
HOUR = 3_600_000
PROMPT_S = 2.0
RECOVERED_S = 5.0
LOG_BYTES = 64 << 20


class Disk:
    """The disk of a service's ledger, which a word makes fail."""

    def __init__(self, control: Path) -> None:
        self._control = control

    @contextlib.contextmanager
    def failing(self, word: str) -> Iterator[None]:
        """Fail for a while."""
        self._control.write_text(word)
        yield
        self._control.write_text("")


class Predicting:
    """A bot that asks all the time, in a thread."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answered = 0
        self.errors: list[ClientError] = []

    def _run(self) -> None:
        with self._service.client(bot="asking", timeout=2.0) as client:
            while not self._stop.is_set():
                try:
                    client.predict(FAMILY, ROW)
                    self.answered += 1
                except ClientError as error:
                    self.errors.append(error)
                time.sleep(0.002)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """The disk of the service."""
    return Disk(tmp_path / "fault")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A daemon with one model, whose ledger's disk can be made to fail."""
    made = Service(tmp_path, writeback_seconds=0.5)
    made.environment |= {
        "LD_PRELOAD": preload("disk", tmp_path),
        "DISK_FOLDER": str(made.storage / "ledger"),
        "DISK_FAULT": str(tmp_path / "fault"),
    }
    registry = ModelRegistry(str(made.storage))
    registry.save_model(train(trees=5), model_info(), environment="production")
    with made:
        yield made


def report(service: Service, trade: str) -> dict[str, Any]:
    """Report a trade by hand; return the acknowledgement and how long it took."""
    (entry,) = ModelRegistry(service.storage).production()
    message = {
        "op": "outcome",
        "bot": "hand",
        "run": "r1",
        "trade": trade,
        "seq": 1,
        "status": "closed",
        "final": True,
        "build": entry.build,
        "pnl": 1.0,
        "currency": "USD",
        "opened_at": MONDAY,
        "closed_at": MONDAY + int(trade) * HOUR,
    }
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.rcvtimeo = 10_000
        socket.connect(service.endpoints.feedback)
        started = time.monotonic()
        socket.send(json.dumps(message).encode())
        ack: dict[str, Any] = json.loads(socket.recv())
        ack["seconds"] = time.monotonic() - started
    return ack


def require_refused_promptly(service: Service, trade: str) -> None:
    """Feedback is answered `retry`, with when to come again."""
    ack = report(service, trade)
    assert (ack["status"], ack["seconds"] < PROMPT_S) == ("retry", True), ack
    assert ack["details"]["retry_after_ms"] > 0
    assert ack["details"]["reason"]


def require_recovered(service: Service, trade: str) -> None:
    """The same feedback is stored within seconds; a failed commit may have been one after all."""
    deadline = time.monotonic() + RECOVERED_S
    while (status := report(service, trade)["status"]) == "retry":
        assert time.monotonic() < deadline, "not recovered in time"
        time.sleep(0.1)
    assert status in {"recorded", "duplicate"}, status


def require_all_there(service: Service, predicting: Predicting, *, trades: int) -> None:
    """After an orderly end every prediction and every trade is in the ledger and the metadata."""
    assert not predicting.errors
    assert service.stop() == 0
    with sqlite3.connect(service.storage / "ledger" / "ledger.sqlite3") as ledger:
        parcels = ledger.execute("SELECT rows FROM prediction_parcels").fetchall()
        (stored,) = ledger.execute("SELECT count(*) FROM outcomes").fetchone()
        assert ledger.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    ledger.close()
    rows = [msgspec.json.decode(counts, type=dict[str, int]) for (counts,) in parcels]
    assert sum(sum(each.values()) for each in rows) >= predicting.answered
    live = ModelRegistry(service.storage).metadata(FAMILY).document["performance"]["live"]
    assert (stored, live["n_trades"], live["net_pnl"]) == (trades, trades, float(trades))


@pytest.mark.parametrize("word", ["full", "readonly", "sync"])
def test_a_failing_disk_costs_nothing_but_time(service: Service, disk: Disk, word: str) -> None:
    """Full, read-only, or unable to sync: `retry` while it lasts, all stored afterwards."""
    with Predicting(service) as predicting:
        assert report(service, "1")["status"] == "recorded"
        recorder = service.child("recorder")
        with disk.failing(word):
            require_refused_promptly(service, "2")
            before = predicting.answered
            time.sleep(1.0)
            require_refused_promptly(service, "2")
            assert predicting.answered > before + 50
        require_recovered(service, "2")
        require_recovered(service, "3")
        assert service.child("recorder") == recorder
    require_all_there(service, predicting, trades=3)


def test_a_locked_ledger_is_waited_for_elsewhere(service: Service, long: bool) -> None:
    """Another holds the write lock 2 s (30 s): predictions go on, feedback comes again."""
    with Predicting(service) as predicting:
        assert report(service, "1")["status"] == "recorded"
        other = sqlite3.connect(service.storage / "ledger" / "ledger.sqlite3", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        before = predicting.answered
        for _ in range(50 if long else 3):
            require_refused_promptly(service, "2")
            time.sleep(0.5)
        assert predicting.answered > before + 50
        other.execute("ROLLBACK")
        other.close()
        require_recovered(service, "2")
    require_all_there(service, predicting, trades=2)


def test_a_stalled_reader_does_not_let_the_log_grow(service: Service) -> None:
    """While it holds an old state the write-ahead log keeps its bound; afterwards all is stored."""
    log = service.storage / "ledger" / "ledger.sqlite3-wal"
    inputs = np.random.default_rng(1).normal(size=(100_000, 5)).astype("<f4")
    head = {"op": "predict", "model": FAMILY, "tensor": list(inputs.shape)}
    message = msgspec.msgpack.encode(head)
    with Predicting(service) as predicting:
        assert report(service, "1")["status"] == "recorded"
        reader = sqlite3.connect(service.storage / "ledger" / "ledger.sqlite3")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM outcomes").fetchone()
        largest = batches = 0
        with zmq.Context() as context, context.socket(zmq.REQ) as socket:
            socket.linger = 0
            socket.rcvtimeo = 20_000
            socket.connect(service.endpoints.predict)
            for _ in range(45):
                socket.send_multipart([message, inputs.tobytes()])
                batches += b"prediction_id" in socket.recv_multipart()[0]
                largest = max(largest, log.stat().st_size)
        assert (batches, 8 << 20 < largest <= LOG_BYTES) == (45, True)
        assert report(service, "2")["status"] in {"recorded", "retry"}
        reader.close()
        require_recovered(service, "3")
        deadline = time.monotonic() + 20
        while _rows(service) < 45 * len(inputs) and time.monotonic() < deadline:
            time.sleep(0.2)
    assert _rows(service) >= 45 * len(inputs)
    assert not predicting.errors


def _rows(service: Service) -> int:
    """How many predicted rows the ledger holds."""
    with sqlite3.connect(service.storage / "ledger" / "ledger.sqlite3") as ledger:
        parcels = ledger.execute("SELECT rows FROM prediction_parcels").fetchall()
    ledger.close()
    found = [msgspec.json.decode(counts, type=dict[str, int]) for (counts,) in parcels]
    return sum(sum(each.values()) for each in found)
