"""The blocking client against a real ROUTER that misbehaves on purpose."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest
import zmq

from tickserve_client import Client, ConnectionFailed, RequestTimeout, ServerError

Answer = Callable[[dict[str, object]], list[dict[str, object]]]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Start a ROUTER that answers each request with what the given function returns."""
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def run(socket: zmq.Socket[bytes], answer: Answer) -> None:
        with socket:
            while not stop.is_set():
                if socket.poll(20):
                    peer, body = socket.recv_multipart()
                    for reply in answer(msgspec.msgpack.decode(body)):
                        socket.send_multipart([peer, msgspec.msgpack.encode(reply)])

    def start(answer: Answer) -> str:
        socket: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        socket.linger = 0
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        threads.append(threading.Thread(target=run, args=(socket, answer)))
        threads[-1].start()
        return f"tcp://127.0.0.1:{port}"

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield start
    stop.set()
    for thread in threads:
        thread.join()
    context.destroy(linger=0)


def prediction(request_id: object, output: float) -> dict[str, object]:
    """A reply as the daemon sends it."""
    build = {"model_id": "m_v1", "build": "m_v1_20250101", "digest": "00"}
    return {"op": "prediction", "id": request_id, "output": output, **build}


def test_a_late_reply_is_dropped_by_its_id(serve: Callable[[Answer], str]) -> None:
    """The answer to an earlier request never passes for the answer to this one."""

    def stale_first(request: dict[str, object]) -> list[dict[str, object]]:
        return [prediction("0", 0.1), prediction(request["id"], 0.9)]

    with Client(serve(stale_first), timeout=5) as client:
        assert client.predict("m", {"x": 1.0}).output == 0.9


def test_an_error_reply_raises_with_its_details(serve: Callable[[Answer], str]) -> None:
    """A bot can tell what is wrong from the exception alone."""

    def refuse(request: dict[str, object]) -> list[dict[str, object]]:
        details = {"missing": ["rsi_14"]}
        return [
            {
                "op": "error",
                "id": request["id"],
                "code": "missing_features",
                "message": "no rsi_14",
                "details": details,
            }
        ]

    with Client(serve(refuse), timeout=5) as client, pytest.raises(ServerError) as caught:
        client.predict("m", {"x": 1.0})
    assert caught.value.code == "missing_features"
    assert caught.value.details == {"missing": ["rsi_14"]}


def test_silence_ends_at_the_timeout(serve: Callable[[Answer], str]) -> None:
    """A call without an answer raises in time and the client stays usable."""
    endpoint = serve(lambda _: [])
    with Client(endpoint, timeout=0.1) as client:
        started = time.monotonic()
        for _ in range(2):
            with pytest.raises(RequestTimeout):
                client.predict("m", {"x": 1.0})
        assert time.monotonic() - started < 5


def test_an_absent_daemon_is_told_apart_from_a_silent_one() -> None:
    """Nothing is queued to a server that is not there."""
    with Client("tcp://127.0.0.1:1", timeout=0.05) as client, pytest.raises(ConnectionFailed):
        client.ping()
