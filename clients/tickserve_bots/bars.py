"""Real hourly EURUSD bars, and their replay at a chosen speed."""

from __future__ import annotations

import csv
import dataclasses
import datetime as dt
import hashlib
import importlib.util
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tickserve_registry.errors import BarsRefused

HOUR_MS = 3_600_000
UNITS_MS = {"s": 1_000, "m": 60_000, "h": HOUR_MS, "d": 24 * HOUR_MS, "w": 168 * HOUR_MS}
SOURCE = "backtesting"
PRICES = ("open", "high", "low", "close")

Prices = npt.NDArray[np.float64]


class BarsMissing(BarsRefused):
    """The package that holds the bars is not installed."""

    def __init__(self) -> None:
        problem = f"they come with the package {SOURCE}; run: pip install 'tickserve[demo]'"
        super().__init__(source="eurusd_1h", place="", problem=problem)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bars:
    """Bars in time order; `times` are the opening times in ms since the epoch, UTC.

    `columns` are ready features, by name, of the same length. Every bar lasts `step_ms`.
    """

    times: npt.NDArray[np.int64]
    open: Prices
    high: Prices
    low: Prices
    close: Prices
    step_ms: int = HOUR_MS
    columns: Mapping[str, Prices] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.times)

    def first(self, count: int) -> Bars:
        """Return the first bars, as views."""
        return dataclasses.replace(
            self,
            **{name: getattr(self, name)[:count] for name in ("times", *PRICES)},
            columns={name: values[:count] for name, values in self.columns.items()},
        )

    def sha256(self) -> str:
        """Return the SHA-256 of times, prices and columns: little-endian, columns by name."""
        digest = hashlib.sha256(self.times.astype("<i8").tobytes())
        for name in PRICES:
            digest.update(getattr(self, name).astype("<f8").tobytes())
        for name in sorted(self.columns):
            digest.update(name.encode() + b"\0" + self.columns[name].astype("<f8").tobytes())
        return digest.hexdigest()

    def opens(self, index: int) -> str:
        """Return when a bar opens, as ISO 8601 in UTC."""
        stamp = dt.datetime.fromtimestamp(self.times[index] / 1000, dt.UTC)
        return stamp.strftime("%Y-%m-%dT%H:%M:%SZ")

    def date(self, index: int) -> str:
        """Return the UTC date of a bar, as YYYY-MM-DD."""
        return dt.datetime.fromtimestamp(self.times[index] / 1000, dt.UTC).strftime("%Y-%m-%d")


def eurusd_hours() -> Bars:
    """Return 5,000 real hours of EURUSD, April 2017 to February 2018. Raises BarsMissing.

    The file is found without importing the package, whose plotting takes seconds to load.
    """
    spec = importlib.util.find_spec(SOURCE)
    if spec is None or not spec.submodule_search_locations:
        raise BarsMissing
    path = Path(spec.submodule_search_locations[0]) / "test" / "EURUSD.csv"
    with path.open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    prices = np.array([[float(value) for value in row[1:5]] for row in rows])
    return Bars(
        times=np.array([_milliseconds(row[0]) for row in rows], dtype=np.int64),
        open=np.ascontiguousarray(prices[:, 0]),
        high=np.ascontiguousarray(prices[:, 1]),
        low=np.ascontiguousarray(prices[:, 2]),
        close=np.ascontiguousarray(prices[:, 3]),
    )


def step_of(timeframe: str) -> int | None:
    """Return how long a bar of a timeframe such as 15m lasts, in ms; None for months."""
    number = timeframe.rstrip("smhdwo")
    unit = UNITS_MS.get(timeframe.removeprefix(number))
    return None if unit is None else int(number) * unit


def replay(start: int, end: int, *, bars_per_second: float) -> Iterator[int]:
    """Yield bar indices from `start` to before `end`, each at its time on a steady clock."""
    began = time.monotonic()
    for count, index in enumerate(range(start, end)):
        wait = began + count / bars_per_second - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        yield index


def _milliseconds(text: str) -> int:
    stamp = dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)
    return int(stamp.timestamp() * 1000)
