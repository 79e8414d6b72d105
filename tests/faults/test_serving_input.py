"""Hostile and careless clients: every one is answered or bounded, and none harms another."""

from __future__ import annotations

import json
import random
import resource
import socket as sockets
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.daemon import Service, model_info, train
from benchmarks.many_models import resident
from tickserve_registry.model_registry import ModelRegistry

FAMILY = "eurusd_1h_xgb_bench"
ROW = {f"f{index}": 0.25 * index for index in range(5)}
MEBIBYTE = 1 << 20
CODES = {
    *("malformed", "unsupported_version", "unknown_op", "unknown_model", "not_in_production"),
    *("missing_features", "unexpected_features", "not_finite", "wrong_shape", "expired"),
    *("too_large", "busy"),
}
REPLIES = {"prediction", "predictions", "pong", "welcome", "models", "description"}
SEEDS: tuple[tuple[bytes, ...], ...] = tuple(
    (codec.encode({"op": "predict", "id": "7", "model": FAMILY, **fields}), *tensor)
    for codec in (msgspec.json, msgspec.msgpack)
    for fields, tensor in (
        ({"features": ROW, "bar_time": 1742913000000, "deadline_ms": 1e9}, ()),
        ({"features": [list(ROW.values())] * 3}, ()),
        ({"tensor": [2, 5]}, (bytes(40),)),
    )
)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A daemon over one model, which is the same process at the end as at the start."""
    made = Service(tmp_path_factory.mktemp("input"))
    registry = ModelRegistry(str(made.storage))
    registry.save_model(train(trees=5), model_info(), environment="production")
    with made:
        serving = made.child("serving")
        yield made
        assert made.child("serving") == serving
        assert "child_died" not in made.log.read_text()
        assert made.stop() == 0


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    """A context that drops whatever its sockets still hold."""
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made.set(zmq.MAX_SOCKETS, 4_000)
    yield made
    made.destroy(linger=0)


def connected(context: zmq.Context[zmq.Socket[bytes]], service: Service) -> zmq.Socket[bytes]:
    """A raw DEALER to the predict endpoint."""
    socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.rcvtimeo = 10_000
    socket.connect(service.endpoints.predict)
    return socket


@pytest.fixture
def socket(
    service: Service, context: zmq.Context[zmq.Socket[bytes]]
) -> Iterator[zmq.Socket[bytes]]:
    """A raw DEALER to the predict endpoint, closed in time."""
    with connected(context, service) as made:
        yield made


def ask(socket: zmq.Socket[bytes], *frames: bytes) -> dict[str, Any]:
    """Send frames; return the reply's message, whichever its codec."""
    socket.send_multipart(frames)
    received = socket.recv_multipart()
    body = received[received.index(b"") + 1 if b"" in received else 0]
    reply: dict[str, Any] = (msgspec.json if body[:1] == b"{" else msgspec.msgpack).decode(body)
    return reply


def is_served(service: Service) -> bool:
    """Whether a legitimate client gets the right answer."""
    with service.client(timeout=5) as client:
        first, second = (client.predict(FAMILY, ROW).output for _ in range(2))
    return bool(first == second and 0 < first < 1)


