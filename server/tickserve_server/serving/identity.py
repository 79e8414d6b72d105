"""Prediction ids: UUID version 7 (RFC 9562), increasing within one process."""

from __future__ import annotations

import itertools
import secrets


class PredictionIds:
    """Makes time-ordered ids: 48 bits of milliseconds, a counter, and 32 random bits.

    The random bits are drawn once a process, the counter keeps ids apart within it (RFC 9562,
    section 6.2, method 1 with a dedicated counter).
    """

    def __init__(self) -> None:
        self._random = f"{secrets.randbits(32):08x}"
        self._counts = itertools.count(secrets.randbits(40))
        self._middle = -1, ""

    def next(self, now_ms: int) -> str:
        """Return the next id, stamped with the time in milliseconds since the epoch.

        Any thread may call; `count` hands each number out once.
        """
        counter = next(self._counts)
        known, middle = self._middle
        if known != counter >> 16:
            known, middle = self._middle = counter >> 16, _middle(counter >> 16)
        low = counter & 0xFFFF
        return f"{now_ms >> 16:08x}-{now_ms & 0xFFFF:04x}-{middle}-{low:04x}{self._random}"


def _middle(high: int) -> str:
    """Return version and variant around the upper 26 bits of the counter."""
    return f"7{high >> 14 & 0xFFF:03x}-{0x8000 | high & 0x3FFF:04x}"
