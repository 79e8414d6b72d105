"""Composition root of the recorder process: one loop, one writer, acks after the commit."""

from __future__ import annotations

import os
import time
from typing import Any

import sqlalchemy as sa
import structlog
import zmq

from tickserve_client.codec import Encoder, feedback_decoder, is_json, split_envelope
from tickserve_client.errors import ProtocolError
from tickserve_client.messages import (
    Ack,
    Batch,
    Equity,
    Error,
    Hello,
    Label,
    Message,
    Outcome,
    Ping,
    Pong,
)
from tickserve_registry.errors import RegistryError
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.naming import parse_build
from tickserve_registry.performance import Calendar, default_calendar
from tickserve_server.admin import Admin
from tickserve_server.child import Lifeline, Termination, bind
from tickserve_server.recorder.events import EventPublisher
from tickserve_server.recorder.feedback import Feedback
from tickserve_server.recorder.ledger import Ledger
from tickserve_server.recorder.live import Capital, LiveBook, Trade
from tickserve_server.recorder.metriclog import MetricLog
from tickserve_server.recorder.records import Arrivals, RecordReceiver
from tickserve_server.recorder.writeback import WriteBack
from tickserve_server.runtime import Runtime
from tickserve_server.settings import Settings

log = structlog.get_logger(__name__)

POLL_MS = 50
MOST_REQUESTS = 256
"""Feedback taken into one transaction, so that a commit stays short."""

NICENESS = 5
"""The serving process answers first; what it hands over waits in its memory."""

RETRY_AFTER_MS = 500
LINGER_MS = 500
DRAIN_S = 3.0

Request = tuple[list[bytes], bool, Any]
"""Envelope, whether it came as JSON, and the message."""


