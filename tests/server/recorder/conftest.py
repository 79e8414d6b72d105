"""A recorder over a fresh ledger, on each database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.recording import Recorder


@pytest.fixture
def recorder(ledger_url: str) -> Iterator[Recorder]:
    """Return a recorder in the test's own thread."""
    with Recorder(ledger_url) as made:
        yield made
