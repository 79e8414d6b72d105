"""Unseen time: what follows training and tuning, and nothing that overlaps them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from tickserve_registry.errors import EvaluationRefused
from tickserve_registry.span import unseen_span

TRAINED = {"training_period": {"start": "2023-01-01", "end": "2024-12-31"}}
TUNED = TRAINED | {
    "tuning_period": {"start": "2025-01-01T00:00:00Z", "end": "2025-02-01T12:00:00+01:00"}
}


def span_of(document: dict[str, Any], start: Any = None, end: Any = None) -> list[str | None]:
    """Return both ends of the span, as ISO text without the zone."""
    span = unseen_span(document, build="b", start=start, end=end)
    assert all(each is None or each.tzinfo == dt.UTC for each in span)
    return [None if each is None else each.strftime("%Y-%m-%dT%H:%M") for each in span]


def test_the_default_is_all_that_follows_training_and_tuning() -> None:
    """A last day counts whole, a time as it is; thresholds have seen what tuned them."""
    assert span_of(TRAINED) == ["2025-01-01T00:00", None]
    assert span_of(TUNED) == ["2025-02-01T11:00", None]


@pytest.mark.parametrize(
    "start",
    [
        "2025-06-01",
        "2025-06-01T00:00:00Z",
        "2025-06-01T02:00:00+02:00",
        dt.date(2025, 6, 1),
        dt.datetime(2025, 6, 1),  # noqa: DTZ001 - what names no zone is UTC
        1_748_736_000_000,
    ],
)
def test_moments_come_in_every_usual_form(start: Any) -> None:
    """All of these are midnight, UTC; an end that is a date counts whole."""
    assert span_of(TRAINED, start, "2025-06-30") == ["2025-06-01T00:00", "2025-07-01T00:00"]
    assert span_of({}, start, "2025-06-30T06:00:00Z") == ["2025-06-01T00:00", "2025-06-30T06:00"]


def test_time_before_training_is_unseen_too() -> None:
    """A model may be tried on years that came before those it was trained on."""
    assert span_of(TRAINED, "2022-01-01", "2022-12-31") == ["2022-01-01T00:00", "2023-01-01T00:00"]


@pytest.mark.parametrize(
    ("document", "start", "end", "words"),
    [
        (TRAINED, "2024-12-31", None, ("training_period", "2023-01-01 to 2024-12-31")),
        (TRAINED, "2022-01-01", "2023-01-01", ("2022-01-01 to 2023-01-02", "2025-01-01")),
        (TUNED, "2025-01-01", None, ("tuning_period", "2025-02-01T11:00:00Z")),
        (TRAINED, None, "2024-06-01", ("is empty",)),
        (TRAINED, "2025-06-02", "2025-06-01", ("is empty",)),
        ({}, None, None, ("no training_period", "--from")),
        ({"tuning_period": TUNED["tuning_period"]}, None, None, ("no training_period",)),
        ({"training_period": {"end": "2024-12-31"}}, "2020-01-01", None, ("the first bar to",)),
        ({"training_period": "2024"}, None, None, ("training_period", "no end")),
        ({"training_period": {"end": "soon"}}, None, None, ("training_period.end", "'soon'")),
        (TRAINED, "yesterday", None, ("start 'yesterday'", "2025-03-31")),
        (TRAINED, 10**18, None, ("start '1000000000000000000'",)),
    ],
)
def test_what_is_seen_or_unclear_is_refused(
    document: dict[str, Any], start: Any, end: Any, words: tuple[str, ...]
) -> None:
    """The error names the dates and what to do."""
    with pytest.raises(EvaluationRefused) as raised:
        unseen_span(document, build="b", start=start, end=end)
    for word in words:
        assert word in str(raised.value)
    assert raised.value.build == "b"
