"""A recorder without its process: ledger, book, feedback and records, in the test's own thread."""

from __future__ import annotations

import struct
import time
import uuid
from collections.abc import Sequence
from typing import Any, Self

import msgspec
import numpy as np
import zmq

from tickserve_client.messages import Ack, Outcome
from tickserve_registry.trading_calendar import Calendar
from tickserve_server.parcel import Packer, Record
from tickserve_server.recorder.committer import Committer
from tickserve_server.recorder.feedback import Feedback, Told
from tickserve_server.recorder.ledger import Ledger
from tickserve_server.recorder.live import LiveBook, Profile
from tickserve_server.recorder.reader import LedgerReader
from tickserve_server.recorder.records import RecordReceiver

BUILD = "eurusd_1h_xgb_trend_v1_20250101"
OTHER = "eurusd_1h_xgb_trend_v2_20250102"
KNOWN = frozenset({BUILD, OTHER})
ARRIVAL_MS = 2_000


class Recorder:
    """Takes messages as the recorder process does, one turn for each call."""

    def __init__(
        self,
        url: str,
        *,
        calendar: Calendar = "24x7",
        profile: Profile | None = None,
        default_capital: float = 10_000.0,
        builds: frozenset[str] | set[str] = KNOWN,
    ) -> None:
        self.ledger = Ledger(url)
        self.reader = LedgerReader(self.ledger.database)
        found = profile or Profile(calendar, None)
        self.book = LiveBook(default_capital=default_capital, profile=lambda _: found)
        self.now = time.time_ns() // 1_000_000
        self.feedback = Feedback(
            self.ledger,
            self.book,
            knows_build=lambda build: build in builds,
            clock=lambda: self.now,
            latest=lambda: self.now,
        )
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        receiving = self._context.socket(zmq.ROUTER)
        receiving.bind("inproc://records")
        self.records = RecordReceiver(
            receiving,
            self.ledger,
            on_report=self.book.report,
            on_state=lambda _: None,
            clock=lambda: self.now,
        )
        self._sending = self._context.socket(zmq.DEALER)
        self._sending.connect("inproc://records")
        self._sockets = (receiving, self._sending)
        self._sequence = 0
        self.committer = Committer(self.ledger, self.book, self.feedback, self.records)
        self.committer.commit([])

    def tell(self, *messages: Told) -> list[Ack]:
        """Commit messages in one turn."""
        acks, _ = self.committer.commit(messages)
        self.records.confirm()
        return acks

    def status(self, message: Told) -> str:
        """Commit one message; return what became of it."""
        (ack,) = self.tell(message)
        return ack.status

    def predict(
        self, outputs: Sequence[float], *, build: str = BUILD, inputs: Any = None
    ) -> list[str]:
        """Record predictions of one row each, in a parcel; return their ids."""
        ids = [_uuid7(self.now + place) for place in range(len(outputs))]
        rows = np.zeros((len(outputs), 1), "<f4") if inputs is None else inputs
        packer = Packer()
        for place, (prediction_id, output) in enumerate(zip(ids, outputs, strict=True)):
            packer.add(
                Record(
                    prediction_id=prediction_id,
                    build=build,
                    digest="0" * 16,
                    served_at_ms=self.now + place,
                    bar_time_ms=None,
                    server_us=40,
                    rows=1,
                    outputs=np.float32(output).tobytes(),
                    action=None,
                    inputs=rows[place].astype("<f4").tobytes(),
                )
            )
        self.send(packer)
        return ids

    def send(self, packer: Packer) -> None:
        """Hand a parcel over and commit it."""
        summary, body = packer.take()
        self._sequence += 1
        number = struct.pack(">Q", self._sequence)
        self._sending.send_multipart([b"R", number, msgspec.msgpack.encode(summary), body])
        self._sockets[0].poll(ARRIVAL_MS)
        self.records.receive()
        self.tell()

    def block(self, build: str = BUILD, *, as_of: int | None = None) -> dict[str, Any]:
        """Return the live figures of a build, after what is outdated has been made anew."""
        for outdated in self.book.outdated():
            generation, track = self.book.generation, self.book.start_over(outdated)
            position = self.reader.replay(outdated, track)
            assert self.book.renew(outdated, track, position=position, generation=generation)
        for run in self.book.outdated_runs():
            self.book.renew_marked(run, self.reader.marked_equity(run))
        block = self.book.block(build, as_of=self.now if as_of is None else as_of)
        assert block is not None
        return block

    def close(self) -> None:
        """Close everything, in order or not: what is committed is there."""
        for socket in self._sockets:
            socket.close(linger=0)
        self._context.term()
        self.reader.close()
        self.ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def outcome(trade: str = "1", **fields: Any) -> Outcome:
    """A final closed trade with the given fields replaced."""
    stated: dict[str, Any] = {
        "bot": "hand",
        "run": "r1",
        "trade": trade,
        "seq": 1,
        "status": "closed",
        "final": True,
        "build": BUILD,
        "pnl": 1.0,
        "currency": "USD",
        "opened_at": 1_742_860_800_000,
        "closed_at": 1_742_864_400_000,
    }
    return Outcome(**(stated | fields))


def _uuid7(milliseconds: int) -> str:
    """A UUID of version 7 made at that time."""
    value = (milliseconds << 80) | (0x7 << 76) | (0b10 << 62) | (uuid.uuid4().int & ((1 << 62) - 1))
    return str(uuid.UUID(int=value))
