"""A minute of random `kill -9` on recorder and bots, a fifth of the acknowledgements lost."""

from __future__ import annotations

from pathlib import Path

from benchmarks.kill_storm import storm

SECONDS = 45.0
"""With the start before it and the end after it, a minute."""


def test_every_outcome_is_counted_once(tmp_path: Path) -> None:
    """Acknowledged ⊆ ledger after the last kill; in the end all is there once, sums and figures."""
    counts = storm(tmp_path, seconds=SECONDS, seed=3)
    print(counts)  # noqa: T201 - the counts are the result
    assert counts.recorder_kills >= 3
    assert counts.bot_kills >= 3
    assert counts.acknowledged >= 500
    assert (counts.missing, counts.wrong, counts.figures_differ) == (0, 0, 0)
    assert counts.pnl_difference == 0.0
