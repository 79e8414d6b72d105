"""The recorder's end of the records channel: what the serving process hands over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import structlog
import zmq

from tickserve_server.ops.health import ServingState
from tickserve_server.parcel import Summary
from tickserve_server.recorder import schema
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
    """What one turn brought: new parcels of predictions with their summaries, and events."""

    parcels: list[tuple[Summary, bytes]]
    events: list[_Event]


class _Report(msgspec.Struct):
    """Figures of the serving process: of the models whose have changed, and records lost."""

    models: list[dict[str, Any]]
    records_dropped: int = 0
    state: ServingState = ServingState()


class RecordReceiver:
    """Reads parcels inside the ledger's transaction and confirms them after its commit."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        ledger: Ledger,
        *,
        on_report: Callable[[list[dict[str, Any]]], None],
        on_state: Callable[[ServingState], None],
        clock: Callable[[], int],
    ) -> None:
        self._socket = socket
        self._ledger = ledger
        self._on_report = on_report
        self._on_state = on_state
        self._clock = clock
        self._summary = msgspec.msgpack.Decoder(Summary)
        self._report = msgspec.msgpack.Decoder(_Report)
        self._dropped: dict[bytes, int] = {}
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
                report = self._report.decode(frames[-1])
                self._dropped[peer] = report.records_dropped
                self._on_report(report.models)
                self._on_state(report.state)
            else:
                self._parcels.setdefault(peer, []).append(frames)
        return bool(self._parcels)

    def store(self) -> Arrivals:
        """Put everything received into the open transaction."""
        arrivals = Arrivals([], [])
        for peer, parcels in self._parcels.items():
            for kind, sequence, summary, body in parcels:
                if kind == RECORDS:
                    told = self._summary.decode(summary)
                    number = int.from_bytes(sequence, "big")
                    if self._is_new(peer, number, told, body):
                        arrivals.parcels.append((told, body))
                elif kind == EVENT:
                    event = self._event.decode(body)
                    row = {
                        "at": self._clock(),
                        "topic": event.topic,
                        "body": msgspec.json.encode(event.body).decode(),
                    }
                    self._ledger.add(schema.events, [row])
                    arrivals.events.append(event)
        return arrivals

    def confirm(self) -> None:
        """Report what the commit has made durable, so that the sender may forget it."""
        for peer, parcels in self._parcels.items():
            stored = b"".join(sequence for _, sequence, _, _ in parcels)
            self._socket.send_multipart([peer, COMMITTED, stored], zmq.NOBLOCK)
        self._parcels = {}

    def drop(self) -> None:
        """Forget what could not be stored; the sender keeps it and sends it again."""
        self._parcels = {}

    @property
    def dropped(self) -> int:
        """Records that serving processes have given up since this process started."""
        return sum(self._dropped.values())

    def _is_new(self, peer: bytes, number: int, summary: Summary, body: bytes) -> bool:
        """Store a parcel unless it is known; return whether it was new."""
        row = {
            "sender": peer.hex(),
            "sequence": number,
            "first_id": summary.first_id,
            "last_id": summary.last_id,
            "records": summary.records,
            "rows": msgspec.json.encode(summary.rows).decode(),
            "received_at": self._clock(),
            "body": body,
        }
        return self._ledger.add_new(schema.prediction_parcels, row)

    def _greet(self, peer: bytes) -> None:
        if peer not in self._greeted:
            self._greeted.add(peer)
            self._socket.send_multipart([peer, HELLO], zmq.NOBLOCK)
