"""A request that is refused: the protocol's error code, a sentence and the data behind it."""

from __future__ import annotations

from typing import Any

from tickserve_client.messages import Error, ErrorCode


class Refusal(Exception):
    """Raised anywhere below the responder; becomes the typed error that the bot receives."""

    def __init__(self, code: ErrorCode, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.message = message
        self.details = details

    def reply(self, request_id: str | int | None) -> Error:
        """Return the error message that answers the request with this id."""
        return Error(id=request_id, code=self.code, message=self.message, details=self.details)
