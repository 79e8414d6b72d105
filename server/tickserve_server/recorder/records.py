"""The recorder's end of the records channel: what the serving process hands over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
import structlog
import zmq

from tickserve_server.recorder.ledger import Ledger

log = structlog.get_logger(__name__)

RECORDS, EVENT, STATISTICS, COMMITTED, HELLO = b"R", b"E", b"S", b"C", b"H"
MOST_PARCELS = 64
"""Read in one turn, so that feedback is never kept waiting long."""


Record = tuple[str, str, str, int, int | None, int, int, bytes, str | None, bytes]
"""One prediction, in the order of the channel and of the ledger's columns: prediction_id, build,
digest, served_at, bar_time, server_us, rows, outputs, action, inputs."""

ID: Final = 0
BUILD: Final = 1
ROWS: Final = 6


class _Event(msgspec.Struct):
    """An event of the serving process."""

    topic: str
    body: dict[str, Any]


class Arrivals(NamedTuple):
    """What one turn brought: predictions, rows by build, events."""

    records: list[Record]
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
        self._records = msgspec.msgpack.Decoder(list[Record])
        self._event = msgspec.msgpack.Decoder(_Event)
        self._parcels: dict[bytes, list[tuple[bytes, bytes, bytes]]] = {}
        self._greeted: set[bytes] = set()

    def receive(self) -> bool:
        """Take what waits off the socket; return whether there is anything to store."""
        for _ in range(MOST_PARCELS):
            try:
                peer, kind, sequence, body = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            except ValueError:
                log.error("records_malformed")
                continue
            self._greet(peer)
            if kind == STATISTICS:
                self._on_statistics(msgspec.msgpack.decode(body))
            else:
                self._parcels.setdefault(peer, []).append((kind, sequence, body))
        return bool(self._parcels)

    def store(self) -> Arrivals:
        """Put everything received into the open transaction."""
        arrivals = Arrivals([], Counter(), [])
        for parcels in self._parcels.values():
            for kind, _, body in parcels:
                if kind == RECORDS:
                    arrivals.records.extend(self._records.decode(body))
                elif kind == EVENT:
                    event = self._event.decode(body)
                    self._ledger.add_event(event.topic, event.body, at=self._clock())
                    arrivals.events.append(event)
        self._ledger.add_predictions(arrivals.records)
        for record in arrivals.records:
            arrivals.rows[record[BUILD]] += record[ROWS]
        return arrivals

    def confirm(self) -> None:
        """Report what the commit has made durable, so that the sender may forget it."""
        for peer, parcels in self._parcels.items():
            newest = max(sequence for _, sequence, _ in parcels)
            self._socket.send_multipart([peer, COMMITTED, newest], zmq.NOBLOCK)
        self._parcels = {}

    def drop(self) -> None:
        """Forget what could not be stored; the sender keeps it and sends it again."""
        self._parcels = {}

    def _greet(self, peer: bytes) -> None:
        if peer not in self._greeted:
            self._greeted.add(peer)
            self._socket.send_multipart([peer, HELLO], zmq.NOBLOCK)
