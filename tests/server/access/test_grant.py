"""Tests of grants: what a key reaches."""

from __future__ import annotations

import pytest

from tickserve_server.access.grant import NOBODY, Grant, KeyRing

NARROW = Grant(name="a", public="k", markets=("us100",), models=("eurusd_1h_xgb_trend",))


@pytest.mark.parametrize(
    ("family", "reached"),
    [
        ("us100_15m_lstm_breakout", True),
        ("eurusd_1h_xgb_trend", True),
        ("eurusd_1h_xgb_trend_two", False),
        ("us1000_1h_xgb_trend", False),
    ],
)
def test_reach_is_by_market_or_family(family: str, reached: bool) -> None:
    """Either suffices, names are whole."""
    assert NARROW.covers(family=family, market=family.partition("_")[0]) is reached


def test_without_limits_every_model_is_reached() -> None:
    """A grant that names nothing reaches everything, and subscribes to everything."""
    wide = Grant(name="a", public="k")
    assert wide.covers(family="x_1h_xgb_y", market="x")
    assert wide.topics("") == {""}


@pytest.mark.parametrize(
    ("wanted", "topics"),
    [
        ("heartbeat", {"heartbeat"}),
        ("halt.", {"halt.us100_", "halt.eurusd_1h_xgb_trend_v"}),
        ("metrics.us100_15m_lstm_breakout_v2", {"metrics.us100_15m_lstm_breakout_v2"}),
        ("metrics.eurusd_1h_xgb_trend", {"metrics.eurusd_1h_xgb_trend_v"}),
        ("metrics.eurusd_1h_xgb_trend_v2", {"metrics.eurusd_1h_xgb_trend_v2"}),
        ("metrics.gbpusd", set()),
        ("nothing", set()),
    ],
)
def test_a_subscription_is_cut_to_what_is_reached(wanted: str, topics: set[str]) -> None:
    """What lies within stays, what is wider becomes its parts within, the rest nothing."""
    assert NARROW.topics(wanted) == topics


def test_everything_means_everything_within_reach() -> None:
    """The empty subscription covers heartbeat and each kind of topic of each model reached."""
    assert NARROW.topics("") == {
        "heartbeat",
        *(f"{kind}.us100_" for kind in ("model", "halt", "metrics")),
        *(f"{kind}.eurusd_1h_xgb_trend_v" for kind in ("model", "halt", "metrics")),
    }


def test_unknown_and_revoked_keys_allow_nothing() -> None:
    """NOBODY has no operation; a revoked grant has lost them."""
    assert KeyRing([NARROW]).find("other") is NOBODY
    revoked = Grant(name="a", public="k", revoked_at="2025-01-01T00:00:00Z")
    assert not any(NOBODY.allows(each) or revoked.allows(each) for each in NARROW.operations)


def test_feedback_is_in_its_own_name_unless_granted_more() -> None:
    """Without `bots` the grant's name is the bot's."""
    assert NARROW.speaks_for("a")
    assert not NARROW.speaks_for("b")
    assert not Grant(name="a", public="k", bots=("b",)).speaks_for("a")
