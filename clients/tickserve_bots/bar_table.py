"""A table of bars, from a file or a notebook: checked, and refused with the place of a fault."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tickserve_bots.bars import HOUR_MS, PRICES, Bars, Prices
from tickserve_registry.errors import BarsRefused

if TYPE_CHECKING:
    import pandas as pd

TIME = "time"
EPOCH_UNITS = ((1e11, "s"), (1e14, "ms"), (1e17, "us"), (np.inf, "ns"))
"""Numbers below a bound count that unit since 1970; 1e11 seconds are the year 5138."""


class BarTable:
    """Named columns, one row a bar; `place` is what a person calls the row at a position.

    Columns time, open, high, low and close in any case; other numeric ones are ready features.
    Times are ISO text, epoch numbers or datetimes, taken as UTC where they name no zone.
    """

    def __init__(
        self, frame: pd.DataFrame, *, source: str, place: Callable[[int], str] = "row {}".format
    ) -> None:
        self._source = source
        self._place = place
        self._columns = self._named(frame)

    def bars(self) -> Bars:
        """Return the bars; raises BarsRefused naming the line and the column at fault."""
        if not len(self._columns[TIME]):
            raise self._refused("", "hold no rows")
        times = self._times()
        prices = {name: self._prices(name) for name in PRICES}
        self._require(prices["high"] >= prices["low"], "high", "is below low")
        step = int(np.median(np.diff(times))) if len(times) > 1 else HOUR_MS
        return Bars(times=times, **prices, step_ms=step, columns=self._extra())

    def _named(self, frame: pd.DataFrame) -> dict[str, pd.Series]:
        if TIME not in (str(name).lower() for name in frame.columns) and _holds_times(frame.index):
            frame = frame.rename_axis(TIME).reset_index()
        wanted = (TIME, *PRICES)
        columns: dict[str, pd.Series] = {}
        for place, label in enumerate(frame.columns):
            name = str(label).lower() if str(label).lower() in wanted else str(label)
            if name in columns:
                raise self._refused(f"column {label}", "stands there twice")
            columns[name] = frame.iloc[:, place]
        missing = [name for name in wanted if name not in columns]
        if missing:
            found = ", ".join(map(str, frame.columns)) or "none"
            raise self._refused(f"column {', '.join(missing)}", f"is missing; there are {found}")
        return columns

    def _times(self) -> npt.NDArray[np.int64]:
        import pandas as pd

        given = self._columns[TIME]
        if pd.api.types.is_numeric_dtype(given):
            stamps = self._epoch_times(given)
        else:
            stamps = pd.to_datetime(given, utc=True, format="ISO8601", errors="coerce")
        self._require(~stamps.isna(), TIME, "is no ISO or epoch time")
        naive = stamps.dt.tz_convert(None).to_numpy()
        times: npt.NDArray[np.int64] = naive.astype("datetime64[ms]").astype(np.int64)
        steps = np.diff(times, prepend=times[0] - 1)
        self._require(steps != 0, TIME, "repeats the time before it")
        self._require(steps > 0, TIME, "is earlier than the time before it; sort the bars by time")
        return times

    def _epoch_times(self, given: pd.Series) -> pd.Series:
        import pandas as pd

        numbers = given.to_numpy(dtype=np.float64, na_value=np.nan)
        self._require(np.isfinite(numbers), TIME, "is no time")
        largest = float(np.abs(numbers).max())
        unit = next(unit for bound, unit in EPOCH_UNITS if largest < bound)
        return pd.to_datetime(given, utc=True, unit=unit, errors="coerce")

    def _prices(self, name: str) -> Prices:
        numbers = _numbers(self._columns[name])
        self._require(np.isfinite(numbers), name, "is no finite number")
        return numbers

    def _extra(self) -> dict[str, Prices]:
        """Return the numeric columns that are no prices; gaps in them stay gaps."""
        import pandas as pd

        return {
            name: _numbers(column)
            for name, column in self._columns.items()
            if name not in {TIME, *PRICES} and pd.api.types.is_numeric_dtype(column)
        }

    def _require(self, good: Any, name: str, problem: str) -> None:
        bad = np.flatnonzero(~np.asarray(good, dtype=bool))
        if len(bad):
            row = int(bad[0])
            value = self._columns[name].iloc[row]
            more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
            place = f"{self._place(row)}, column {name}"
            raise self._refused(place, f"{str(value)[:40]!r} {problem}{more}")

    def _refused(self, place: str, problem: str) -> BarsRefused:
        return BarsRefused(source=self._source, place=place, problem=problem)


def _numbers(column: Iterable[Any]) -> Prices:
    import pandas as pd

    found = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.ascontiguousarray(found)


def _holds_times(index: Any) -> bool:
    import pandas as pd

    return isinstance(index, pd.DatetimeIndex)
