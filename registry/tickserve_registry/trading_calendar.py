"""The days a market trades on, and the trading day to which an instant counts."""

from __future__ import annotations

import datetime as dt
from typing import Literal

Calendar = Literal["24x7", "weekdays"]

DAY_MS = 86_400_000
TRADING_DAYS: dict[Calendar, int] = {"24x7": 365, "weekdays": 252}
"""Trading days a year, by which figures are annualised."""

FRIDAY = 4
WEEK = 7
WEEKDAYS = 5
EPOCH_WEEKDAY = 3
"""1970-01-01 was a Thursday."""

CRYPTO = ("btc", "eth", "sol", "xrp", "ada", "doge", "ltc", "bnb", "dot", "avax", "link", "usdt")


def default_calendar(market: str) -> Calendar:
    """Return `24x7` for the names of crypto markets and `weekdays` for all others."""
    return "24x7" if market.startswith(CRYPTO) else "weekdays"


def trading_day(at: int, calendar: Calendar) -> int:
    """Return the UTC day (days since the epoch) to which an instant (ms) counts.

    On weekdays-only markets Saturday and Sunday count to the Friday before.
    """
    day = at // DAY_MS
    return day - max(0, weekday(day) - FRIDAY) if calendar == "weekdays" else day


def days_between(first: int, last: int, calendar: Calendar) -> int:
    """Return how many trading days lie between two trading days, both left out."""
    if calendar == "24x7":
        return last - first - 1
    return _weekdays_before(last) - _weekdays_before(first + 1)


def weekday(day: int) -> int:
    """Return the day of the week of a day since the epoch, 0 for Monday."""
    return (day + EPOCH_WEEKDAY) % WEEK


def iso(milliseconds: int) -> str:
    """Return an instant as RFC 3339 in UTC, to the second."""
    stamp = dt.datetime.fromtimestamp(milliseconds // 1000, dt.UTC)
    return stamp.strftime("%Y-%m-%dT%H:%M:%SZ")


def _weekdays_before(day: int) -> int:
    """Return the weekdays from the Monday of the epoch's week to the day before `day`."""
    weeks, rest = divmod(day + EPOCH_WEEKDAY, WEEK)
    return weeks * WEEKDAYS + min(rest, WEEKDAYS)
