"""Answers libzmq's question whether a key may connect (ZeroMQ authentication protocol, RFC 27)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

import structlog
import zmq
from zmq.utils import z85

log = structlog.get_logger(__name__)

ENDPOINT = "inproc://zeromq.zap.01"
VERSION = b"1.0"
MECHANISM = b"CURVE"
FRAMES = 7
KEY_BYTES = 32
WAIT_MS = 100
KEY_SHOWN = 8


class Verdict(NamedTuple):
    """Whether a key may connect to a domain; `name` is whose it is, as far as known."""

    accepted: bool
    name: str
    reason: str


class ZapHandler:
    """A thread beside the sockets of one context.

    `judge` gets the domain and the public key as Z85 text, which also becomes the User-Id of the
    connection's messages. While the thread is dead libzmq refuses everybody, since the domains
    are enforced; it is started again by whoever looks at `is_alive`.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], judge: Callable[[str, str], Verdict]
    ) -> None:
        self._context = context
        self._judge = judge
        self._stopping = threading.Event()
        self._thread = self._made()
        self.refused = 0

    @property
    def is_alive(self) -> bool:
        """Whether keys can be judged."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Judge from now on; a thread that has died is replaced."""
        if self._thread.ident is not None:
            self._thread = self._made()
        self._thread.start()

    def stop(self) -> None:
        """Judge no more: nobody can connect from now on."""
        self._stopping.set()
        self._thread.join()

    def _made(self) -> threading.Thread:
        return threading.Thread(target=self._run, name="zap", daemon=True)

    def _run(self) -> None:
        with self._context.socket(zmq.REP) as socket:
            socket.linger = 0
            socket.rcvtimeo = WAIT_MS
            socket.bind(ENDPOINT)
            while not self._stopping.is_set():
                try:
                    request = socket.recv_multipart()
                except zmq.Again:
                    continue
                socket.send_multipart(self._answer(request))

    def _answer(self, request: list[bytes]) -> list[bytes]:
        if len(request) != FRAMES or request[0] != VERSION:
            return [VERSION, b"", b"500", b"not understood", b"", b""]
        _, request_id, domain, address, _, mechanism, credentials = request
        if mechanism != MECHANISM or len(credentials) != KEY_BYTES:
            verdict, key = Verdict(False, "", "not CURVE"), ""
        else:
            key = z85.encode(credentials).decode()
            verdict = self._judge(domain.decode(errors="replace"), key)
        if not verdict.accepted:
            self.refused += 1
            log.warning(
                "connection_refused",
                address=address.decode(errors="replace"),
                domain=domain.decode(errors="replace"),
                key=key[:KEY_SHOWN],
                name=verdict.name,
                reason=verdict.reason,
            )
            return [VERSION, request_id, b"400", verdict.reason.encode(), b"", b""]
        return [VERSION, request_id, b"200", b"OK", key.encode(), b""]
