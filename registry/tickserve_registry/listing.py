"""The registry as a pandas DataFrame: one row for each build, with its figures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from tickserve_registry.catalog import Entry

FIGURES = ("sharpe_ratio", "max_drawdown", "win_rate", "profit_factor")
PHASES = ("backtest", "validation", "live")
COLUMNS = (
    "model_id",
    "build",
    "market",
    "timeframe",
    "model_type",
    "strategy",
    "version",
    "date",
    "status",
    "environment",
    "created_at",
    "framework",
    "file_path",
    "metadata_path",
)


def frame_of(rows: Iterable[tuple[Entry, dict[str, Any]]]) -> pd.DataFrame:
    """Return entries and their metadata documents as a frame; missing figures are NaN."""
    records = [
        {name: getattr(entry, name) for name in COLUMNS} | _figures(document)
        for entry, document in rows
    ]
    figures = [f"{phase}_{figure}" for phase in PHASES for figure in FIGURES]
    frame = pd.DataFrame(records, columns=[*COLUMNS, *figures])
    return frame.astype(dict.fromkeys(figures, float))


def _figures(document: dict[str, Any]) -> dict[str, Any]:
    performance = document.get("performance") or {}
    return {
        f"{phase}_{figure}": (performance.get(phase) or {}).get(figure)
        for phase in PHASES
        for figure in FIGURES
    }