def descriptors(service: Service) -> int:
    """How many descriptors the serving process holds open."""
    return len(list(Path(f"/proc/{service.child('serving')}/fd").iterdir()))


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether a condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def mutated(frames: tuple[bytes, ...], chance: random.Random) -> list[bytes]:
    """Frames of a request with bytes changed, cut off, put in or doubled, or frames added."""
    changed = [bytearray(frame) for frame in frames]
    for _ in range(chance.randint(1, 4)):
        data = chance.choice(changed)
        place = chance.randrange(len(data) + 1)
        kind = chance.randrange(5)
        if kind == 0:
            data[place : place + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            data[place:place] = chance.randbytes(chance.randint(1, 8))
        elif kind == 3:
            data[place:place] = data[: chance.randint(0, 30)]
        elif len(changed) < 4:
            changed.append(bytearray(chance.randbytes(chance.randint(0, 24))))
    return [bytes(frame) for frame in changed]


def test_ten_thousand_damaged_messages_are_answered(
    service: Service, socket: zmq.Socket[bytes], figure: Callable[[str], None]
) -> None:
    """Each gets a code of the protocol or a prediction; memory stays, good requests are served."""
    chance = random.Random(29)  # noqa: S311 - a seeded fuzzer, no secret
    before = resident(service.child("serving"))
    seen: set[str] = set()
    for number in range(10_000):
        frames = mutated(chance.choice(SEEDS), chance)
        reply = ask(socket, *frames)
        if reply["op"] == "error":
            assert reply["code"] in CODES, (frames, reply)
            seen.add(reply["code"])
        else:
            assert reply["op"] in REPLIES, (frames, reply)
        if number % 1_000 == 0:
            assert is_served(service)
    assert {"malformed", "unknown_op", "unknown_model", "wrong_shape", "missing_features"} <= seen
    grown = resident(service.child("serving")) - before
    assert grown < 32 * MEBIBYTE
    figure(f"10,000 answered, memory {grown / MEBIBYTE:+.1f} MiB")


@given(value=JSON_VALUES, field=st.sampled_from(["features", "model", "models", "tensor", "id"]))
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_value_anywhere_is_answered(
    service: Service, context: zmq.Context[zmq.Socket[bytes]], value: Any, field: str
) -> None:
    """Structures that are valid in their codec, and senseless: a typed error or an answer."""
    message = {"op": "predict", "model": FAMILY, "features": ROW, field: value}
    with connected(context, service) as socket:
        reply = ask(socket, json.dumps(message).encode())
    assert reply["op"] in REPLIES or reply["code"] in CODES, reply


def test_nesting_sizes_and_frames_beyond_the_limits_are_named(
    service: Service, socket: zmq.Socket[bytes]
) -> None:
    """The error says which limit, and by how much."""

    def predict(**fields: object) -> bytes:
        return json.dumps({"op": "predict", "model": FAMILY, **fields}).encode()

    def several(count: int, **fields: object) -> bytes:
        return json.dumps({"op": "predict", "models": [FAMILY] * count, **fields}).encode()

    deep = b'{"op":"predict","model":"m","features":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    rows = np.zeros((100_001, 5), "<f4").tobytes()
    for frames, code, detail in (
        ((deep,), "malformed", ""),
        ((predict(features=[[0.5] * 5] * 1_001),), "too_large", "1000"),
        ((predict(tensor=[100_001, 5]), rows), "too_large", "100000"),
        ((predict(tensor=[2, 5]), bytes(36)), "wrong_shape", "40"),
        ((predict(tensor=[-1, 5]), bytes(20)), "wrong_shape", ""),
        ((predict(tensor=[0, 5]), bytes(20)), "wrong_shape", ""),
        ((predict(tensor=[2**62, 5]), bytes(20)), "too_large", ""),
        ((predict(tensor=[1, 5, 1]), bytes(20)), "wrong_shape", "[5]"),
        (
            (predict(tensor=[1, 5]), struct.pack("<5f", 1, 2, float("inf"), 4, 5)),
            "not_finite",
            "f2",
        ),
        ((predict(features=ROW, padding="x" * MEBIBYTE),), "too_large", "1048576"),
        ((predict(features=ROW), b"a", b"b"), "malformed", ""),
        ((several(257, features=ROW),), "too_large", "256"),
        ((several(3, tensor=[40_000, 5]), bytes(800_000)), "too_large", "100000"),
        ((predict(features={f"x{n}": 1 for n in range(70_000)}),), "missing_features", "x0"),
    ):
        reply = ask(socket, *frames)
        assert len(json.dumps(reply)) < 10_000
        assert reply.get("code") == code, (frames[0][:80], reply)
        assert detail in json.dumps(reply.get("details", {}))
    assert is_served(service)


def test_an_oversize_frame_costs_its_sender_the_connection_alone(
    service: Service, socket: zmq.Socket[bytes]
) -> None:
    """Beyond the socket's hard limit nothing is read; others are served."""
    before = resident(service.child("serving"))
    socket.send(bytes(80 * MEBIBYTE))
    assert is_served(service)
    assert not socket.poll(500)
    assert resident(service.child("serving")) - before < 32 * MEBIBYTE


def test_a_client_that_never_reads_loses_its_own_replies_alone(
    service: Service, socket: zmq.Socket[bytes]
) -> None:
    """A flood without a single receive is bounded in memory; the others' answers are right."""
    socket.setsockopt(zmq.RCVHWM, 10)
    socket.sndtimeo = 1_000
    before = resident(service.child("serving"))
    body = json.dumps({"op": "models"}).encode()
    for number in range(60_000):
        try:
            socket.send(body, zmq.NOBLOCK)
        except zmq.Again:
            time.sleep(0.001)
        if number % 10_000 == 0:
            assert is_served(service)
    assert is_served(service)
    assert resident(service.child("serving")) - before < 128 * MEBIBYTE


def test_one_client_may_not_fill_the_queue_of_large_requests(
    service: Service, socket: zmq.Socket[bytes]
) -> None:
    """What exceeds its share is answered `busy` at once; another's batch is served."""
    frames = [
        json.dumps({"op": "predict", "model": FAMILY, "tensor": [100_000, 5]}).encode(),
        bytes(2_000_000),
    ]
    for _ in range(20):
        socket.send_multipart(frames)
    with service.client(timeout=10) as other:
        assert len(other.predict(FAMILY, [list(ROW.values())] * 300).output) == 300
    replies = [msgspec.json.decode(socket.recv_multipart()[0]) for _ in range(20)]
    refused = [reply for reply in replies if reply["op"] == "error"]
    assert {reply["code"] for reply in refused} == {"busy"}
    assert 4 <= 20 - len(refused) < 20
    assert refused[0]["details"]["retry_after_ms"] > 0


def test_a_thousand_connections_are_served(
    service: Service, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    """Each gets its own answer; when they have gone, so have their descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8_192 if hard == resource.RLIM_INFINITY else min(hard, 8_192)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    before = descriptors(service)
    many = [connected(context, service) for _ in range(1_000)]
    for number, socket in enumerate(many):
        message = {"op": "predict", "id": number, "model": FAMILY, "features": ROW}
        socket.send(json.dumps(message).encode())
    for number, socket in enumerate(many):
        assert msgspec.json.decode(socket.recv())["id"] == number
    assert is_served(service)
    for socket in many:
        socket.close()
    assert until(lambda: descriptors(service) <= before + 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_clients_that_vanish_with_requests_under_way_leave_nothing_behind(
    service: Service,
) -> None:
    """Rows and batches whose asker has gone are dropped; descriptors return."""
    before = descriptors(service)
    row = json.dumps({"op": "predict", "model": FAMILY, "features": ROW}).encode()
    batch = json.dumps({"op": "predict", "model": FAMILY, "tensor": [10_000, 5]}).encode()
    for _ in range(50):
        with zmq.Context() as gone, gone.socket(zmq.DEALER) as socket:
            socket.linger = 20
            socket.connect(service.endpoints.predict)
            for _ in range(5):
                socket.send(row)
            socket.send_multipart([batch, bytes(200_000)])
    assert is_served(service)
    assert until(lambda: descriptors(service) <= before + 2)


def zmtp_peer(endpoint: str) -> sockets.socket:
    """A bare TCP peer past the handshake of ZMTP 3.0, as a DEALER without security."""
    host, port = endpoint.removeprefix("tcp://").split(":")
    peer = sockets.create_connection((host, int(port)), timeout=5)
    peer.sendall(b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
    ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
    peer.sendall(bytes([4, len(ready)]) + ready)
    received = b""
    while len(received) < 64 + 2 + 6:
        received += peer.recv(1024)
    return peer


def test_a_message_without_end_disturbs_nobody(service: Service) -> None:
    """4 MB of frames that all promise one more: alive, others served, and freed with the peer."""
    before = resident(service.child("serving"))
    peer = zmtp_peer(service.endpoints.predict)
    frames = (b"\x01\x40" + bytes(64)) * 1_000
    for _ in range(62):
        peer.sendall(frames)
        assert is_served(service)
    grown = resident(service.child("serving")) - before
    assert grown < 256 * MEBIBYTE
    peer.close()
    assert is_served(service)


def test_half_a_handshake_and_reset_connections_disturb_nobody(service: Service) -> None:
    """Peers that say nothing, nonsense, or hang up hard cost a descriptor for a while only."""
    before = descriptors(service)
    host, port = service.endpoints.predict.removeprefix("tcp://").split(":")
    for words in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" + bytes(8) + b"\x7f\x03"):
        for _ in range(20):
            peer = sockets.create_connection((host, int(port)), timeout=5)
            peer.sendall(words)
            peer.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
    assert is_served(service)
    assert until(lambda: descriptors(service) <= before + 2)
