"""The records channel over a real socket: kept until committed, sent again, bounded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tickserve_server.parcel import Record, open_parcel
from tickserve_server.serving.records import COMMITTED, HELLO, RECORDS, RecordSender


def record(number: int) -> Record:
    """One record with a telling id."""
    return Record(f"id-{number}", "b", "d", 1, None, 5, 1, b"", None, b"")


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    """A context that closes its sockets."""
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


def recorder(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> zmq.Socket[bytes]:
    """The recorder's end of the channel."""
    socket: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
    socket.linger = 0
    socket.bind(endpoint)
    return socket


def receive(
    socket: zmq.Socket[bytes], sender: RecordSender
) -> list[tuple[bytes, bytes, list[str]]]:
    """Everything that arrives until it stays quiet: peer, sequence, the ids of each batch."""
    found: list[tuple[bytes, bytes, list[str]]] = []
    for _ in range(60):
        sender.service(time.monotonic())
        if socket.poll(50):
            peer, kind, sequence, _, body = socket.recv_multipart()
            assert kind == RECORDS
            found.append((peer, sequence, [each.prediction_id for each in open_parcel(body)]))
        elif found:
            break
    return found


def confirm(socket: zmq.Socket[bytes], peer: bytes, *sequences: int) -> None:
    """Report parcels as committed."""
    frame = b"".join(sequence.to_bytes(8, "big") for sequence in sequences)
    socket.send_multipart([peer, COMMITTED, frame])


def test_records_are_kept_until_committed_and_sent_again(
    tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    """A restarted recorder gets what the old one had not committed, in order; not the rest."""
    endpoint = f"ipc://{tmp_path}/records"
    sender = RecordSender(context, endpoint, backlog=100, backlog_bytes=1 << 20)
    socket = recorder(context, endpoint)
    for number in range(3):
        sender.add(record(number))
        ((peer, sequence, ids),) = receive(socket, sender)
        assert ids == [f"id-{number}"]
        if number == 0:
            socket.send_multipart([peer, COMMITTED, sequence])
    assert sender.uncommitted == 2
    socket.close()
    socket = recorder(context, endpoint)
    sender.add(record(3))
    ((peer, _, _), *_) = receive(socket, sender)
    socket.send_multipart([peer, HELLO])
    again = [ids for _, _, ids in receive(socket, sender)]
    assert again == [["id-1"], ["id-2"], ["id-3"]]
    confirm(socket, peer, 4)
    for _ in range(20):
        sender.service(time.monotonic())
        time.sleep(0.01)
    assert sender.uncommitted == 2  # those before it may have been lost on the way
    confirm(socket, peer, 2, 3)
    deadline = time.monotonic() + 5
    while not sender.is_settled and time.monotonic() < deadline:
        sender.service(time.monotonic())
    assert sender.is_settled
    assert sender.dropped == 0
    socket.close()
    sender.close()


def test_without_a_recorder_the_oldest_are_dropped_and_counted(
    tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    """Memory stays within the stated bound and the loss is a number, not a secret."""
    sender = RecordSender(context, f"ipc://{tmp_path}/records", backlog=10, backlog_bytes=1 << 20)
    for number in range(25):
        sender.add(record(number))
        sender.service(float(number))
    assert (sender.uncommitted, sender.dropped) == (10, 15)
    sender.close()
