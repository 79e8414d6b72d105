"""The recorder's end of the records channel: what the serving process hands over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import structlog
import zmq

from tickserve_server.parcel import Summary
from tickserve_server.recorder.ledger import Ledger

log = structlog.get_logger(__name__)

RECORDS, EVENT, STATISTICS, COMMITTED, HELLO = b"R", b"E", b"S", b"C", b"H"
MOST_PARCELS = 64
"""Read in one turn, so that feedback is never kept waiting long."""


class _Event(msgspec.Struct):
    """An event of the serving process."""

    topic: str
    body: dict[str, Any]


class Arrivals(NamedTuple):
    """What one turn brought: parcels of predictions, rows by build, events."""

    parcels: list[bytes]
    rows: Counter[str]
    events: list[_Event]


class RecordReceiver:
    """Reads parcels inside the ledger's transaction and confirms them after its commit."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        ledger: Ledger,
        *,
        on_statistics: Callable[[dict[str, Any]], None],
        clock: Callable[[], int],
    ) -> None:
        self._socket = socket
        self._ledger = ledger
        self._on_statistics = on_statistics
        self._clock = clock
        self._summary = msgspec.msgpack.Decoder(Summary)
        self._event = msgspec.msgpack.Decoder(_Event)
        self._parcels: dict[bytes, list[list[bytes]]] = {}
        self._greeted: set[bytes] = set()

    def receive(self) -> bool:
        """Take what waits off the socket; return whether there is anything to store."""
        for _ in range(MOST_PARCELS):
            try:
                peer, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._greet(peer)
            if frames[0] == STATISTICS:
                self._on_statistics(msgspec.msgpack.decode(frames[-1]))
            else:
                self._parcels.setdefault(peer, []).append(frames)
        return bool(self._parcels)

    def store(self) -> Arrivals:
        """Put everything received into the open transaction."""
        arrivals = Arrivals([], Counter(), [])
        for peer, parcels in self._parcels.items():
            for kind, sequence, summary, body in parcels:
                if kind == RECORDS:
                    told = self._summary.decode(summary)
                    number = int.from_bytes(sequence, "big")
                    if self._ledger.add_parcel(peer.hex(), number, told, body):
                        arrivals.parcels.append(body)
                        arrivals.rows.update(told.rows)
                elif kind == EVENT:
                    event = self._event.decode(body)
                    self._ledger.add_event(event.topic, event.body, at=self._clock())
                    arrivals.events.append(event)
        return arrivals

    def confirm(self) -> None:
        """Report what the commit has made durable, so that the sender may forget it."""
        for peer, parcels in self._parcels.items():
            newest = max(sequence for _, sequence, _, _ in parcels)
            self._socket.send_multipart([peer, COMMITTED, newest], zmq.NOBLOCK)
        self._parcels = {}

    def drop(self) -> None:
        """Forget what could not be stored; the sender keeps it and sends it again."""
        self._parcels = {}

    def _greet(self, peer: bytes) -> None:
        if peer not in self._greeted:
            self._greeted.add(peer)
            self._socket.send_multipart([peer, HELLO], zmq.NOBLOCK)
