"""The figures against published oracles and against their own definitions."""

from __future__ import annotations

import datetime as dt
import math
import statistics

import pytest

from tickserve_registry.performance import comparability, figures
from tickserve_registry.track_record import ClosedTrade
from tickserve_registry.trading_calendar import (
    DAY_MS,
    days_between,
    default_calendar,
    trading_day,
    weekday,
)

RETURNS = [-0.02, 0.01, -0.015, 0, 0.025, 0.012, -0.008, 0.018, -0.004, 0.021, 0.006, -0.011]
MONDAY = int(dt.datetime(2025, 3, 24, tzinfo=dt.UTC).timestamp() * 1000)


def trades_of(returns: list[float], *, start: float = 10_000.0) -> list[ClosedTrade]:
    """One trade a day from a Monday on, such that the daily returns are the given ones."""
    equity, trades = start, []
    for day, value in enumerate(returns):
        trades.append(ClosedTrade(MONDAY + day * DAY_MS + 3_600_000, equity * value))
        equity += equity * value
    return trades


def block(trades: list[ClosedTrade], **options: object) -> dict[str, object]:
    """Figures with the defaults of these tests."""
    settings: dict[str, object] = {
        "starting_equity": 10_000.0,
        "currency": "USD",
        "calendar": "24x7",
        **options,
    }
    return figures(trades, **settings)  # type: ignore[arg-type]


def test_the_oracle_series_gives_the_published_figures() -> None:
    """quantstats, empyrical-reloaded and ffn agree on these figures for these returns."""
    live = block(trades_of(RETURNS))
    assert live["sharpe_per_day"] == pytest.approx(0.1918308955, abs=1e-9)
    assert live["sharpe_ratio"] == pytest.approx(3.664924112, abs=1e-9)
    assert live["max_drawdown"] == pytest.approx(0.0250470000, abs=1e-9)
    assert (live["n_days"], live["sharpe_status"]) == (12, "provisional")
    per_day = live["sharpe_per_day"]
    assert isinstance(per_day, float)
    assert per_day * math.sqrt(252) == pytest.approx(3.045221060, abs=1e-9)


def test_flat_days_count_and_weekend_closes_belong_to_friday() -> None:
    """A market that rests at the weekend has five returns a week, 24x7 has seven."""
    friday, saturday, monday = (MONDAY + offset * DAY_MS for offset in (4, 5, 7))
    trades = [ClosedTrade(MONDAY, 100.0), ClosedTrade(saturday, 50.0), ClosedTrade(monday, -10.0)]
    returns = [0.01, 0, 0, 0, 50 / 10_100, -10 / 10_150]
    expected = statistics.mean(returns) / statistics.stdev(returns)
    assert block(trades, calendar="weekdays")["sharpe_per_day"] == pytest.approx(expected)
    assert block(trades, calendar="weekdays")["n_days"] == 6
    assert block(trades)["n_days"] == 8
    assert trading_day(saturday, "weekdays") == trading_day(friday, "weekdays")


def test_days_between_are_counted_as_one_would_on_a_calendar() -> None:
    """For every pair of trading days within six weeks, on both calendars."""
    for first in range(20_000, 20_042):
        for last in range(first + 1, 20_042):
            between = range(first + 1, last)
            assert days_between(first, last, "24x7") == len(between)
            if max(weekday(first), weekday(last)) < 5:
                open_days = sum(weekday(day) < 5 for day in between)
                assert days_between(first, last, "weekdays") == open_days


def test_what_is_undefined_is_none_with_a_status() -> None:
    """No Infinity, no zero in place of an unknown."""
    empty = block([])
    assert (empty["n_trades"], empty["win_rate"], empty["sharpe_ratio"]) == (0, None, None)
    assert (empty["sharpe_status"], empty["profit_factor_status"]) == ("too_few_days", "no_trades")
    winning = block([ClosedTrade(MONDAY, 5.0), ClosedTrade(MONDAY + 1, 5.0)])
    assert (winning["profit_factor"], winning["profit_factor_status"]) == (None, "no_losses")
    even = block([ClosedTrade(MONDAY + day * DAY_MS, 0.0) for day in range(3)])
    assert (even["sharpe_ratio"], even["sharpe_status"]) == (None, "zero_deviation")
    assert (even["win_rate"], even["n_breakeven"]) == (0.0, 3)
    ruined = block([ClosedTrade(MONDAY, -10_000.0), ClosedTrade(MONDAY + DAY_MS, 50.0)])
    assert (ruined["sharpe_ratio"], ruined["sharpe_status"]) == (None, "ruined")
    assert ruined["max_drawdown"] == 1.0


def test_counts_and_sums() -> None:
    """Win rate is over all closed trades, profit factor in money."""
    live = block([ClosedTrade(MONDAY + i, pnl) for i, pnl in enumerate([10.0, -4.0, 0.0, 2.0])])
    assert (live["win_rate"], live["profit_factor"]) == (0.5, 3.0)
    assert (live["net_pnl"], live["expectancy"]) == (8.0, 2.0)
    assert (live["average_win"], live["average_loss"]) == (6.0, 4.0)


def test_an_account_that_joins_later_is_no_return() -> None:
    """Doubling the capital leaves the Sharpe ratio alone; only later returns get smaller."""
    one, two = ("bot", ""), ("bot", "second")
    first = ClosedTrade(MONDAY, 100.0, account=one)
    trades = [first, ClosedTrade(MONDAY + DAY_MS, 201.0, account=two)]
    live = block(trades)
    assert (live["equity"], live["max_drawdown"]) == (20_301.0, 0.0)
    assert (live["starting_equity"], live["joined_equity"]) == (10_000.0, 10_000.0)
    assert live["sharpe_status"] == "zero_deviation"
    same_day = block([first, ClosedTrade(MONDAY + 1, 200.0, account=two)])
    assert (same_day["starting_equity"], same_day["joined_equity"]) == (20_000.0, 0.0)


def test_the_open_day_is_shown_apart() -> None:
    """Today's trades count in the sums, not yet in the daily returns."""
    trades = trades_of(RETURNS)
    live = block(trades, as_of=trades[-1].closed_at + 1)
    assert (live["n_days"], live["n_trades"]) == (11, 12)
    assert live["open_day"] == {"n_trades": 1, "net_pnl": trades[-1].pnl}


def test_figures_compare_only_under_one_convention() -> None:
    """Validation that does not state its convention is not comparable, and says why."""
    live = block(trades_of(RETURNS))
    assert comparability(live, block(trades_of(RETURNS)))["comparable"] is True
    silent = comparability(live, {"sharpe_ratio": 1.62})
    assert silent["comparable"] is False
    assert "validation does not state its annualization" in silent["not_comparable_reasons"]
    other = comparability(live, block(trades_of(RETURNS), calendar="weekdays"))
    assert other["not_comparable_reasons"] == ["validation has annualization 252, live 365"]


def test_the_calendar_follows_the_market() -> None:
    """Crypto never rests; everything else rests at the weekend."""
    assert default_calendar("btcusd") == "24x7"
    assert default_calendar("eurusd") == default_calendar("us100") == "weekdays"
