"""Tests of the log: repetition is held back, and what is held back is told."""

from __future__ import annotations

import contextlib

import pytest
import structlog

from tickserve_server.logs import MOST_ALIKE, MOST_KINDS, PERIOD_S, Repetition


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


def let_through(repetition: Repetition, times: int, **fields: object) -> list[dict[str, object]]:
    """Log an event again and again; return those that were let through."""
    found = []
    for number in range(times):
        with contextlib.suppress(structlog.DropEvent):
            found.append(dict(repetition(None, "info", {**fields, "number": number})))
    return found


def test_of_many_alike_a_few_are_told_and_the_number_of_the_others(clock: Clock) -> None:
    """In the next period the first one says how many were held back."""
    repetition = Repetition(clock)
    assert len(let_through(repetition, 100, event="refused")) == MOST_ALIKE
    clock.now += PERIOD_S
    first, second = let_through(repetition, 2, event="refused")
    assert first["suppressed"] == 100 - MOST_ALIKE
    assert "suppressed" not in second


def test_what_differs_in_a_text_is_told(clock: Clock) -> None:
    """200 models that fail are 200 lines."""
    repetition = Repetition(clock)
    told = [let_through(repetition, 1, event="failed", build=f"b{n}") for n in range(200)]
    assert all(told)


def test_memory_is_bounded(clock: Clock) -> None:
    """However many kinds there are, as somebody who makes them up could want."""
    repetition = Repetition(clock)
    for number in range(3 * MOST_KINDS):
        let_through(repetition, 1, event="refused", key=str(number))
    assert len(repetition._kinds) <= MOST_KINDS
