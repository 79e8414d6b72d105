"""Where bars come from: a name, a CSV or Parquet file, or a data frame."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tickserve_bots.bar_table import BarTable
from tickserve_bots.bars import Bars, eurusd_hours
from tickserve_registry.errors import BarsRefused

if TYPE_CHECKING:
    import pandas as pd

NAMED: dict[str, Callable[[], Bars]] = {"eurusd_1h": eurusd_hours}
"""Bars that need no file, by market and timeframe."""

FRAME = "data frame"
HEADER_LINES = 1


class BarSource(NamedTuple):
    """Bars and the name they go by; `market` is None where the source does not say it."""

    name: str
    bars: Bars
    market: str | None


def load_bars(source: Any) -> BarSource:
    """Return bars by name, from a .csv or .parquet path, or from a pandas DataFrame.

    Raises BarsRefused naming the line and the column at fault.
    """
    if isinstance(source, str) and source in NAMED:
        return BarSource(source, NAMED[source](), source.partition("_")[0])
    if isinstance(source, str | os.PathLike):
        return _from_file(Path(source))
    if hasattr(source, "columns") and hasattr(source, "iloc"):
        return BarSource(FRAME, BarTable(source, source=FRAME).bars(), None)
    problem = f"a {type(source).__name__} is no name, no path and no pandas DataFrame"
    raise BarsRefused(source="", place="", problem=problem)


def _from_file(path: Path) -> BarSource:
    if not path.is_file():
        known = ", ".join(NAMED)
        problem = f"there is no such file; bars that need none are called {known}"
        raise BarsRefused(source=str(path), place="", problem=problem)
    readers = {".csv": _csv, ".parquet": _parquet}
    read = readers.get(path.suffix.lower())
    if read is None:
        problem = f"files of bars end in {' or '.join(readers)}"
        raise BarsRefused(source=str(path), place="", problem=problem)
    return BarSource(path.name, read(path).bars(), None)


def _csv(path: Path) -> BarTable:
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path,
                index_col=False,
                skip_blank_lines=False,
                low_memory=False,
            )
    except pd.errors.EmptyDataError as error:
        raise BarsRefused(source=str(path), place="line 1", problem="the file is empty") from error
    except (ValueError, OSError, pd.errors.ParserWarning) as error:
        raise _unreadable(path, error) from error
    return _with_lines(frame, source=str(path))


def _parquet(path: Path) -> BarTable:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        problem = "Parquet needs pyarrow; run: pip install pyarrow, or save the bars as CSV"
        raise BarsRefused(source=str(path), place="", problem=problem) from error
    except (ValueError, OSError) as error:
        raise _unreadable(path, error) from error
    return BarTable(frame, source=str(path))


def _with_lines(frame: pd.DataFrame, *, source: str) -> BarTable:
    """Return the table without blank lines, which still count where it names a line."""
    filled = frame.dropna(how="all")
    return BarTable(
        filled, source=source, place=lambda row: f"line {filled.index[row] + HEADER_LINES + 1}"
    )


def _unreadable(path: Path, error: Exception) -> BarsRefused:
    """Name the line where the reader does: it counts from 1, the header included."""
    text = " ".join(str(error).split())
    line = re.search(r"in line (\d+)", text)
    place = f"line {line[1]}" if line else ""
    return BarsRefused(source=str(path), place=place, problem=f"is unreadable ({text[:200]})")
