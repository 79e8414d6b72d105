"""Prediction records on their way to the recorder: batched, and kept until committed."""

from __future__ import annotations

import secrets
import struct
from collections import deque
from typing import Any, NamedTuple

import msgspec
import zmq

from tickserve_server.parcel import Packer, Record

SEQUENCE = struct.Struct(">Q")
RECORDS, EVENT, STATISTICS, COMMITTED, HELLO = b"R", b"E", b"S", b"C", b"H"
PARCEL_RECORDS = 4096
PARCEL_BYTES = 1 << 20
GATHER_S = 0.2
"""Records gather that long: each parcel costs the recorder a durable commit."""

RESEND_AFTER_S = 2.0
MOST_IN_FLIGHT = 8
"""Parcels sent and not yet committed: what is sent again after a failure costs the loop no more."""


class Parcel(NamedTuple):
    """One numbered message that is kept until the recorder reports it as committed."""

    sequence: int
    records: int
    size: int
    frames: list[bytes]


class RecordSender:
    """The serving process's end of the records channel.

    Everything is kept until the recorder reports it as committed and is sent again after the
    recorder has restarted, up to `backlog` records and `backlog_bytes`; beyond that the oldest
    are dropped and counted. No call here ever blocks.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        *,
        backlog: int,
        backlog_bytes: int,
    ) -> None:
        self._socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        self._socket.routing_id = b"serving-" + secrets.token_bytes(8)
        self._socket.linger = 0
        self._socket.sndhwm = 0
        self._socket.immediate = True
        self._socket.connect(endpoint)
        self._encoder = msgspec.msgpack.Encoder()
        self._backlog = backlog
        self._backlog_bytes = backlog_bytes
        self._fresh = Packer()
        self._kept: dict[int, Parcel] = {}
        self._unsent: deque[int] = deque()
        self._in_flight: dict[int, float] = {}
        self._sequence = 0
        self._kept_records = self._kept_bytes = 0
        self._packed_at = 0.0
        self.dropped = 0

    @property
    def uncommitted(self) -> int:
        """Records that the recorder has not yet reported as committed."""
        return self._kept_records + self._fresh.records

    @property
    def is_settled(self) -> bool:
        """Whether everything handed over is committed."""
        return not self._fresh.records and not self._kept

    def add(self, record: Record) -> None:
        """Take one record; it is sent with a later service()."""
        self._fresh.add(record)

    def announce(self, topic: str, body: dict[str, Any]) -> None:
        """Hand an event to the recorder, which publishes it."""
        self._pack()
        self._keep(EVENT, b"", self._encoder.encode({"topic": topic, "body": body}), records=0)

    def statistics(self, figures: dict[str, Any]) -> None:
        """Hand over serving figures; a newer one replaces them, so they are not kept."""
        frames = [STATISTICS, SEQUENCE.pack(0), b"", self._encoder.encode(figures)]
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return

    def service(self, now: float) -> None:
        """Read what the recorder says, send what waits; `now` is monotonic seconds."""
        self._receive()
        fresh = self._fresh
        is_full = fresh.records >= PARCEL_RECORDS or fresh.size >= PARCEL_BYTES
        if is_full or now - self._packed_at >= GATHER_S:
            self._pack()
            self._packed_at = now
        self._send_again(now)
        self._send(now)
        self._bound()

    def close(self) -> None:
        """Close the socket; what is not committed is lost with the process."""
        self._socket.close()

    def _receive(self) -> None:
        while True:
            try:
                kind, *rest = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if kind == HELLO:
                self._unsent, self._in_flight = deque(self._kept), {}
            elif kind == COMMITTED:
                for (sequence,) in SEQUENCE.iter_unpack(rest[0]):
                    self._forget(sequence)

    def _pack(self) -> None:
        if self._fresh.records:
            summary, body = self._fresh.take()
            self._keep(RECORDS, self._encoder.encode(summary), body, records=summary.records)

    def _keep(self, kind: bytes, summary: bytes, body: bytes, *, records: int) -> None:
        self._sequence += 1
        frames = [kind, SEQUENCE.pack(self._sequence), summary, body]
        parcel = Parcel(self._sequence, records, len(body), frames)
        self._kept[self._sequence] = parcel
        self._unsent.append(self._sequence)
        self._kept_records += records
        self._kept_bytes += parcel.size

    def _send(self, now: float) -> None:
        while self._unsent and len(self._in_flight) < MOST_IN_FLIGHT:
            parcel = self._kept.get(self._unsent[0])
            if parcel is not None:
                try:
                    self._socket.send_multipart(parcel.frames, zmq.NOBLOCK)
                except zmq.Again:
                    return
                self._in_flight[parcel.sequence] = now
            self._unsent.popleft()

    def _send_again(self, now: float) -> None:
        """Queue what was sent long ago and never reported as committed."""
        late = [each for each, at in self._in_flight.items() if now - at > RESEND_AFTER_S]
        for sequence in reversed(late):
            del self._in_flight[sequence]
            self._unsent.appendleft(sequence)

    def _forget(self, sequence: int) -> int:
        """Keep a parcel no longer; return how many records were in it."""
        self._in_flight.pop(sequence, None)
        parcel = self._kept.pop(sequence, None)
        if parcel is None:
            return 0
        self._kept_records -= parcel.records
        self._kept_bytes -= parcel.size
        return parcel.records

    def _bound(self) -> None:
        while self._kept_records > self._backlog or self._kept_bytes > self._backlog_bytes:
            self.dropped += self._forget(next(iter(self._kept)))
