"""The daemon over real sockets: answers, typed errors, hot reload, one daemon a root."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq

from benchmarks.daemon import Service, model_info, train
from tickserve_client import Client, ServerError
from tickserve_client.codec import is_json
from tickserve_registry.model_registry import ModelRegistry

ROW = {f"f{index}": 0.25 * index for index in range(5)}
FAMILY = "eurusd_1h_xgb_bench"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A daemon with v1 in production and v2 in staging."""
    made = Service(tmp_path_factory.mktemp("serving"))
    registry = ModelRegistry(str(made.storage))
    registry.save_model(train(), model_info(), environment="production")
    registry.save_model(train(seed=8, trees=50), model_info(version=2))
    with made:
        yield made
        assert made.stop() == 0


@pytest.fixture
def socket(service: Service) -> Iterator[zmq.Socket[bytes]]:
    """A raw DEALER to the predict endpoint."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as made:
        made.linger = 0
        made.rcvtimeo = 5_000
        made.connect(service.endpoints.predict)
        yield made


def ask(socket: zmq.Socket[bytes], *frames: bytes) -> dict[str, Any]:
    """Send frames and return the reply's message."""
    socket.send_multipart(frames)
    body = socket.recv_multipart()[-1]
    reply: dict[str, Any] = (msgspec.json if is_json(body) else msgspec.msgpack).decode(body)
    return reply


def predict(**fields: object) -> bytes:
    """A JSON predict request with the given fields replaced."""
    request = {"v": 1, "op": "predict", "id": "42", "model": FAMILY, "features": ROW, **fields}
    return json.dumps(request).encode()


def test_a_plain_req_socket_and_one_json_line_get_a_prediction(service: Service) -> None:
    """Any language with a ZeroMQ binding can ask."""
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.rcvtimeo = 5_000
        socket.connect(service.endpoints.predict)
        socket.send(
            b'{"op":"predict","model":"eurusd_1h_xgb_bench","id":"1",'
            b'"features":{"f0":0.1,"f1":0.2,"f2":0.3,"f3":0.4,"f4":0.5}}'
        )
        reply = json.loads(socket.recv())
    assert (reply["op"], reply["id"], reply["model_id"]) == ("prediction", "1", f"{FAMILY}_v1")
    assert 0 < reply["output"] < 1
    assert reply["action"] in {"long", "short", "flat"}


@pytest.mark.parametrize("delimited", [False, True])
@pytest.mark.parametrize("codec", [msgspec.json, msgspec.msgpack])
def test_both_codecs_and_envelopes_get_the_native_answer(
    service: Service, socket: zmq.Socket[bytes], codec: Any, delimited: bool
) -> None:
    """The answer is the trained model's own, to float32 precision."""
    model, _ = ModelRegistry(str(service.storage)).load_model(f"{FAMILY}_v1")
    expected = model.predict_proba(np.array([list(ROW.values())], dtype=np.float32))[0, 1]
    request = {"op": "predict", "id": 7, "model": f"{FAMILY}_v1", "features": ROW}
    socket.send_multipart([b""] * delimited + [codec.encode(request)])
    reply = socket.recv_multipart()
    assert len(reply) == 1 + delimited
    decoded = codec.decode(reply[-1])
    assert decoded["id"] == 7
    assert decoded["output"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("frames", "code", "named"),
    [
        ([b"{"], "malformed", ""),
        ([b""], "malformed", "body"),
        ([b"", b""], "malformed", ""),
        ([b"\x85\xa2op"], "malformed", ""),
        ([b"\xc1"], "malformed", ""),
        ([predict(features={**ROW, "f1": "high"})], "malformed", "f1"),
        ([predict()[:-1]], "malformed", ""),
        ([predict().replace(b"0.25", b"NaN")], "malformed", ""),
        ([predict(v=2)], "unsupported_version", "2"),
        ([predict(op="sell")], "unknown_op", "sell"),
        ([predict(model="eurusd_1h_xgb_bunch")], "unknown_model", FAMILY),
        ([predict(model=f"{FAMILY}_v2")], "not_in_production", "staging"),
        ([predict(features={k: v for k, v in ROW.items() if k != "f3"})], "missing_features", "f3"),
        ([predict(features={**ROW, "rsi": 1})], "unexpected_features", "rsi"),
        ([predict(features={**ROW, "f2": None})], "not_finite", "f2"),
        ([predict(features=[1, 2, 3])], "wrong_shape", "5"),
        ([predict(sent_at=1, deadline_ms=50)], "expired", "50"),
        ([predict(bar_time="2025-03-25T14:30:00")], "malformed", "naive"),
        ([predict(features=None)], "malformed", "features"),
        ([predict(), b"", b"x"], "malformed", ""),
        ([predict(padding="x" * 2**20)], "too_large", "1048576"),
    ],
)
def test_bad_input_gets_a_typed_error(
    socket: zmq.Socket[bytes], frames: list[bytes], code: str, named: str
) -> None:
    """Each error names what is wrong, and the next good request is answered."""
    reply = ask(socket, *frames)
    assert reply["op"] == "error"
    assert reply["code"] == code
    assert named in reply["message"] + json.dumps(reply.get("details", {}))
    assert ask(socket, predict())["op"] == "prediction"


