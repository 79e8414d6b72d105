"""The protocol's client side without I/O: numbers requests, encodes them, matches replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tickserve_client.codec import Encoder, reply_decoder
from tickserve_client.errors import ProtocolError, ServerError
from tickserve_client.messages import Error, Message, Reply

EVERY_ADDRESS = ("*", "0.0.0.0", "[::]")  # noqa: S104 - read, not listened at


class Session:
    """One connection's worth of protocol state; feed it frames, it never touches a socket."""

    def __init__(self, *, as_json: bool = False) -> None:
        self._as_json = as_json
        self._encoder = Encoder()
        self._decoder = reply_decoder()
        self._count = 0

    def request(self, message: Message) -> tuple[str, bytes]:
        """Give the message the next id and return (id, body)."""
        self._count += 1
        request_id = str(self._count)
        numbered = msgspec.structs.replace(message, id=request_id)
        return request_id, self._encoder.encode(numbered, as_json=self._as_json)

    def match(self, frames: Sequence[bytes], request_id: str) -> Reply | None:
        """Return the reply to `request_id`, or None for a late reply to an earlier request.

        Raises ServerError when the daemon refused, ProtocolError when nothing can be read.
        """
        body = next((frame for frame in frames if frame), None)
        if body is None:
            raise ProtocolError("a reply without a body")
        reply, _ = self._decoder.decode(body)
        if reply.id != request_id:
            return None
        if isinstance(reply, Error):
            raise ServerError(code=reply.code, message=reply.message, details=reply.details)
        return reply


def expect(reply: Reply, kind: type[Any]) -> Any:
    """Return the reply if it is of the kind the request calls for."""
    if not isinstance(reply, kind):
        raise ProtocolError(f"expected {kind.__name__}, the server sent {type(reply).__name__}")
    return reply


def beside(told: str, asked: str) -> str:
    """Return an endpoint that `hello` told of, as reached from where `asked` was reached.

    A daemon that listens on every address tells `*`, `0.0.0.0` or `[::]`: it is the same host.
    """
    host, _, port = told.removeprefix("tcp://").rpartition(":")
    if not told.startswith("tcp://") or host not in EVERY_ADDRESS:
        return told
    return f"{asked.rpartition(':')[0]}:{port}"
