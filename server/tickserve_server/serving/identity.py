"""Prediction ids: UUID version 7 (RFC 9562), increasing within one process."""

from __future__ import annotations

import secrets

COUNTER_LIMIT = 1 << 42


class PredictionIds:
    """Makes time-ordered ids: 48 bits of milliseconds, a counter, and 32 random bits.

    The random bits are drawn once a process, the counter keeps ids apart within it (RFC 9562,
    section 6.2, method 1 with a dedicated counter).
    """

    def __init__(self) -> None:
        self._random = f"{secrets.randbits(32):08x}"
        self._counter = secrets.randbits(40)

    def next(self, now_ms: int) -> str:
        """Return the next id, stamped with the time in milliseconds since the epoch."""
        counter = self._counter = (self._counter + 1) % COUNTER_LIMIT
        stamp = f"{now_ms:012x}"
        high = counter >> 30
        middle = 0x8000 | (counter >> 16 & 0x3FFF)
        return (
            f"{stamp[:8]}-{stamp[8:12]}-7{high:03x}-{middle:04x}-"
            f"{counter & 0xFFFF:04x}{self._random}"
        )
