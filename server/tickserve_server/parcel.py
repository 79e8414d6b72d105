"""Prediction records in parcels: how they travel between the processes and lie in the ledger.

A parcel costs the ledger one row, whatever it holds, and its records one pass of an encoder:
a row for each of 20,000 predictions a second would cost the machine more than to make them.
"""

from __future__ import annotations

import struct

import msgspec

ARRAY_HEADER = struct.Struct(">BI")
ARRAY_32 = 0xDD
"""MessagePack's array whose length is a 32-bit number."""


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One answered request: one row, or a batch. Inputs and outputs are float32 little-endian.

    `action` is JSON; the prediction_id of row i of a batch is `<prediction_id>:<i>`.
    """

    prediction_id: str
    build: str
    digest: str
    served_at_ms: int
    bar_time_ms: int | None
    server_us: int
    rows: int
    outputs: bytes
    action: str | None
    inputs: bytes


class Summary(msgspec.Struct, frozen=True):
    """What is told of a parcel without opening it; ids are UUIDs of version 7, in time's order."""

    first_id: str
    last_id: str
    records: int
    rows: dict[str, int]


class Packer:
    """Encodes records one behind the other as they come, and hands them out as one parcel."""

    def __init__(self) -> None:
        self._encode_into = msgspec.msgpack.Encoder().encode_into
        self._begin()

    def _begin(self) -> None:
        self._body = bytearray(ARRAY_HEADER.size)
        self._rows: dict[str, int] = {}
        self._first_id = self._last_id = ""
        self.records = 0

    @property
    def size(self) -> int:
        """Bytes so far."""
        return len(self._body)

    def add(self, record: Record) -> None:
        """Copy one record; its buffers may change afterwards."""
        self._encode_into(record, self._body, -1)
        self.records += 1
        self._rows[record.build] = self._rows.get(record.build, 0) + record.rows
        self._last_id = max(self._last_id, record.prediction_id)
        if not self._first_id or record.prediction_id < self._first_id:
            self._first_id = record.prediction_id

    def take(self) -> tuple[Summary, bytes]:
        """Return what was added since the last call."""
        ARRAY_HEADER.pack_into(self._body, 0, ARRAY_32, self.records)
        summary = Summary(self._first_id, self._last_id, self.records, self._rows)
        body = bytes(self._body)
        self._begin()
        return summary, body


def open_parcel(body: bytes) -> list[Record]:
    """Return a parcel's records."""
    return msgspec.msgpack.decode(body, type=list[Record])
