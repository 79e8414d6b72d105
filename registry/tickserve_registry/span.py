"""Which time a model has never seen, and whether a span that is asked for lies in it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, NamedTuple

from tickserve_registry.errors import EvaluationRefused

PERIODS = ("training_period", "tuning_period")
"""Fields of the metadata with `start` and `end`: what the trees saw, what thresholds saw."""

DAY = dt.timedelta(days=1)
EARLIEST = dt.datetime.min.replace(tzinfo=dt.UTC)
LATEST = dt.datetime.max.replace(tzinfo=dt.UTC)

Moment = str | dt.date | int
"""A date, a time (UTC where it names no zone), either as ISO text, or ms since the epoch."""


class Span(NamedTuple):
    """From `start` to before `end`; None where it is open."""

    start: dt.datetime | None
    end: dt.datetime | None

    def overlaps(self, other: Span) -> bool:
        """Whether the two share any time."""
        starts_before = (self.start or EARLIEST) < (other.end or LATEST)
        return starts_before and (other.start or EARLIEST) < (self.end or LATEST)

    def milliseconds(self) -> tuple[int | None, int | None]:
        """Return both ends in ms since the epoch."""
        return _milliseconds(self.start), _milliseconds(self.end)

    def __str__(self) -> str:
        start, end = (None if each is None else _shown(each) for each in self)
        return f"{start or 'the first bar'} to {end or 'the last bar'}"


def unseen_span(
    document: Mapping[str, Any], *, build: str, start: Moment | None, end: Moment | None
) -> Span:
    """Return the span to evaluate: all that follows training unless `start` or `end` say less.

    A date as an end counts whole. Raises EvaluationRefused for a span in which the model was
    trained, and where nothing says when that was.
    """
    seen = _seen(document, build=build)
    if start is None and PERIODS[0] not in seen:
        raise EvaluationRefused(
            build=build,
            reason="its metadata has no training_period, so nothing says which bars are new to it",
            remedy="give start (--from), the first day that it was not trained on",
        )
    begin = _moment(start, build=build, name="start") if start is not None else None
    if begin is None:
        begin = max(span.end for span in seen.values() if span.end is not None)
    span = Span(begin, _moment(end, build=build, name="end") if end is not None else None)
    _require_order(span, build=build)
    for name, period in seen.items():
        if span.overlaps(period):
            latest = max(each.end for each in seen.values() if each.end is not None)
            stated = document[name]
            raise EvaluationRefused(
                build=build,
                reason=f"the span {span} overlaps its {name}, "
                f"{stated.get('start') or 'the first bar'} to {stated['end']}",
                remedy=f"start at {_shown(latest)} or later (--from)",
            )
    return span


def _require_order(span: Span, *, build: str) -> None:
    if span.start is not None and span.end is not None and span.start >= span.end:
        reason = f"the span {span} is empty"
        raise EvaluationRefused(build=build, reason=reason, remedy="give an end after the start")


def _seen(document: Mapping[str, Any], *, build: str) -> dict[str, Span]:
    found = {}
    for name in PERIODS:
        period = document.get(name)
        if period is None:
            continue
        if not isinstance(period, Mapping) or period.get("end") is None:
            reason = f"its {name} is {period!r}, which has no end"
            raise EvaluationRefused(build=build, reason=reason, remedy=f"save it with {name}.end")
        begun = period.get("start")
        found[name] = Span(
            None if begun is None else _moment(begun, build=build, name=f"{name}.start"),
            _moment(period["end"], build=build, name=f"{name}.end"),
        )
    return found


def _moment(value: Any, *, build: str, name: str) -> dt.datetime:
    """Return a moment in UTC; the last day of an end is part of it."""
    try:
        moment, is_date = _parsed(value)
        whole_day = is_date and name.endswith("end")
        return moment + DAY if whole_day else moment
    except (ValueError, TypeError, OverflowError, OSError) as error:
        reason = f"{name} {str(value)[:40]!r} is no date or time"
        remedy = "write it as 2025-03-31 or 2025-03-31T14:00:00Z"
        raise EvaluationRefused(build=build, reason=reason, remedy=remedy) from error


def _parsed(value: Any) -> tuple[dt.datetime, bool]:
    if isinstance(value, int):
        return dt.datetime.fromtimestamp(value / 1000, dt.UTC), False
    if isinstance(value, str):
        try:
            value = dt.date.fromisoformat(value)
        except ValueError:
            value = dt.datetime.fromisoformat(value)
    if isinstance(value, dt.datetime):
        zoned = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
        return zoned.astimezone(dt.UTC), False
    return dt.datetime.combine(value, dt.time(), dt.UTC), True


def _milliseconds(moment: dt.datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)


def _shown(moment: dt.datetime) -> str:
    """Return a moment as short as it can be read back."""
    midnight = moment.time() == dt.time()
    return moment.strftime("%Y-%m-%d" if midnight else "%Y-%m-%dT%H:%M:%SZ")
