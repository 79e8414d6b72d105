"""The serving process's one ZeroMQ loop: receive, answer, send; everything else between."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import zmq

from tickserve_client.codec import split_envelope
from tickserve_server.access.gate import Gate
from tickserve_server.access.grant import Grant
from tickserve_server.serving.answer import Answer, Job
from tickserve_server.serving.bookkeeper import Bookkeeper
from tickserve_server.serving.jobs import JobPool
from tickserve_server.serving.responder import Responder

IDLE_MS = 20
HOUSEKEEPING_S = 0.005
COLLECT_S = 1.0
NOBLOCK = int(zmq.NOBLOCK)
NOBLOCK_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


class ServingLoop:
    """Blocks on the predict socket itself, which costs no poll, and sends each reply at once.

    Counting and records come after the send, while the reply travels. `turns` counts rounds,
    `answered` short requests; `answered_at` is about when (monotonic) the last of them was.

    `spin_us` polls that long before it blocks: a core for a shorter wake-up. `housekeeping` is
    called with monotonic seconds at least every `IDLE_MS` while idle and about every
    `HOUSEKEEPING_S` under load; it returns whether to go on. `gate` tells what the key of a
    message's sender allows, where keys are asked for.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        responder: Responder,
        bookkeeper: Bookkeeper,
        jobs: JobPool,
        *,
        gate: Gate | None,
        spin_us: int,
        housekeeping: Callable[[float], bool],
    ) -> None:
        self._receive = socket.recv
        # The method of the base class: what pyzmq's own adds is for other types of sockets.
        self._send = super(zmq.Socket, socket).send
        self._responder = responder
        self._grant_of = None if gate is None else gate.grant_of
        self._bookkeeper = bookkeeper
        self._jobs = jobs
        self._spin_s = spin_us / 1e6
        self._housekeeping = housekeeping
        self._collected_at = 0.0
        self.turns = self.answered = 0
        self.answered_at = 0.0
        self.undeliverable = 0
        socket.rcvtimeo = IDLE_MS
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(jobs.fd, zmq.POLLIN)

    def run(self) -> None:
        """Serve until housekeeping says stop."""
        monotonic = time.monotonic
        serve = self._spin if self._spin_s else self._serve
        due, answered = 0.0, 0
        while True:
            self.turns += 1
            busy = self._serve_beside_jobs() if self._jobs.under_way else serve()
            now = monotonic()
            if not busy or now >= due:
                if self.answered != answered:
                    answered, self.answered_at = self.answered, now
                if not self._housekeeping(now):
                    return
                self._collect(now, idle=not busy)
                due = now + HOUSEKEEPING_S

    def drain(self, deadline: float) -> None:
        """Answer what already waits or is under way, until monotonic `deadline` at most."""
        while time.monotonic() < deadline:
            if not self._serve_beside_jobs(0) and not self._jobs.under_way:
                return

    def _serve(self, flags: int = 0) -> bool:
        """Take one request and answer it, or hand it over; return whether there was any.

        A message of a DEALER, a routing id and one frame without a delimiter, goes straight
        through. That frame is asked itself whether more follow: the socket's own option costs
        as much as a whole receive.
        """
        receive = self._receive
        try:
            client = receive(flags)
        except zmq.Again:
            return False
        frame = receive(0, False)
        head = frame.bytes
        grant = None if self._grant_of is None else self._grant_of(frame)
        if frame.more or not head:
            return self._serve_frames([client, head, *self._rest(frame.more)], grant)
        answer = self._responder.respond((head,), grant)
        if type(answer) is not Answer or len(answer.frames) != 1:
            return self._deliver([client], answer)
        try:
            self._send(client, NOBLOCK_MORE)
            self._send(answer.frames[0], NOBLOCK)
        except zmq.ZMQError as error:
            self._undelivered(error)
        self._bookkeeper.settle(answer)
        self.answered += 1
        return True

    def _rest(self, more: bool) -> list[bytes]:
        """Receive the frames that follow in a message."""
        frames = []
        while more:
            frame = self._receive(0, False)
            frames.append(frame.bytes)
            more = frame.more
        return frames

    def _serve_frames(self, frames: list[bytes], grant: Grant | None) -> bool:
        envelope, body = split_envelope(frames)
        return self._deliver(envelope, self._responder.respond(body, grant))

    def _deliver(self, envelope: list[bytes], answer: Answer | Job) -> bool:
        if isinstance(answer, Job):
            declined = self._jobs.submit(envelope, answer)
            if declined is None:
                return True
            answer = declined
        *first, last = envelope + answer.frames
        try:
            for frame in first:
                self._send(frame, NOBLOCK_MORE)
            self._send(last, NOBLOCK)
        except zmq.ZMQError as error:
            self._undelivered(error)
        self._bookkeeper.settle(answer)
        return True

    def _undelivered(self, error: zmq.ZMQError) -> None:
        """Count a reply that nobody can take: its client is gone, or reads nothing."""
        if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
            raise error
        self.undeliverable += 1

    def _serve_beside_jobs(self, timeout_ms: int = IDLE_MS) -> bool:
        """Send what jobs have answered and take one request; return whether there was any."""
        self._poller.poll(timeout_ms)
        for envelope, answer in self._jobs.finished():
            self._deliver(envelope, answer)
        return self._serve(NOBLOCK)

    def _spin(self) -> bool:
        """Serve, polling for a while before blocking."""
        until = time.perf_counter() + self._spin_s
        while time.perf_counter() < until:
            if self._serve(NOBLOCK):
                return True
        return self._serve()

    def _collect(self, now: float, *, idle: bool) -> None:
        """Collect garbage when idle, or once a second under load; never at a random request."""
        if now - self._collected_at > COLLECT_S:
            gc.collect(1 if idle else 0)
            self._collected_at = now
