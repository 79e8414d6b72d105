"""Streaming equals batch: any order, duplicates, revisions, late arrivals, restarts, kills."""

from __future__ import annotations

import math
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import oracle
from tests.ledgers import PostgreSQL
from tests.recording import Recorder, outcome
from tickserve_client.messages import Hello

MONDAY = 1_742_774_400_000
HOUR = 3_600_000
DAY = 24 * HOUR
TOLERANCE = 1e-12
CAPITAL = {"one": 10_000.0, "two": 2_500.0, "three": 40_000.0}

pnl = st.one_of(
    st.floats(-900.0, 900.0, allow_nan=False),
    st.sampled_from([0.0, 10.0, -10.0, 0.1, 1e-7, -1e-7]),
)
trade = st.fixed_dictionaries(
    {
        "bot": st.sampled_from(sorted(CAPITAL)),
        "trade": st.integers(0, 25).map(str),
        "seq": st.integers(1, 4),
        "at": st.one_of(st.integers(0, 40), st.integers(0, 1000)).map(lambda h: MONDAY + h * HOUR),
        "pnl": pnl,
        "final": st.sampled_from([True, True, True, False]),
    }
)
step = st.one_of(
    trade, trade, trade, trade, st.sampled_from(["restart", "new turn", "new turn", "look"])
)


days_after = st.integers(0, 50)
calendars = st.sampled_from(["24x7", "weekdays"])
thorough = settings(
    deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, max_examples=80
)


@thorough
@given(st.lists(step, max_size=60), calendars, days_after)
def test_streaming_equals_batch(steps: list[Any], calendar: Any, days: int) -> None:
    """Whatever comes in whatever order, the figures are those of the newest revisions."""
    with TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'ledger.sqlite3'}"
        _play(url, steps, calendar=calendar, as_of=MONDAY + days * DAY)


@settings(thorough, max_examples=25)
@given(steps=st.lists(step, max_size=60), calendar=calendars, days=days_after)
def test_streaming_equals_batch_on_postgresql(
    postgresql_server: PostgreSQL, steps: list[Any], calendar: Any, days: int
) -> None:
    """The same in another database."""
    url = postgresql_server.database()
    _play(url, steps, calendar=calendar, as_of=MONDAY + days * DAY)


def _play(url: str, steps: list[Any], *, calendar: Any, as_of: int) -> None:
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    recorder = Recorder(url, calendar=calendar)
    for bot, amount in CAPITAL.items():
        recorder.tell(Hello(bot=bot, run="r1", starting_equity=amount))
    waiting: list[Any] = []
    for each in [*steps, "new turn"]:
        if isinstance(each, dict):
            waiting.append(_message(each))
            _note(newest, each)
            continue
        recorder.tell(*waiting)
        waiting = []
        if each == "look":
            recorder.block()
        elif each == "restart":
            recorder.close()
            recorder = Recorder(url, calendar=calendar)
    _compare(recorder, newest, calendar, as_of=as_of)
    recorder.close()


def test_a_long_history_stays_exact(ledger_url: str) -> None:
    """3,000 trades over three accounts, shuffled within a fortnight, with restarts in between."""
    random_ = random.Random(11)  # noqa: S311 - amounts, no secrets
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    recorder = Recorder(ledger_url, calendar="weekdays")
    for bot, amount in CAPITAL.items():
        recorder.tell(Hello(bot=bot, run="r1", starting_equity=amount))
    trades = [
        {
            "bot": random_.choice(sorted(CAPITAL)),
            "trade": str(number),
            "seq": 1,
            "at": MONDAY + number * HOUR + random_.randrange(14) * DAY * (number % 50 == 0),
            "pnl": round(random_.gauss(0.4, 20.0), 2),
            "final": True,
        }
        for number in range(3_000)
    ]
    for start in range(0, len(trades), 100):
        part = trades[start : start + 100]
        recorder.tell(*(_message(each) for each in part))
        for each in part:
            _note(newest, each)
        if start % 1000 == 900:
            recorder.close()
            recorder = Recorder(ledger_url, calendar="weekdays")
    _compare(recorder, newest, "weekdays", as_of=MONDAY + 200 * DAY)
    recorder.close()


def _message(each: dict[str, Any]) -> Any:
    return outcome(
        each["trade"],
        bot=each["bot"],
        seq=each["seq"],
        pnl=each["pnl"],
        final=each["final"],
        opened_at=MONDAY - DAY,
        closed_at=each["at"],
    )


def _note(newest: dict[tuple[str, str], dict[str, Any]], each: dict[str, Any]) -> None:
    """Keep what the protocol says is the newest: the first with the highest seq."""
    key = (each["bot"], each["trade"])
    if key not in newest or each["seq"] > newest[key]["seq"]:
        newest[key] = each


def _compare(
    recorder: Recorder, newest: dict[tuple[str, str], dict[str, Any]], calendar: str, as_of: int
) -> None:
    trades = [
        {
            "account": each["bot"],
            "key": (each["bot"], "r1", each["trade"]),
            "closed_at": each["at"],
            "pnl": each["pnl"],
        }
        for each in newest.values()
        if each["final"]
    ]
    expected = oracle.figures(trades, capital=CAPITAL, calendar=calendar, as_of=as_of)
    found = recorder.block(as_of=as_of)
    for name, value in expected.items():
        assert _same(found[name], value), (name, found[name], value)


def _same(found: Any, expected: Any) -> bool:
    if isinstance(expected, float) and isinstance(found, float):
        return math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    if isinstance(expected, dict):
        return all(_same(found[name], value) for name, value in expected.items())
    return bool(found == expected)


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    """A figure that is off by a millionth part is seen."""
    recorder = Recorder(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    told = {"bot": "one", "trade": "1", "seq": 1, "at": MONDAY, "pnl": 100.0, "final": True}
    recorder.tell(Hello(bot="one", run="r1", starting_equity=CAPITAL["one"]), _message(told))
    key = ("one", "1")
    _compare(recorder, {key: told}, "24x7", as_of=MONDAY + DAY)
    with pytest.raises(AssertionError):
        _compare(recorder, {key: told | {"pnl": 100.0001}}, "24x7", as_of=MONDAY + DAY)
    recorder.close()
