"""Versions and strategies side by side: what was promised, what was seen, what is left of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tickserve_registry.catalog import Entry
from tickserve_registry.listing import FIGURE_COLUMNS, FIGURES, PHASES, figures_of, number_of
from tickserve_registry.performance import comparability

if TYPE_CHECKING:
    import pandas as pd

COUNTED = ("n_trades", "net_pnl")
STEPS = (("backtest", "validation"), ("validation", "live"))


def compare(builds: Sequence[tuple[Entry, dict[str, Any], str | None]]) -> pd.DataFrame:
    """Return one row for each build, indexed by build, best live Sharpe first.

    A build comes with its metadata, or with none and the reason.

    Columns: model_id, environment; the four figures, n_trades and net_pnl of each phase;
    `validation_sharpe_decay` = 1 − validation/backtest and `live_sharpe_decay` =
    1 − live/validation (None unless the earlier Sharpe is positive: nothing else can decay);
    `comparable` and `not_comparable_reasons`, whether live and validation share a convention.
    """
    rows = [_row(*each) for each in builds]
    columns = ["build", "model_id", "environment", *_figure_columns(), *_decay_columns()]
    import pandas as pd

    frame = pd.DataFrame(rows, columns=[*columns, "comparable", "not_comparable_reasons"])
    numbers = [*_figure_columns(), *_decay_columns()]
    frame = frame.astype(dict.fromkeys(numbers, float)).set_index("build")
    order = ["live_sharpe_ratio", "validation_sharpe_ratio"]
    return frame.sort_values(order, ascending=False, na_position="last", kind="stable")


def _row(entry: Entry, document: dict[str, Any], problem: str | None) -> dict[str, Any]:
    figures = dict(zip(FIGURE_COLUMNS, figures_of(document), strict=True))
    blocks = {phase: block_of(document, phase) for phase in PHASES}
    counts = {f"{p}_{name}": number_of(blocks[p].get(name)) for p in PHASES for name in COUNTED}
    decay = {
        f"{later}_sharpe_decay": _decay(
            figures[f"{earlier}_sharpe_ratio"], figures[f"{later}_sharpe_ratio"]
        )
        for earlier, later in STEPS
    }
    return {
        "build": entry.build,
        "model_id": entry.model_id,
        "environment": entry.environment,
        **figures,
        **counts,
        **decay,
        **_comparability(blocks, problem),
    }


def _comparability(blocks: dict[str, dict[str, Any]], problem: str | None) -> dict[str, Any]:
    if problem is not None:
        return {"comparable": False, "not_comparable_reasons": [problem]}
    if not blocks["live"]:
        return {"comparable": False, "not_comparable_reasons": ["there are no live figures"]}
    return comparability(blocks["live"], blocks["validation"])


def _decay(earlier: float | None, later: float | None) -> float | None:
    if earlier is None or later is None or earlier <= 0:
        return None
    return 1 - later / earlier


def block_of(document: dict[str, Any], phase: str) -> dict[str, Any]:
    """Return a phase of a document's performance; empty where there is none."""
    performance = document.get("performance")
    block = performance.get(phase) if isinstance(performance, dict) else None
    return block if isinstance(block, dict) else {}


def _figure_columns() -> list[str]:
    return [f"{phase}_{name}" for phase in PHASES for name in (*FIGURES, *COUNTED)]


def _decay_columns() -> list[str]:
    return [f"{later}_sharpe_decay" for _, later in STEPS]
