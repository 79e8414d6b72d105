"""The serving process's one ZeroMQ loop: receive, answer, send; everything else between."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import zmq

from tickserve_client.codec import split_envelope
from tickserve_server.serving.responder import Responder

IDLE_MS = 20
HOUSEKEEPING_S = 0.005
COLLECT_S = 1.0


class ServingLoop:
    """Blocks on the predict socket itself, which costs no poll, and sends each reply at once.

    `housekeeping` is called with monotonic seconds at least every `IDLE_MS` while idle and
    about every `HOUSEKEEPING_S` under load; it returns whether to go on.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        responder: Responder,
        *,
        housekeeping: Callable[[float], bool],
    ) -> None:
        self._socket = socket
        self._responder = responder
        self._housekeeping = housekeeping
        self._collected_at = 0.0
        self.undeliverable = 0
        socket.rcvtimeo = IDLE_MS

    def run(self) -> None:
        """Serve until housekeeping says stop."""
        receive, monotonic = self._socket.recv_multipart, time.monotonic
        due = 0.0
        while True:
            try:
                self._answer(receive())
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
        """Answer what already waits, until monotonic `deadline` at most."""
        while time.monotonic() < deadline:
            try:
                self._answer(self._socket.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return

    def _answer(self, frames: list[bytes]) -> None:
        envelope, body = split_envelope(frames)
        try:
            self._socket.send_multipart(envelope + self._responder.respond(body), zmq.NOBLOCK)
        except zmq.Again:
            self.undeliverable += 1
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self.undeliverable += 1

    def _collect(self, now: float, *, idle: bool) -> None:
        """Collect garbage when idle, or once a second under load; never at a random request."""
        if now - self._collected_at > COLLECT_S:
            gc.collect(1 if idle else 0)
            self._collected_at = now
