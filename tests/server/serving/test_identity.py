"""Prediction ids are UUIDs of version 7."""

from __future__ import annotations

import uuid

from tickserve_server.serving.identity import PredictionIds


def test_ids_are_version_7_unique_and_stamped() -> None:
    """Each id is a valid UUIDv7 whose first 48 bits are the time given."""
    ids, now = PredictionIds(), 1_742_913_000_041
    made = [ids.next(now) for _ in range(10_000)]
    assert len(set(made)) == len(made)
    for text in made[:100]:
        parsed = uuid.UUID(text)
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
        assert parsed.int >> 80 == now
        assert str(parsed) == text
