"""The feedback endpoint: takes requests off the socket, refuses what is none, sends replies."""

from __future__ import annotations

from typing import Any, NamedTuple

import zmq

from tickserve_client.codec import Encoder, feedback_decoder, is_json, split_envelope
from tickserve_client.errors import ProtocolError
from tickserve_client.messages import (
    PROTOCOL_VERSION,
    Batch,
    Equity,
    Error,
    ErrorCode,
    FeedbackRequest,
    Hello,
    Message,
    Outcome,
    Ping,
)
from tickserve_registry.errors import NameRefused
from tickserve_registry.naming import parse_build
from tickserve_server.access.gate import Gate, Unauthorized, require_model, require_operation
from tickserve_server.access.grant import NOBODY, Grant
from tickserve_server.settings import RecorderSettings

MOST_REQUESTS = 256
MOST_ITEMS = 2_000
"""Feedback taken at a time: it goes into one transaction, which must stay short."""


class Request(NamedTuple):
    """A request with what its reply needs."""

    envelope: list[bytes]
    as_json: bool
    message: FeedbackRequest


class _Refused(Exception):
    """A message that is answered with an error at once."""

    def __init__(
        self, code: ErrorCode, message: str, *, request_id: Any = None, **details: Any
    ) -> None:
        super().__init__(message)
        self.error = Error(id=request_id, code=code, message=message, details=details)


class Intake:
    """Owns the feedback socket; never blocks."""

    def __init__(
        self, socket: zmq.Socket[bytes], limits: RecorderSettings, *, gate: Gate | None = None
    ) -> None:
        self._socket = socket
        self._gate = gate
        self._limits = limits
        self._decoder = feedback_decoder()
        self._encoder = Encoder()
        self.undeliverable = 0

    def receive(self) -> list[Request]:
        """Return the requests that wait, at most as many as make a good transaction."""
        requests: list[Request] = []
        items = 0
        while len(requests) < MOST_REQUESTS and items < MOST_ITEMS:
            try:
                received = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            grant = None if self._gate is None else self._gate.grant_of(received[-1])
            envelope, body = split_envelope([frame.bytes for frame in received])
            as_json = bool(body) and is_json(body[0])
            try:
                message = self._decoded(body, grant)
            except _Refused as refused:
                self._send(envelope, refused.error, as_json=as_json)
                continue
            requests.append(Request(envelope, as_json, message))
            items += len(message.items) if isinstance(message, Batch) else 1
        return requests

    def reply(self, request: Request, message: Message) -> None:
        """Answer a request; a peer that has gone is counted."""
        self._send(request.envelope, message, as_json=request.as_json)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _decoded(self, body: list[bytes], grant: Grant | None) -> FeedbackRequest:
        size, most = sum(len(frame) for frame in body), self._limits.max_message_bytes
        if size > most:
            text = f"the message has {size} bytes; {most} are the most"
            raise _Refused("too_large", text, bytes=size, limit=most)
        if len(body) != 1:
            raise _Refused("malformed", f"the message has {len(body)} frames, not one")
        try:
            message, _ = self._decoder.decode(body[0])
        except ProtocolError as error:
            raise _refusal(error) from error
        self._require_sound(message)
        if grant is not None:
            _require_granted(grant, message)
        return message

    def _require_sound(self, message: FeedbackRequest) -> None:
        if message.v != PROTOCOL_VERSION:
            text = f"version {message.v} is not spoken here, {PROTOCOL_VERSION} is"
            versions = [PROTOCOL_VERSION]
            raise _Refused("unsupported_version", text, request_id=message.id, versions=versions)
        most = self._limits.max_items
        if isinstance(message, Batch) and len(message.items) > most:
            items = len(message.items)
            text = f"the batch has {items} items; {most} are the most"
            raise _Refused("too_large", text, request_id=message.id, items=items, limit=most)

    def _send(self, envelope: list[bytes], message: Message, *, as_json: bool) -> None:
        encoded = self._encoder.encode(message, as_json=as_json)
        try:
            self._socket.send_multipart([*envelope, encoded], zmq.NOBLOCK)
        except zmq.ZMQError:
            self.undeliverable += 1


def _require_granted(grant: Grant, message: FeedbackRequest) -> None:
    """Refuse feedback that the sender's key does not allow, a batch as a whole."""
    try:
        if grant is NOBODY or not isinstance(message, Ping):
            require_operation(grant, "feedback")
        for item in message.items if isinstance(message, Batch) else [message]:
            _require_item(grant, item)
    except Unauthorized as error:
        error.note()
        details = error.details
        raise _Refused("unauthorized", str(error), request_id=message.id, **details) from error


def _require_item(grant: Grant, item: FeedbackRequest) -> None:
    """Raise Unauthorized for another bot's feedback, or about a model out of reach.

    A label, or an outcome without a build, names a prediction, whose id only who asked knows.
    """
    if isinstance(item, Hello | Outcome | Equity) and not grant.speaks_for(item.bot or ""):
        raise Unauthorized(grant, f"does not speak for {item.bot!r}", bot=str(item.bot))
    if isinstance(item, Outcome) and item.build is not None and not grant.is_wide:
        try:
            name, _ = parse_build(item.build)
        except NameRefused as error:
            raise Unauthorized(grant, f"does not reach {item.build!r}") from error
        require_model(grant, family=name.family, market=name.market)


def _refusal(error: ProtocolError) -> _Refused:
    return _Refused("malformed", error.reason, request_id=error.request_id)
