"""The feedback endpoint: takes requests off the socket, refuses what is none, sends replies."""

from __future__ import annotations

from typing import Any, NamedTuple

import zmq

from tickserve_client.codec import Encoder, feedback_decoder, is_json, split_envelope
from tickserve_client.errors import ProtocolError
from tickserve_client.messages import (
    PROTOCOL_VERSION,
    Batch,
    Error,
    ErrorCode,
    FeedbackRequest,
    Message,
)
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

    def __init__(self, socket: zmq.Socket[bytes], limits: RecorderSettings) -> None:
        self._socket = socket
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
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            envelope, body = split_envelope(frames)
            as_json = bool(body) and is_json(body[0])
            try:
                message = self._decoded(body)
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

    def _decoded(self, body: list[bytes]) -> FeedbackRequest:
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


def _refusal(error: ProtocolError) -> _Refused:
    return _Refused("malformed", error.reason, request_id=error.request_id)
