"""Bytes on one side, message structs on the other: JSON and MessagePack, envelopes, times."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

from tickserve_client.errors import ProtocolError
from tickserve_client.messages import FeedbackRequest, PredictRequest, Reply, Time

T = TypeVar("T")

OPENING_BRACE = b"{"
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MILLISECOND = dt.timedelta(milliseconds=1)
LATEST_MS = 100_000_000 * 86_400_000
"""A hundred million days from the epoch, the range of time values in ECMAScript."""


class Decoder(Generic[T]):
    """Decodes one union of messages from either codec.

    Raises ProtocolError whose `reason` names the field, and whose `op` and `request_id` are
    those of the message as far as they can be read, so that an error can be answered by id.
    """

    def __init__(self, kind: Any) -> None:
        self._json: msgspec.json.Decoder[T] = msgspec.json.Decoder(kind)
        self._msgpack: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(kind)

    def decode(self, body: bytes) -> tuple[T, bool]:
        """Return the message and whether it came as JSON."""
        as_json = body[:1] == OPENING_BRACE
        try:
            return (self._json if as_json else self._msgpack).decode(body), as_json
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            op, request_id = peek(body)
            raise ProtocolError(str(error), op=op, request_id=request_id) from error


def predict_decoder() -> Decoder[PredictRequest]:
    """Decoder of everything that the predict endpoint accepts."""
    return Decoder(PredictRequest)


def feedback_decoder() -> Decoder[FeedbackRequest]:
    """Decoder of everything that the feedback endpoint accepts."""
    return Decoder(FeedbackRequest)


def reply_decoder() -> Decoder[Reply]:
    """Decoder of everything that a daemon answers."""
    return Decoder(Reply)


class Encoder:
    """Encodes any message in either codec; the reply uses the request's."""

    def __init__(self) -> None:
        self._json = msgspec.json.Encoder()
        self._msgpack = msgspec.msgpack.Encoder()

    def encode(self, message: object, *, as_json: bool) -> bytes:
        """Return the message's bytes; JSON or MessagePack."""
        return (self._json if as_json else self._msgpack).encode(message)


def is_json(body: bytes) -> bool:
    """Whether a body is meant as JSON: its first byte is an opening brace."""
    return body[:1] == OPENING_BRACE


class _Peek(msgspec.Struct):
    """The two fields that let a refusal be matched to its request."""

    op: Any = None
    id: Any = None


def peek(body: bytes) -> tuple[str | None, Any]:
    """Read `op` and `id` from a message that failed to decode, as far as it can be read."""
    try:
        seen = (
            msgspec.json.decode(body, type=_Peek)
            if is_json(body)
            else msgspec.msgpack.decode(body, type=_Peek)
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None, None
    op = seen.op if isinstance(seen.op, str) else None
    return op, seen.id if isinstance(seen.id, str | int) else None


def split_envelope(frames: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Split what a ROUTER received into envelope and body frames.

    If any frame after the routing id is empty, the envelope ends at the first empty one;
    otherwise it is the routing id alone. The envelope is echoed unchanged.
    """
    for index in range(1, len(frames)):
        if not frames[index]:
            return list(frames[: index + 1]), list(frames[index + 1 :])
    return list(frames[:1]), list(frames[1:])


def milliseconds(value: Time) -> int:
    """Read a time: milliseconds since the epoch, or RFC 3339 with an offset.

    Raises ProtocolError for text that is no time and for a naive time, which is refused
    because nobody can know what it means.
    """
    if isinstance(value, int):
        if abs(value) > LATEST_MS:
            raise ProtocolError(f"{value} is no time in milliseconds since the epoch")
        return value
    try:
        parsed = dt.datetime.fromisoformat(value)
    except ValueError as error:
        raise ProtocolError(f"{value!r} is not an RFC 3339 time") from error
    if parsed.tzinfo is None:
        raise ProtocolError(
            f"{value!r} is a naive time: add an offset such as Z, or send milliseconds (UTC)"
        )
    return (parsed - EPOCH) // MILLISECOND
