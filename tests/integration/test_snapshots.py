"""Several models on one snapshot, old bars and requests, batches of every shape."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq

from benchmarks.daemon import Service, model_info, train
from benchmarks.parity import categorical, data
from tickserve_registry.model_registry import ModelRegistry

NAMES = [f"f{index}" for index in range(5)]
ROW = {name: 0.25 * place for place, name in enumerate(NAMES)}
FIVE, THREE, NATIVE = (f"{market}_1h_xgb_bench" for market in ("eurusd", "usdjpy", "native"))
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A daemon over a model of five features, one of three, and one that is not compiled."""
    made = Service(
        tmp_path_factory.mktemp("snapshots"), settings={"SERVING__STALE_AFTER_BARS": "2"}
    )
    registry = ModelRegistry(str(made.storage))
    registry.save_model(train(trees=5), model_info(), environment="production")
    three = {**model_info(features=3), "market": "usdjpy"}
    registry.save_model(train(features=3, trees=5), three, environment="production")
    native = {**model_info(), "market": "native"}
    registry.save_model(categorical(data()), native, environment="production")
    with made:
        yield made
        assert made.stop() == 0


@pytest.fixture
def socket(service: Service) -> Iterator[zmq.Socket[bytes]]:
    """A raw DEALER to the predict endpoint."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as made:
        made.linger = 0
        made.rcvtimeo = 20_000
        made.connect(service.endpoints.predict)
        yield made


def ask(socket: zmq.Socket[bytes], *frames: bytes, **fields: object) -> dict[str, Any]:
    """Ask for predictions on the newest bar, with the given fields; return the reply."""
    now = time.time_ns() // 1_000_000
    message = {"op": "predict", "id": "1", "bar_time": now, "sent_at": now, **fields}
    socket.send_multipart([json.dumps(message).encode(), *frames])
    reply: dict[str, Any] = msgspec.json.decode(socket.recv_multipart()[0])
    return reply


def kill(serving: int, child: str) -> None:
    """Kill a child of the serving process without warning."""
    command = ["pgrep", "-P", str(serving), "-f", f"children.{child}"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    os.kill(int(found.stdout), signal.SIGKILL)


def test_each_model_takes_its_part_of_the_snapshot(socket: zmq.Socket[bytes]) -> None:
    """Answers are those of each model alone, in the order asked; an unknown name is one error."""
    reply = ask(socket, models=[THREE, "nobody", FIVE], features=ROW)
    assert reply["op"] == "predictions"
    first, second, third = reply["predictions"]
    alone = ask(socket, model=THREE, features={name: ROW[name] for name in NAMES[:3]})
    assert first["output"] == alone["output"]
    assert second["code"] == "unknown_model"
    assert third["output"] == ask(socket, model=FIVE, features=ROW)["output"]
    assert first["prediction_id"] != third["prediction_id"]


def test_what_no_model_of_the_snapshot_knows_is_refused(socket: zmq.Socket[bytes]) -> None:
    """And what one lacks, it says, while the other answers."""
    reply = ask(socket, models=[THREE, FIVE], features={**ROW, "rsi": 1.0})
    for each in reply["predictions"]:
        assert (each["code"], each["details"]["unexpected"]) == ("unexpected_features", ["rsi"])
    reply = ask(socket, models=[THREE, FIVE], features=dict.fromkeys(NAMES[:3], 1.0))
    answered, lacking = reply["predictions"]
    assert "output" in answered
    assert (lacking["code"], lacking["details"]["missing"]) == ("missing_features", NAMES[3:])


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"bar_time": None}, "stale_input", "bar_time"),
        ({"bar_time": 1_600_000_000_000}, "stale_input", str(2 * HOUR_MS)),
        ({"sent_at": 1, "deadline_ms": 50}, "expired", "50"),
        ({"models": []}, "malformed", "models"),
        ({"models": [FIVE]}, "malformed", "models"),
        ({"model": None}, "malformed", "models"),
        ({"v": 2}, "unsupported_version", "2"),
    ],
)
@pytest.mark.parametrize("rows", [1, 300])
def test_old_bars_and_old_requests_are_refused(
    socket: zmq.Socket[bytes], fields: dict[str, object], code: str, words: str, rows: int
) -> None:
    """On the loop and beside it alike; details give the age and the limit."""
    features: object = ROW if rows == 1 else [list(ROW.values())] * rows
    reply = ask(socket, **{"model": FIVE, "features": features, **fields})
    assert reply["code"] == code
    assert words in reply["message"] + json.dumps(reply.get("details", {}))


def test_without_sent_at_a_deadline_counts_from_receipt(socket: zmq.Socket[bytes]) -> None:
    """A row answered at once is in time; one behind a long batch of the same client is not."""
    rows = np.zeros((100_000, 5), "<f4").tobytes()
    now = time.time_ns() // 1_000_000
    row = {"op": "predict", "model": FIVE, "features": ROW, "bar_time": now, "deadline_ms": 50}
    socket.send(json.dumps(row).encode())
    assert msgspec.json.decode(socket.recv())["op"] == "prediction"
    batch = {"op": "predict", "model": FIVE, "tensor": [100_000, 5], "bar_time": now}
    late = {**batch, "deadline_ms": 0.001, "id": "late"}
    for message in (batch, batch, batch, late):
        socket.send_multipart([json.dumps(message).encode(), rows])
    replies = [msgspec.json.decode(socket.recv_multipart()[0]) for _ in range(4)]
    (refused,) = [reply for reply in replies if reply["op"] == "error"]
    assert (refused["id"], refused["code"]) == ("late", "expired")


@pytest.mark.parametrize("rows", [1, 3, 256, 257, 1_000])
def test_every_number_of_rows_gets_the_same_numbers(socket: zmq.Socket[bytes], rows: int) -> None:
    """By name, listed and as a tensor, on the loop and beside it, to the last bit."""
    given = np.random.default_rng(rows).normal(size=(rows, 5)).astype("<f4")
    listed = ask(socket, model=FIVE, features=given.tolist())
    named = [dict(zip(NAMES, row, strict=True)) for row in given.tolist()]
    assert ask(socket, model=FIVE, features=named)["output"] == listed["output"]
    assert len(listed["action"]) == rows
    message = {
        "op": "predict",
        "model": FIVE,
        "tensor": [rows, 5],
        "bar_time": time.time_ns() // 10**6,
    }
    socket.send_multipart([json.dumps(message).encode(), given.tobytes()])
    head, tensor = socket.recv_multipart()
    assert msgspec.json.decode(head)["tensor"] == [rows, 1]
    assert np.frombuffer(tensor, "<f4").tolist() == listed["output"]
    single = [ask(socket, model=FIVE, features=row)["output"] for row in named[:5]]
    assert single == listed["output"][:5]


def test_a_model_of_another_framework_survives_its_process(
    service: Service, socket: zmq.Socket[bytes]
) -> None:
    """After kill -9 of the process that runs it, the next request loads it into a new one."""
    answers = []
    serving = service.child("serving")
    for _ in range(2):
        replies = [ask(socket, model=NATIVE, features=[0, 0.1, 0.2, 0.3, 0.4]) for _ in range(2)]
        answers += [reply["output"] for reply in replies if reply["op"] == "prediction"]
        kill(serving, "native")
        time.sleep(0.1)
    assert len(answers) >= 3
    assert len(set(answers)) == 1
    assert service.child("serving") == serving


def test_the_process_that_tries_models_is_started_again(
    service: Service, socket: zmq.Socket[bytes]
) -> None:
    """After kill -9 of it, a promotion is tried by a new one and answers."""
    kill(service.child("serving"), "prover")
    registry = ModelRegistry(str(service.storage))
    info = {**model_info(version=2), "market": "usdjpy"}
    registry.save_model(train(trees=6, seed=9), info, environment="production")
    deadline = time.monotonic() + 20
    while ask(socket, model=THREE, features=ROW).get("model_id") != f"{THREE}_v2":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_describe_and_hello_tell_the_rest(socket: zmq.Socket[bytes]) -> None:
    """A model's metadata whole; limits with the server's clock."""
    socket.send(b'{"op":"describe","id":"d","model":"eurusd_1h_xgb_bench"}')
    described = msgspec.json.decode(socket.recv())
    assert described["metadata"]["features"] == NAMES
    socket.send(b'{"op":"hello","id":"h"}')
    welcome = msgspec.json.decode(socket.recv())
    assert welcome["limits"]["rows"] == 100_000
    assert abs(welcome["server_time"] - time.time() * 1000) < 60_000
