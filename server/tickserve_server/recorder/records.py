"""The recorder's end of the records channel: what the serving process hands over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import structlog
import zmq

from tickserve_server.recorder.ledger import Ledger

log = structlog.get_logger(__name__)

RECORDS, EVENT, STATISTICS, COMMITTED, HELLO = b"R", b"E", b"S", b"C", b"H"
MOST_PARCELS = 64
"""Read in one turn, so that feedback is never kept waiting long."""


class _Record(msgspec.Struct, array_like=True):
    """One prediction record, in the order in which it is sent."""

    prediction_id: str
    build: str
    digest: str
    served_at: int
    bar_time: int | None
    server_us: int
    rows: int
    outputs: bytes
    action: Any
    inputs: bytes


class _Event(msgspec.Struct):
    """An event of the serving process."""

    topic: str
    body: dict[str, Any]


class Arrivals(NamedTuple):
    """What one turn brought: predictions by id, rows by build, events."""

    builds: dict[str, str]
    rows: dict[str, int]
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
        self._records = msgspec.msgpack.Decoder(list[_Record])
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
        arrivals = Arrivals({}, {}, [])
        for parcels in self._parcels.values():
            for kind, _, body in parcels:
                if kind == RECORDS:
                    self._store_records(self._records.decode(body), arrivals)
                elif kind == EVENT:
                    event = self._event.decode(body)
                    self._ledger.add_event(event.topic, event.body, at=self._clock())
                    arrivals.events.append(event)
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

    def _store_records(self, records: list[_Record], arrivals: Arrivals) -> None:
        rows = []
        for record in records:
            row = {name: getattr(record, name) for name in _Record.__struct_fields__}
            if record.action is not None:
                row["action"] = msgspec.json.encode(record.action).decode()
            rows.append(row)
            arrivals.builds[record.prediction_id] = record.build
            arrivals.rows[record.build] = arrivals.rows.get(record.build, 0) + record.rows
        self._ledger.add_predictions(rows)