def test_a_tensor_frame_is_answered_with_one(service: Service, socket: zmq.Socket[bytes]) -> None:
    """Rows travel raw both ways; `log: false` gets no id."""
    rows = np.random.default_rng(3).normal(size=(300, 5)).astype("<f4")
    head = {"op": "predict", "id": 1, "model": FAMILY, "tensor": [300, 5], "log": False}
    socket.send_multipart([msgspec.json.encode(head), rows.tobytes()])
    message, frame = socket.recv_multipart()
    reply = msgspec.json.decode(message)
    assert reply["tensor"] == [300, 1]
    assert "prediction_id" not in reply
    model, _ = ModelRegistry(str(service.storage)).load_model(f"{FAMILY}_v1")
    answers = np.frombuffer(frame, dtype="<f4")
    assert np.abs(answers - model.predict_proba(rows)[:, 1]).max() < 1e-6


def test_models_and_hello_tell_a_bot_what_it_needs(service: Service) -> None:
    """The input contract and the other endpoints come from the predict endpoint alone."""
    with service.client() as client:
        (card,) = client.models()
        assert (card.model_id, card.features) == (f"{FAMILY}_v1", list(ROW))
        assert client.hello().endpoints == service.endpoints._asdict()


def test_a_second_daemon_on_the_same_root_ends_at_once(service: Service) -> None:
    """It says who holds the root, in one line, and does not disturb the first."""
    second = subprocess.run(
        [*service.command()[:6], "--predict", "tcp://127.0.0.1:1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert second.returncode == 1
    (line,) = second.stderr.strip().splitlines()
    assert "already serves" in line
    with service.client() as client:
        assert client.ping().ready


def test_a_port_in_use_is_one_line(service: Service, tmp_path: Path) -> None:
    """The line names the endpoint and what to do."""
    other = Service(tmp_path)
    other.endpoints = other.endpoints._replace(predict=service.endpoints.predict)
    ended = subprocess.run(other.command(), capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert service.endpoints.predict in last
    assert "--predict" in last


def test_promotion_swaps_without_a_failed_or_mixed_reply(service: Service) -> None:
    """Under load every reply names v1, then v2, and none fails; write-backs reload nothing."""
    builds: list[str] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def load() -> None:
        with Client(service.endpoints.predict, timeout=2) as client:
            while not stop.is_set():
                try:
                    builds.append(client.predict(FAMILY, ROW).model_id)
                except Exception as error:  # noqa: BLE001 - any failure fails the test
                    failures.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    time.sleep(0.3)
    registry = ModelRegistry(str(service.storage))
    registry.promote_model(f"{FAMILY}_v2")
    deadline = time.monotonic() + 10
    while builds[-1] != f"{FAMILY}_v2" and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    stop.set()
    thread.join()
    assert not failures
    first_new = builds.index(f"{FAMILY}_v2")
    assert set(builds[:first_new]) == {f"{FAMILY}_v1"}
    assert set(builds[first_new:]) == {f"{FAMILY}_v2"}
    with service.client() as client:
        with pytest.raises(ServerError, match="not_in_production"):
            client.predict(f"{FAMILY}_v1", ROW)
        reloads = service.log.read_text().count("models_reloaded")
        (build,) = [card.build for card in client.models()]
        registry.record_live_performance(build, {"n_trades": 0})
        time.sleep(0.3)
        assert service.log.read_text().count("models_reloaded") == reloads
