"""What both child processes share: the lifeline to the supervisor, termination, binding."""

from __future__ import annotations

import os
import signal
import socket
from types import FrameType
from typing import Any

import msgspec
import zmq

from tickserve_server.errors import EndpointInUse

BEAT_S = 1.0
OWNER_ONLY = 0o600
"""Who may write to a Unix socket may connect to it."""


class Lifeline:
    """A socket to the supervisor: says ready or failed once, and is cut when it dies."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._beat_at = 0.0

    def ready(self, **facts: Any) -> None:
        """Tell the supervisor that this process answers now."""
        self._tell({"ready": True, **facts})

    def failed(self, reason: str) -> None:
        """Tell the supervisor, in one line, why this process cannot start."""
        self._tell({"ready": False, "reason": reason})

    def beat(self, now: float) -> None:
        """Give a sign of life, at most one each `BEAT_S`; `now` is monotonic."""
        if now - self._beat_at >= BEAT_S:
            self._beat_at = now
            self._tell({"beat": True})

    @property
    def is_cut(self) -> bool:
        """Whether the supervisor is gone."""
        try:
            return self._socket.recv(1) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._socket.sendall(msgspec.json.encode(message) + b"\n")
        except OSError:
            return


class Signals:
    """What was asked for by signals; installs the handlers of the main thread.

    SIGTERM and SIGINT ask for the end, SIGHUP to look at files anew.
    """

    def __init__(self) -> None:
        self.end = False
        self._hangups = self._seen = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        signal.signal(signal.SIGHUP, self._hang_up)

    def take_hangup(self) -> bool:
        """Return whether SIGHUP has come since the last call."""
        came, self._seen = self._hangups != self._seen, self._hangups
        return came

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self.end = True

    def _hang_up(self, _number: int, _frame: FrameType | None) -> None:
        self._hangups += 1


def bind(socket_: zmq.Socket[bytes], endpoint: str, *, name: str, mode: int = OWNER_ONLY) -> None:
    """Bind, or raise EndpointInUse with the reason in words; `mode` is that of an ipc file."""
    umask = os.umask(0o777 & ~mode)
    try:
        socket_.bind(endpoint)
    except zmq.ZMQError as error:
        raise EndpointInUse(name=name, endpoint=endpoint, reason=error.strerror) from error
    finally:
        os.umask(umask)
