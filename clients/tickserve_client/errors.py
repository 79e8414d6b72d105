"""The client's error tree.

ClientError
├── RequestTimeout     no reply within the timeout; the request may be sent again
├── ConnectionFailed   nobody listens at the endpoint
├── KeyFileUnreadable  a key file is missing or holds no keys
├── ProtocolError      a message that breaks the wire protocol
└── ServerError        the daemon answered with a typed error (`code`, `details`)
"""

from __future__ import annotations

from typing import Any


class ClientError(Exception):
    """Base of everything that the client raises on purpose."""


class RequestTimeout(ClientError):
    """No reply came within the timeout."""

    def __init__(self, *, op: str, endpoint: str, seconds: float) -> None:
        super().__init__(
            f"no reply to {op!r} from {endpoint} within {seconds:g} s: is the daemon running? "
            "(check with: tickserve ping)"
        )
        self.op = op
        self.endpoint = endpoint
        self.seconds = seconds


class ConnectionFailed(ClientError):
    """Nobody listens at the endpoint, so the request was not even queued."""

    def __init__(self, *, op: str, endpoint: str, seconds: float) -> None:
        super().__init__(
            f"nobody listens at {endpoint} ({op!r} waited {seconds:g} s): start the daemon with "
            "`tickserve serve`, or check the endpoint and, where it asks for keys, yours"
        )
        self.op = op
        self.endpoint = endpoint
        self.seconds = seconds


class KeyFileUnreadable(ClientError):
    """A key file that cannot be used."""

    def __init__(self, *, path: str, reason: str) -> None:
        super().__init__(
            f"key file {path}: {reason}; the daemon's operator makes one with: "
            "tickserve keys new NAME"
        )
        self.path = path
        self.reason = reason


class ProtocolError(ClientError):
    """A message that cannot be read; `reason` says what is wrong and where."""

    def __init__(
        self, reason: str, *, op: str | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.op = op
        self.request_id = request_id


class ServerError(ClientError):
    """The daemon refused the request; `code` is one of the protocol's error codes."""

    def __init__(self, *, code: str, message: str, details: dict[str, Any]) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.details = details
