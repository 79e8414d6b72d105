"""The serving process's one ZeroMQ loop: receive, answer, send; everything else between."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import zmq

from tickserve_client.codec import split_envelope
from tickserve_server.serving.answer import Answer, Job
from tickserve_server.serving.bookkeeper import Bookkeeper
from tickserve_server.serving.jobs import JobPool
from tickserve_server.serving.responder import Responder

IDLE_MS = 20
HOUSEKEEPING_S = 0.005
COLLECT_S = 1.0
NOBLOCK_MORE = zmq.NOBLOCK | zmq.SNDMORE


class ServingLoop:
    """Blocks on the predict socket itself, which costs no poll, and sends each reply at once.

    Counting and records come after the send, while the reply travels. `spin_us` polls that long
    before it blocks: a core for a shorter wake-up. `housekeeping` is called with monotonic
    seconds at least every `IDLE_MS` while idle and about every `HOUSEKEEPING_S` under load; it
    returns whether to go on.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        responder: Responder,
        bookkeeper: Bookkeeper,
        jobs: JobPool,
        *,
        spin_us: int,
        housekeeping: Callable[[float], bool],
    ) -> None:
        self._socket = socket
        self._responder = responder
        self._bookkeeper = bookkeeper
        self._jobs = jobs
        self._spin_s = spin_us / 1e6
        self._housekeeping = housekeeping
        self._collected_at = 0.0
        self.turns = 0
        self.undeliverable = 0
        socket.rcvtimeo = IDLE_MS
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(jobs.fd, zmq.POLLIN)

    def run(self) -> None:
        """Serve until housekeeping says stop."""
        monotonic = time.monotonic
        receive = self._receive if not self._spin_s else self._spin
        due = 0.0
        while True:
            self.turns += 1
            if self._jobs.under_way:
                idle = not self._serve_beside_jobs()
            else:
                try:
                    self._take(receive())
                    idle = False
                except zmq.Again:
                    idle = True
            now = monotonic()
            if idle or now >= due:
                if not self._housekeeping(now):
                    return
                self._collect(now, idle=idle)
                due = now + HOUSEKEEPING_S

    def drain(self, deadline: float) -> None:
        """Answer what already waits or is under way, until monotonic `deadline` at most."""
        while time.monotonic() < deadline:
            if not self._serve_beside_jobs(0) and not self._jobs.under_way:
                return

    def _serve_beside_jobs(self, timeout_ms: int = IDLE_MS) -> bool:
        """Send what jobs have answered and take one request; return whether there was any."""
        self._poller.poll(timeout_ms)
        for envelope, answer in self._jobs.finished():
            self._send(envelope, answer)
        try:
            self._take(self._receive(zmq.NOBLOCK))
        except zmq.Again:
            return False
        return True

    def _receive(self, flags: int = 0) -> list[bytes]:
        """Receive one message; a ROUTER's has at least a routing id and one frame."""
        socket = self._socket
        frames = [socket.recv(flags), socket.recv()]
        while socket.get(zmq.RCVMORE):
            frames.append(socket.recv())
        return frames

    def _spin(self) -> list[bytes]:
        """Receive like `_receive`, polling for a while before blocking."""
        until = time.perf_counter() + self._spin_s
        while time.perf_counter() < until:
            try:
                return self._receive(zmq.NOBLOCK)
            except zmq.Again:
                continue
        return self._receive()

    def _take(self, frames: list[bytes]) -> None:
        envelope, body = split_envelope(frames)
        answer = self._responder.respond(body)
        if isinstance(answer, Job):
            declined = self._jobs.submit(envelope, answer)
            if declined is None:
                return
            answer = declined
        self._send(envelope, answer)

    def _send(self, envelope: list[bytes], answer: Answer) -> None:
        send, frames = self._socket.send, answer.frames
        try:
            for frame in envelope:
                send(frame, NOBLOCK_MORE)
            for frame in frames[:-1]:
                send(frame, NOBLOCK_MORE)
            send(frames[-1], zmq.NOBLOCK)
        except zmq.Again:
            self.undeliverable += 1
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self.undeliverable += 1
        self._bookkeeper.settle(answer)

    def _collect(self, now: float, *, idle: bool) -> None:
        """Collect garbage when idle, or once a second under load; never at a random request."""
        if now - self._collected_at > COLLECT_S:
            gc.collect(1 if idle else 0)
            self._collected_at = now