def now_ms() -> int:
    """Return milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class RecorderProcess:
    """Owns the ledger and the sockets; a turn is: receive all, one commit, then acknowledge."""

    def __init__(self, settings: Settings, lifeline: Lifeline) -> None:
        self._settings = settings
        self._lifeline = lifeline
        self._termination = Termination()
        self._started_at = time.time()
        self._registry = ModelRegistry(settings.storage_root)
        self._ledger = Ledger(settings.ledger_url)
        self._feedback = Feedback(self._ledger, knows_build=self._knows_build, clock=now_ms)
        self._book = LiveBook(
            default_capital=settings.recorder.default_capital, calendar=self._calendar
        )
        self._decoder = feedback_decoder()
        self._encoder = Encoder()
        self._known_builds: set[str] = set()
        self._turns = self._failed_turns = 0
        runtime = Runtime(settings.storage_root)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._open(zmq.ROUTER, settings.endpoints.feedback, name="feedback")
        self._events_socket = self._open(zmq.XPUB, settings.endpoints.events, name="events")
        self._records_socket = self._open(zmq.ROUTER, runtime.records, name="records")
        self._events = EventPublisher(self._events_socket)
        self._records = RecordReceiver(
            self._records_socket,
            self._ledger,
            on_statistics=self._book.set_serving,
            clock=now_ms,
        )
        self._admin = Admin(self._context, runtime.admin_recorder, report=self._report)
        self._writeback = WriteBack(
            self._registry,
            self._book,
            MetricLog(settings.recorder.metric_log_file),
            settings.recorder,
            publish=self._events.put,
            clock=now_ms,
        )

    def run(self) -> int:
        """Load the book, say ready, record until told to stop, then drain and write back."""
        os.nice(NICENESS)
        self._load()
        self._writeback.start()
        poller = zmq.Poller()
        for socket in (self._socket, self._records_socket, self._events_socket):
            poller.register(socket, zmq.POLLIN)
        self._lifeline.ready()
        while not (self._termination.requested or self._lifeline.is_cut):
            poller.poll(POLL_MS)
            self._turn()
            self._events.service(time.monotonic())
            self._admin.service()
        self._drain(poller)
        self._writeback.stop()
        self._close()
        return 0

    def _open(self, kind: int, endpoint: str, *, name: str) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.linger = LINGER_MS
        socket.maxmsgsize = self._settings.serving.max_tensor_bytes
        bind(socket, endpoint, name=name)
        return socket

    def _load(self) -> None:
        self._ledger.begin()
        capital = [
            Capital(row.bot, row.run, row.account, row.starting_equity)
            for row in self._ledger.runs()
        ]
        trades = [
            Trade(row.build, (row.bot, row.run, row.trade), row.closed_at, row.pnl, row.currency)
            for row in self._ledger.counted()
        ]
        self._book.add(trades, capital)
        for build, rows in self._ledger.prediction_counts().items():
            self._book.count_predictions(build, rows)
        self._ledger.commit()

    def _turn(self) -> bool:
        """Store all that waits in one transaction; return whether there was anything."""
        requests = self._receive()
        has_records = self._records.receive()
        if not requests and not has_records:
            return False
        self._turns += 1
        try:
            self._commit(requests)
        except sa.exc.DBAPIError as error:
            self._refuse(requests, reason=str(error.orig))
            return False
        except Exception:
            log.exception("turn_failed", requests=len(requests))
            self._ledger.rollback()
            self._one_by_one(requests)
            self._records.drop()
        return True

    def _commit(self, requests: list[Request]) -> None:
        """Store requests and records in one transaction, then acknowledge, then count them."""
        replies, arrivals = self._store(requests)
        self._records.confirm()
        for (envelope, as_json, _), reply in zip(requests, replies, strict=True):
            self._send(envelope, reply, as_json=as_json)
        self._book.add(self._feedback.effects.trades, self._feedback.effects.capital)
        self._take_in(arrivals)

    def _one_by_one(self, requests: list[Request]) -> None:
        """Give each request its own transaction, so that only the one at fault is refused."""
        for request in requests:
            envelope, as_json, message = request
            try:
                self._commit([request])
            except (sa.exc.DBAPIError, RegistryError, OSError) as error:
                self._ledger.rollback()
                self._refuse([request], reason=str(error))
            except Exception as error:  # noqa: BLE001 - whatever fails, the bot gets an answer
                self._ledger.rollback()
                reason = f"{type(error).__name__}: {error}"
                refusal = Error(id=message.id, code="internal", message=reason)
                self._send(envelope, refusal, as_json=as_json)

    def _receive(self) -> list[Request]:
        requests: list[Request] = []
        while len(requests) < MOST_REQUESTS:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            envelope, body = split_envelope(frames)
            as_json = bool(body) and is_json(body[0])
            try:
                message, _ = self._decoder.decode(body[0] if len(body) == 1 else b"")
            except ProtocolError as error:
                refusal = Error(id=error.request_id, code="malformed", message=error.reason)
                self._send(envelope, refusal, as_json=as_json)
            else:
                requests.append((envelope, as_json, message))
        return requests

    def _store(self, requests: list[Request]) -> tuple[list[Message], Arrivals]:
        self._feedback.begin()
        self._ledger.begin()
        arrivals = self._records.store()
        self._feedback.join(arrivals.parcels)
        replies = [self._apply(message) for _, _, message in requests]
        self._ledger.commit()
        return replies, arrivals

    def _apply(self, message: Any) -> Message:
        if isinstance(message, Hello | Outcome | Label | Equity | Batch):
            return self._feedback.apply(message)
        if isinstance(message, Ping):
            return Pong(id=message.id, server_time=now_ms(), ready=True)
        return Ack(id=message.id, status="recorded", details=self._events.snapshot())

    def _refuse(self, requests: list[Request], *, reason: str) -> None:
        """Nothing of this turn is stored: say so, and take a fresh connection."""
        self._failed_turns += 1
        log.error("ledger_commit_failed", reason=reason, requests=len(requests))
        self._records.drop()
        for envelope, as_json, message in requests:
            details = {"reason": reason, "retry_after_ms": RETRY_AFTER_MS}
            reply = Ack(id=message.id, status="retry", details=details)
            self._send(envelope, reply, as_json=as_json)
        try:
            self._ledger.reopen()
        except sa.exc.DBAPIError as error:
            log.error("ledger_reopen_failed", reason=str(error.orig))

    def _take_in(self, arrivals: Arrivals) -> None:
        for build, rows in arrivals.rows.items():
            self._book.count_predictions(build, rows)
        for event in arrivals.events:
            self._events.publish(event.topic, event.body)
            if event.body.get("state") == "unloaded":
                self._writeback.soon()

    def _send(self, envelope: list[bytes], message: Message, *, as_json: bool) -> None:
        encoded = self._encoder.encode(message, as_json=as_json)
        self._socket.send_multipart([*envelope, encoded], zmq.NOBLOCK)

    def _drain(self, poller: zmq.Poller) -> None:
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline and poller.poll(0):
            if not self._turn():
                break

    def _close(self) -> None:
        self._admin.close()
        for socket in (self._socket, self._events_socket, self._records_socket):
            socket.close()
        self._ledger.close()
        self._context.term()

    def _knows_build(self, build: str) -> bool:
        if build not in self._known_builds:
            self._known_builds = {entry.build for entry in self._registry.entries()}
        return build in self._known_builds

    def _calendar(self, build: str) -> Calendar:
        name, _ = parse_build(build)
        return self._settings.recorder.calendars.get(name.market) or default_calendar(name.market)

    def _report(self) -> dict[str, Any]:
        return {
            "process": "recorder",
            "pid": os.getpid(),
            "started_at": self._started_at,
            "turns": self._turns,
            "failed_turns": self._failed_turns,
            "events": self._events.sequence,
            "builds": self._book.builds(),
        }


def run(settings: Settings, lifeline: int) -> int:
    """Run the recorder to its end; returns the exit code."""
    return RecorderProcess(settings, Lifeline(lifeline)).run()
