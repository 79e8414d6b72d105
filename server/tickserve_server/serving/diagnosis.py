"""Says what is wrong with a request that cannot be decoded, as exactly as can be seen."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tickserve_client.codec import is_json, peek
from tickserve_client.messages import Error

OPERATIONS = frozenset({"predict", "hello", "ping", "models", "describe"})
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def diagnose(reason: str, body: Sequence[bytes]) -> Error:
    """Return the error that answers an undecodable request; `reason` is the decoder's."""
    op, request_id = peek(body[0]) if body else (None, None)
    if op is not None and op not in OPERATIONS:
        return Error(
            id=request_id,
            code="unknown_op",
            message=f"no operation is called {op!r}",
            details={"op": op, "known": sorted(OPERATIONS)},
        )
    wrong = _not_numbers(body[0]) if body else []
    return Error(
        id=request_id,
        code="malformed",
        message=f"{reason} ({', '.join(wrong)})" if wrong else reason,
        details={"features": wrong} if wrong else {},
    )


def _not_numbers(body: bytes) -> list[str]:
    """Name the features of an unreadable request whose value is no number."""
    try:
        document = msgspec.json.decode(body) if is_json(body) else msgspec.msgpack.decode(body)
        features = document["features"].items()
    except (*UNREADABLE, TypeError, LookupError, AttributeError):
        return []
    return [
        str(name)
        for name, value in features
        if isinstance(value, bool) or not isinstance(value, int | float | None)
    ]
