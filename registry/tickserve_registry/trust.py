"""What may be loaded although it can run code; decided by whoever opens a registry."""

from __future__ import annotations

from typing import NamedTuple


class Trust(NamedTuple):
    """Whether pickles may be loaded at all, and further types that scikit-learn models may hold."""

    allow_pickle: bool = False
    trusted_types: tuple[str, ...] = ()


UNTRUSTING = Trust()
