"""Composition root of the recorder process: one loop, one writer, acks after the commit."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import structlog
import zmq

from tickserve_client.messages import Ack, Error, Message, Ping, Pong
from tickserve_registry.layout import Layout
from tickserve_registry.model_registry import ModelRegistry
from tickserve_server.access.gate import open_gate
from tickserve_server.access.grant import Operation
from tickserve_server.admin import Admin
from tickserve_server.child import OWNER_ONLY, Lifeline, Signals
from tickserve_server.doors import Doors
from tickserve_server.errors import EndpointInUse
from tickserve_server.ops.health import Health
from tickserve_server.ops.http import OpsServer
from tickserve_server.ops.metrics import Gauges, LiveMetrics
from tickserve_server.recorder.builds import Builds
from tickserve_server.recorder.committer import CannotStore, Committer
from tickserve_server.recorder.events import EventPublisher
from tickserve_server.recorder.feedback import Feedback, Told
from tickserve_server.recorder.halt_events import HaltEvents
from tickserve_server.recorder.intake import Intake, Request
from tickserve_server.recorder.ledger import Ledger
from tickserve_server.recorder.live import LiveBook
from tickserve_server.recorder.metriclog import MetricLog
from tickserve_server.recorder.reader import LedgerReader
from tickserve_server.recorder.records import Arrivals, RecordReceiver
from tickserve_server.recorder.retention import Retention
from tickserve_server.recorder.schedule import Schedule
from tickserve_server.recorder.writeback import WriteBack
from tickserve_server.runtime import Runtime
from tickserve_server.settings import OpsSettings, Settings

log = structlog.get_logger(__name__)

POLL_MS = 50
NICENESS = 5
"""The serving process answers first; what it hands over waits in its memory."""

RETRY_AFTER_MS = 500
LINGER_MS = 500
DRAIN_S = 3.0


def now_ms() -> int:
    """Return milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class LatestTime:
    """The clock, or where it has been set back, what it would show by now."""

    def __init__(self) -> None:
        self._ahead = now_ms() - _elapsed_ms()

    def read(self) -> int:
        """Return milliseconds since the epoch that only grow."""
        self._ahead = max(self._ahead, now_ms() - _elapsed_ms())
        return self._ahead + _elapsed_ms()


