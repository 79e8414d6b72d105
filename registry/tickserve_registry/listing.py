"""The registry as a pandas DataFrame: one row for each build, with its figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tickserve_registry.catalog import Entry
from tickserve_registry.document import read_file
from tickserve_registry.errors import RegistryError
from tickserve_registry.layout import Layout
from tickserve_registry.reader import BuildReader
from tickserve_registry.store import Fingerprint, fingerprint_of, is_settled

FIGURES = ("sharpe_ratio", "max_drawdown", "win_rate", "profit_factor")
PHASES = ("backtest", "validation", "live")
FIGURE_COLUMNS = tuple(f"{phase}_{figure}" for phase in PHASES for figure in FIGURES)
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

if TYPE_CHECKING:
    import pandas as pd

_described = attrgetter(*COLUMNS)

Row = tuple[tuple[float, ...], str | None]
"""The figures of a build in the order of FIGURE_COLUMNS, NaN for none, and why there are none."""


class Listing:
    """Makes frames of index entries; reads a metadata file again only when it has changed."""

    def __init__(self, layout: Layout, reader: BuildReader) -> None:
        self._layout = layout
        self._root = str(layout.root)
        self._reader = reader
        self._rows: dict[str, tuple[Fingerprint, Row]] = {}

    def frame(self, entries: Sequence[Entry]) -> pd.DataFrame:
        """Return one row for each entry; a missing figure is NaN.

        Metadata that cannot be read costs its own row's figures only: `problem` says why.
        """
        rows = [self._row(entry) for entry in entries]
        described = list(zip(*map(_described, entries), strict=True)) or [()] * len(COLUMNS)
        columns: dict[str, Any] = dict(zip(COLUMNS, described, strict=True))
        for name in ("file_path", "metadata_path"):
            columns[name] = [f"{self._root}/{path}" for path in columns[name]]
        figures = np.array([each for each, _ in rows], dtype=np.float64)
        figures = figures.reshape(-1, len(FIGURE_COLUMNS))
        columns |= {name: figures[:, place] for place, name in enumerate(FIGURE_COLUMNS)}
        import pandas as pd

        columns["problem"] = pd.Series([problem for _, problem in rows], dtype=object)
        return pd.DataFrame(columns)

    def _row(self, entry: Entry) -> Row:
        path = f"{self._root}/{entry.metadata_path}"
        fingerprint = fingerprint_of(path)
        cached = self._rows.get(path)
        if cached is not None and cached[0] == fingerprint:
            return cached[1]
        row = self._read(entry, Path(path))
        if fingerprint is not None and is_settled(fingerprint):
            self._rows[path] = fingerprint, row
        return row

    def _read(self, entry: Entry, path: Path) -> Row:
        try:
            try:
                document = read_file(self._layout.require_plain(path))
            except FileNotFoundError:  # moved since the index was read
                document = self._reader.metadata(entry.build).document
        except (RegistryError, FileNotFoundError) as error:
            return (math.nan,) * len(FIGURE_COLUMNS), str(error)
        return tuple(math.nan if each is None else each for each in figures_of(document)), None


def figures_of(document: dict[str, Any]) -> list[float | None]:
    """Return the four figures of backtest, validation and live, in FIGURE_COLUMNS' order."""
    performance = document.get("performance")
    phases = performance if isinstance(performance, dict) else {}
    blocks = [block if isinstance(block := phases.get(each), dict) else {} for each in PHASES]
    return [number_of(block.get(figure)) for block in blocks for figure in FIGURES]


def number_of(value: Any) -> float | None:
    """Return a figure of a metadata file as a float, and None for anything that is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # a hand's integer of hundreds of digits
        return None
