"""Half a minute (ten) of random `kill -9` on recorder and bots, a fifth of the acks lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.kill_storm import storm

SECONDS = 30.0
MANY_SECONDS = 600.0


def test_every_outcome_is_counted_once(
    tmp_path: Path, long: bool, figure: Callable[[str], None]
) -> None:
    """Acknowledged ⊆ ledger after the last kill; in the end all is there once, sums and figures."""
    counts = storm(tmp_path, seconds=MANY_SECONDS if long else SECONDS, seed=3)
    figure(
        f"{counts.recorder_kills} kills of the recorder, {counts.bot_kills} of bots, "
        f"{counts.acknowledged} acknowledged: {counts.missing} missing, {counts.wrong} wrong, "
        f"pnl off by {counts.pnl_difference:g}"
    )
    assert counts.recorder_kills >= 3
    assert counts.bot_kills >= 3
    assert counts.acknowledged >= 300
    assert (counts.missing, counts.wrong, counts.figures_differ) == (0, 0, 0)
    assert counts.pnl_difference == 0.0