def _elapsed_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class RecorderProcess:
    """Owns the ledger and the sockets; a turn is: receive all, one commit, then acknowledge."""

    def __init__(self, settings: Settings, lifeline: Lifeline) -> None:
        self._settings = settings
        self._lifeline = lifeline
        self._signals = Signals()
        self._started_at = time.time()
        registry = ModelRegistry(settings.storage_root)
        self._ledger = Ledger(settings.ledger_url)
        self._reader = LedgerReader(self._ledger.database)
        index = Layout(settings.storage_root).catalog
        builds = Builds(registry, index, calendars=settings.recorder.calendars)
        self._book = LiveBook(
            default_capital=settings.recorder.default_capital, profile=builds.profile
        )
        self._feedback = Feedback(
            self._ledger,
            self._book,
            knows_build=builds.knows,
            clock=now_ms,
            latest=LatestTime().read,
        )
        runtime = Runtime(settings.storage_root)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._gate = open_gate(self._context, settings)
        self._doors = Doors()
        if self._gate is not None:
            self._gate.start()
        feedback_socket = self._open(zmq.ROUTER, settings.endpoints.feedback, "feedback")
        self._events = EventPublisher(
            self._open_events, gate=self._gate, before_close=self._doors.shut
        )
        self._records_socket = self._open(zmq.ROUTER, runtime.records)
        self._sockets = (feedback_socket, self._records_socket)
        self._intake = Intake(feedback_socket, settings.recorder, gate=self._gate)
        self._health = Health(failure=lambda: self._committer.failure, degraded=self._degraded)
        self._records = RecordReceiver(
            self._records_socket,
            self._ledger,
            on_report=self._book.report,
            on_state=self._health.hear,
            clock=now_ms,
        )
        self._committer = Committer(self._ledger, self._book, self._feedback, self._records)
        self._admin = Admin(self._context, runtime.admin_recorder, report=self._report)
        self._writeback = WriteBack(
            registry,
            self._book,
            self._reader,
            MetricLog(settings.recorder.metric_log_file),
            settings.recorder,
            ledger=self._ledger.identity,
            parked=lambda: self._feedback.parked,
            publish=self._events.put,
            hand_over=self._committer.hand_over,
            clock=now_ms,
        )
        self._retention = Retention(
            self._reader,
            settings.retention,
            folder=settings.export_folder,
            hand_over=self._committer.hand_over,
            clock=now_ms,
        )
        self._halts = HaltEvents(settings.storage_root, registry, publish=self._events.put)
        self._ops = self._serve_ops(settings.ops)
        self._schedule = Schedule()
        self._schedule.every(settings.recorder.writeback_seconds, self._writeback.write_changed)
        self._schedule.every(settings.recorder.metric_log_seconds, self._writeback.log_all)
        self._schedule.every(settings.retention.check_seconds, self._retention.apply)

    def run(self) -> int:
        """Load the book, say ready, record until told to stop, then drain and write back."""
        os.nice(NICENESS)
        self._turn()
        self._schedule.start()
        self._halts.start()
        poller = zmq.Poller()
        for socket in self._sockets:
            poller.register(socket, zmq.POLLIN)
        self._lifeline.ready()
        while not (self._signals.end or self._lifeline.is_cut):
            poller.poll(POLL_MS)
            self._turn()
            self._events.service(time.monotonic())
            self._schedule.watch()
            self._admin.service()
            self._doors.service(time.monotonic())
            self._health.turned()
            self._lifeline.beat(time.monotonic())
            if self._signals.take_hangup():
                self._schedule.soon(self._writeback.write_changed)
            if self._gate is not None:
                self._gate.service()
        self._drain(poller)
        self._halts.stop()
        self._schedule.stop()
        self._writeback.close()
        self._turn()
        self._close()
        return 0

    def _open(
        self, kind: int, endpoint: str, operation: Operation | None = None
    ) -> zmq.Socket[bytes]:
        """Open a socket for bots' use of an operation, or without one for ourselves."""
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.linger = LINGER_MS
        socket.maxmsgsize = self._settings.serving.max_tensor_bytes
        mode = OWNER_ONLY if operation is None else self._settings.security.ipc_permissions
        if operation is not None and self._gate is not None:
            self._gate.secure(socket, operation)
        try:
            self._doors.open(socket, endpoint, name=operation or "records", mode=mode)
        except EndpointInUse:
            socket.close()
            raise
        return socket

    def _open_events(self) -> zmq.Socket[bytes]:
        """Open the events' socket; with a gate, each subscription is decided on."""
        socket = self._open(zmq.XPUB, self._settings.endpoints.events, "events")
        if self._gate is not None:
            socket.setsockopt(zmq.XPUB_MANUAL, 1)
            socket.setsockopt(zmq.XPUB_VERBOSER, 1)
        return socket

    def _serve_ops(self, settings: OpsSettings) -> OpsServer | None:
        if not settings.listen:
            return None
        gauges = Gauges(
            outcomes=lambda: dict(self._feedback.counts),
            commits=lambda: self._committer.seconds,
            failed_turns=lambda: self._committer.failures,
            writeback_age_s=lambda: self._writeback.age_s,
            dropped=lambda: self._records.dropped,
            parked=lambda: self._feedback.parked,
            events=lambda: self._events.sequence,
            refused=lambda: 0 if self._gate is None else self._gate.refused,
        )
        collector = LiveMetrics(self._book, gauges, self._health)
        return OpsServer(settings.listen, collector, self._health, token=settings.token())

    def _turn(self) -> bool:
        """Store all that waits in one transaction; return whether there was anything."""
        requests = self._intake.receive()
        if not (self._records.receive() or requests or self._committer.has_chores):
            return False
        try:
            self._commit(requests)
        except CannotStore as error:
            self._refuse(requests, reason=str(error))
            return False
        except Exception:
            log.exception("turn_failed", requests=len(requests))
            self._records.drop()
            self._one_by_one(requests)
        return True

    def _commit(self, requests: Sequence[Request]) -> None:
        """Store requests and records in one transaction, then acknowledge."""
        told = [(each, each.message) for each in requests if isinstance(each.message, Told)]
        acks, arrivals = self._committer.commit([message for _, message in told])
        self._records.confirm()
        for (request, _), ack in zip(told, acks, strict=True):
            self._intake.reply(request, ack)
        self._answer_questions(requests)
        self._publish(arrivals)

    def _one_by_one(self, requests: Sequence[Request]) -> None:
        """Give each request its own transaction, so that only the one at fault is refused."""
        for request in requests:
            try:
                self._commit([request])
            except CannotStore as error:
                self._refuse([request], reason=str(error))
            except Exception as error:  # noqa: BLE001 - whatever fails, the bot gets an answer
                text = f"{type(error).__name__}: {error}"
                refusal = Error(id=request.message.id, code="internal", message=text)
                self._intake.reply(request, refusal)

    def _refuse(self, requests: Sequence[Request], *, reason: str) -> None:
        """Nothing of this turn is stored: have the bots and the serving process send it again."""
        self._records.drop()
        details = {"reason": reason, "retry_after_ms": RETRY_AFTER_MS}
        for request in requests:
            if isinstance(request.message, Told):
                ack = Ack(id=request.message.id, status="retry", details=details)
                self._intake.reply(request, ack)
        self._answer_questions(requests)

    def _answer_questions(self, requests: Sequence[Request]) -> None:
        """Answer what changes nothing, whether or not anything can be stored."""
        for request in requests:
            if not isinstance(request.message, Told):
                self._intake.reply(request, self._answer(request.message))

    def _answer(self, message: Message) -> Message:
        if isinstance(message, Ping):
            return Pong(id=message.id, server_time=now_ms(), ready=True)
        return Ack(id=message.id, status="recorded", details=self._events.snapshot())

    def _publish(self, arrivals: Arrivals) -> None:
        for event in arrivals.events:
            self._events.publish(event.topic, event.body)
            if event.body.get("state") == "unloaded":
                self._schedule.soon(self._writeback.write_changed)

    def _drain(self, poller: zmq.Poller) -> None:
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline and poller.poll(0):
            if not self._turn():
                break

    def _close(self) -> None:
        self._admin.close()
        if self._ops is not None:
            self._ops.close()
        self._doors.close()
        self._events.close()
        for socket in self._sockets:
            socket.close()
        if self._gate is not None:
            self._gate.stop()
        self._reader.close()
        self._ledger.close()
        self._context.term()

    def _report(self) -> dict[str, Any]:
        committer = self._committer
        return {
            "process": "recorder",
            "pid": os.getpid(),
            "started_at": self._started_at,
            "ledger": self._ledger.database.shown,
            "turns": committer.turns,
            "failed_turns": committer.failures,
            "commit": committer.seconds.summary(),
            "events": self._events.sequence,
            "parked": self._feedback.parked,
            "undeliverable": self._intake.undeliverable,
            "writeback_age_s": self._writeback.age_s,
            "writeback_took_s": self._writeback.took_s,
            "builds": self._book.builds(),
            "keys_revision": None if self._gate is None else self._gate.ring.revision,
            "degraded": self._degraded(),
        }

    def _degraded(self) -> list[str]:
        """Return every reason why not all is as it should be."""
        failure, aside = self._committer.failure, self._ledger.set_aside
        reasons = [] if failure is None else [f"the ledger cannot be written: {failure}"]
        if aside is not None:
            reasons.append(f"a corrupt ledger ({aside.problem}) was set aside: {aside.file}")
        if self._doors.is_full:
            reasons.append("the recorder refuses new connections: every descriptor is in use")
        if self._gate is not None and self._gate.problem is not None:
            reasons.append(self._gate.problem)
        return reasons + self._writeback.problems


def run(settings: Settings, lifeline: int) -> int:
    """Run the recorder to its end; returns the exit code."""
    return RecorderProcess(settings, Lifeline(lifeline)).run()
