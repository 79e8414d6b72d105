"""Any value in any field, and any bytes: an answer each, and both processes live on."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from benchmarks.daemon import Service, model_info, train
from tickserve_registry.model_registry import ModelRegistry

FAMILY = "eurusd_1h_xgb_bench"
ODD: tuple[Any, ...] = (
    *(None, 5, -1, 1.5, True, "x", "", [], {}, [[]], [1], ["a"], {"a": 1}, {"a": {"b": []}}),
    *(10**30, -(10**30), 2**63, 2**53, 1e308, "\x00", [[[[[1]]]]], "2025-01-01"),
)
PREDICT: dict[str, Any] = {
    "op": "predict",
    "id": "1",
    "model": FAMILY,
    "features": {f"f{index}": 0.5 for index in range(5)},
}
PREDICT_FIELDS = (*PREDICT, "v", "models", "tensor", "bar_time", "sent_at", "deadline_ms", "log")
OUTCOME: dict[str, Any] = {
    "op": "outcome",
    "id": "1",
    "bot": "b",
    "run": "r",
    "trade": "t",
    "seq": 1,
    "status": "closed",
    "final": True,
    "pnl": 1.0,
    "closed_at": 1742860800000,
}
OUTCOME_FIELDS = (*OUTCOME, "v", "build", "prediction_id", "opened_at", "return", "qty", "items")
OPERATIONS = ("outcome", "hello", "label", "equity", "batch", "snapshot", "ping")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A daemon with one production model."""
    made = Service(tmp_path)
    registry = ModelRegistry(made.storage)
    registry.save_model(train(trees=5), model_info(), environment="production")
    with made:
        yield made


class Asker:
    """A raw DEALER that expects an answer to everything."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self._socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.rcvtimeo = 10_000
        self._socket.connect(endpoint)

    def ask(self, *frames: bytes) -> dict[str, Any]:
        """Send frames; return the reply, whichever its codec."""
        self._socket.send_multipart(frames)
        body = next(frame for frame in self._socket.recv_multipart() if frame)
        reply: dict[str, Any] = (msgspec.json if body[:1] == b"{" else msgspec.msgpack).decode(body)
        return reply

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def damaged(body: bytes, chance: random.Random) -> bytes:
    """A message with a few bytes changed, cut off or put in."""
    data = bytearray(body)
    for _ in range(chance.randint(1, 5)):
        place = chance.randrange(len(data) + 1)
        kind = chance.random()
        if kind < 0.5:
            data[place : place + 1] = bytes([chance.randrange(256)])
        elif kind < 0.75:
            del data[place:]
        else:
            data[place:place] = chance.randbytes(4)
    return bytes(data)


def test_predictions_answer_anything(service: Service) -> None:
    """Odd values in each field, and 2,000 damaged messages: typed errors, no restart."""
    chance = random.Random(11)  # noqa: S311 - a seeded fuzzer, no secret
    good = json.dumps(PREDICT).encode()
    with zmq.Context() as context:
        asker = Asker(context, service.endpoints.predict)
        for field in PREDICT_FIELDS:
            for value in ODD:
                body = json.dumps({**PREDICT, field: value}).encode()
                for frames in ((body,), (body, b"abcd")):
                    reply = asker.ask(*frames)
                    assert reply["op"] in {"error", "prediction", "predictions", "pong"}
                    assert reply.get("code") != "internal", (field, value, reply)
        for _ in range(2_000):
            reply = asker.ask(damaged(good, chance))
            assert reply.get("code") != "internal", reply
        assert asker.ask(good)["op"] == "prediction"
        asker.close()
    assert "child_died" not in service.log.read_text()


def test_feedback_answers_anything(service: Service) -> None:
    """Odd values in each field of each operation: acknowledged or refused, no restart."""
    (entry,) = ModelRegistry(service.storage).production()
    good = OUTCOME | {"build": entry.build}
    with zmq.Context() as context:
        asker = Asker(context, service.endpoints.feedback)
        for field in OUTCOME_FIELDS:
            for value in ODD:
                for operation in OPERATIONS:
                    odd = {**good, "op": operation, "prediction_id": "p", "at": 1, field: value}
                    odd.setdefault("items", [{**good, field: value}])
                    reply = asker.ask(json.dumps(odd).encode())
                    assert reply["op"] in {"ack", "error", "pong"}
                    assert reply.get("status") != "retry", (odd, reply)
        last = {**good, "trade": "last"}
        assert asker.ask(json.dumps(last).encode())["status"] == "recorded"
        asker.close()
    log = service.log.read_text()
    assert "child_died" not in log
    assert "turn_failed" not in log


def test_children_leave_with_a_killed_supervisor(service: Service) -> None:
    """After kill -9 of the supervisor neither child keeps a port; a new daemon starts."""
    children = [service.child(name) for name in ("serving", "recorder")]
    service.kill()
    deadline = time.monotonic() + 15
    while any(Path(f"/proc/{pid}/cmdline").exists() for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    service.start()
    with service.client() as client:
        assert client.ping().ready
    serving = service.child("serving")
    os.kill(serving, signal.SIGKILL)
    with service.client(timeout=10.0) as client:
        assert client.predict(FAMILY, PREDICT["features"]).model_id == f"{FAMILY}_v1"
    assert service.child("serving") != serving
