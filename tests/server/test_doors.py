"""Tests of listening: addresses of every form, permissions, and who is turned away."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tickserve_server.doors import Doors
from tickserve_server.errors import EndpointInUse


@pytest.fixture
def router() -> Iterator[zmq.Socket[bytes]]:
    """A socket that is not bound."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as made:
        made.linger = 0
        yield made


@pytest.fixture
def port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def echoes(router: zmq.Socket[bytes], endpoint: str) -> bool:
    """Whether a message to the endpoint arrives."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as client:
        client.linger = 0
        client.ipv6 = "[" in endpoint
        client.connect(endpoint)
        client.send(b"x")
        return bool(router.poll(2_000)) and router.recv_multipart()[-1] == b"x"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "*", "0.0.0.0", "[::1]"])  # noqa: S104
def test_it_listens_at_every_form_of_address(
    router: zmq.Socket[bytes], port: int, host: str
) -> None:
    """What a configuration may say; a machine without IPv6 is excused from that."""
    doors = Doors()
    try:
        doors.open(router, f"tcp://{host}:{port}", name="predict")
    except EndpointInUse as error:
        assert host == "[::1]", error  # noqa: PT017 - no IPv6 here
        return
    try:
        reached = "[::1]" if host == "[::1]" else "127.0.0.1"
        assert echoes(router, f"tcp://{reached}:{port}")
    finally:
        doors.close()


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_a_socket_file_has_its_permissions_from_the_start(
    router: zmq.Socket[bytes], tmp_path: Path, mode: int
) -> None:
    """Whoever may write to it may connect."""
    doors = Doors()
    doors.open(router, f"ipc://{tmp_path}/door", name="predict", mode=mode)
    assert (tmp_path / "door").stat().st_mode & 0o777 == mode
    assert echoes(router, f"ipc://{tmp_path}/door")
    doors.close()


def test_a_taken_address_is_named(router: zmq.Socket[bytes], port: int) -> None:
    """By the setting that chose it."""
    doors = Doors()
    words = rf"{port} \(predict\): Address already in use"
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(EndpointInUse, match=words),
    ):
        doors.open(router, f"tcp://127.0.0.1:{port}", name="predict")
    doors.close()


def test_a_shut_door_leaves_its_address(router: zmq.Socket[bytes], port: int) -> None:
    """Once the socket is closed, too, another may listen there."""
    doors = Doors()
    doors.open(router, f"tcp://127.0.0.1:{port}", name="predict")
    doors.shut(router)
    router.close()
    deadline = time.monotonic() + 5.0
    while True:
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            assert time.monotonic() < deadline
        else:
            break
    doors.close()
