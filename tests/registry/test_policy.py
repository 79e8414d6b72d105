"""Tests of the promotion policy."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tickserve_registry.errors import PolicyUnreadable, PromotionRefused, ReasonMissing
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.policy import OFF, PromotionPolicy, read_policy, unmet_rules

Info = Callable[..., dict[str, Any]]
GOOD: dict[str, Any] = {
    "author": "someone",
    "golden": {"inputs": [[1.0]]},
    "performance": {
        "backtest": {"sharpe_ratio": 2.0},
        "validation": {
            "sharpe_ratio": 1.5,
            "max_drawdown": 0.1,
            "profit_factor": 1.4,
            "n_trades": 120,
        },
    },
}
CHAMPION = {"performance": {"validation": {"sharpe_ratio": 1.4}}}

RULES = [
    ("min_validation_trades", 120, 121),
    ("min_validation_sharpe", 1.5, 1.51),
    ("max_validation_drawdown", 0.1, 0.09),
    ("min_validation_profit_factor", 1.4, 1.41),
    ("max_sharpe_decay", 0.25, 0.24),
    ("better_than_champion_by", 0.1, 0.11),
    ("required_metadata", ("author",), ("author", "notes")),
]


@pytest.mark.parametrize(("rule", "met", "unmet"), RULES)
def test_each_rule_has_an_edge(rule: str, met: Any, unmet: Any) -> None:
    """What is asked exactly is enough, a little more is not; without figures nothing is met."""
    assert unmet_rules(PromotionPolicy(**{rule: met}), GOOD, [CHAMPION]) == []
    (found,) = unmet_rules(PromotionPolicy(**{rule: unmet}), GOOD, [CHAMPION])
    assert found.rule == rule
    assert [each.rule for each in unmet_rules(PromotionPolicy(**{rule: met}), {}, [CHAMPION])] == [
        rule
    ]


def test_all_unmet_rules_are_listed() -> None:
    """A refusal shows everything that is missing, with its figure."""
    policy = PromotionPolicy(
        min_validation_sharpe=1.0,
        max_validation_drawdown=0.2,
        min_validation_trades=10,
        require_golden_rows=True,
        required_metadata=("author",),
    )
    bad = {"performance": {"validation": {"sharpe_ratio": 0.25, "max_drawdown": 0.5}}}
    found = unmet_rules(policy, bad, [])
    assert [(each.rule, each.found) for each in found] == [
        ("min_validation_trades", "none"),
        ("min_validation_sharpe", "0.25"),
        ("max_validation_drawdown", "0.5"),
        ("required_metadata", "nothing"),
        ("require_golden_rows", "none"),
    ]


def test_no_losing_trade_is_no_missing_profit_factor() -> None:
    """Without a loss the factor is unbounded, which meets any minimum."""
    policy = PromotionPolicy(min_validation_profit_factor=2.0)
    block = {"profit_factor": None, "profit_factor_status": "no_losses"}
    assert unmet_rules(policy, {"performance": {"validation": block}}, []) == []


def test_figures_of_other_types_meet_nothing() -> None:
    """A text or a boolean where a figure should be is no figure."""
    policy = PromotionPolicy(min_validation_sharpe=0.0)
    for value in ("2.0", True, None, [2.0]):
        document = {"performance": {"validation": {"sharpe_ratio": value}}}
        assert len(unmet_rules(policy, document, [])) == 1


def test_without_a_champion_there_is_nothing_to_beat() -> None:
    """The margin counts from the best champion that has a figure."""
    policy = PromotionPolicy(better_than_champion_by=0.5)
    assert unmet_rules(policy, GOOD, []) == []
    assert unmet_rules(policy, GOOD, [{}]) == []
    assert len(unmet_rules(policy, GOOD, [{}, CHAMPION])) == 1


UNREADABLE = [
    "min_sharpe = 1.0",
    'min_validation_sharpe = "high"',
    "min_validation_sharpe = true",
    "min_validation_sharpe = nan",
    "max_sharpe_decay = inf",
    "min_validation_sharpe = -inf",
    "min_validation_trades = 1.5",
    "min_validation_trades = -1",
    "max_validation_drawdown = 2",
    "max_validation_drawdown = nan",
    "required_metadata = 'author'",
    "required_metadata = [2025-03-25]",
    "[rules]\nenabled = true",
    "enabled = true\nenabled = false",
    "enabled = 'no'",
    "enabled",
    "x = " + "[" * 5_000 + "]" * 5_000,
    "\x00",
]


@pytest.mark.parametrize("text", UNREADABLE, ids=lambda text: repr(text[:30]))
def test_a_policy_that_is_none_promotes_nothing(
    registry: ModelRegistry, classifier: Any, info: Info, text: str
) -> None:
    """An unknown rule, a wrong type or an impossible share is named, and nothing is promoted."""
    registry.save_model(classifier, info())
    (Path(registry.storage_root) / "promotion.toml").write_text(text)
    with pytest.raises(PolicyUnreadable, match=r"promotion\.toml"):
        registry.promote_model("eurusd_1h_xgb_trend")
    assert registry.production() == ()
    assert registry.verify()


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to nothing", "Latin-1", "2 MB"])
def test_a_policy_file_that_is_none_is_not_taken_for_none(
    registry: ModelRegistry, classifier: Any, info: Info, kind: str
) -> None:
    """Only where there is nothing at all is the policy off; a pipe is not waited for."""
    path = Path(registry.storage_root) / "promotion.toml"
    makers: dict[str, Callable[[], object]] = {
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "link to nothing": lambda: path.symlink_to("nothing"),
        "Latin-1": lambda: path.write_bytes("# für".encode("latin-1")),
        "2 MB": lambda: path.write_bytes(b"#" * 2_000_000),
    }
    makers[kind]()
    with pytest.raises(PolicyUnreadable):
        registry.save_model(classifier, info(), environment="production")
    assert registry.entries() == ()


def test_figures_are_shown_as_they_are() -> None:
    """Counts in full, others to six places: what is asked and found never read the same."""
    policy = PromotionPolicy(min_validation_trades=20_000, min_validation_sharpe=1.0)
    block = {"n_trades": 19_999, "sharpe_ratio": 0.99996}
    found = unmet_rules(policy, {"performance": {"validation": block}}, [])
    assert list(map(str, found)) == [
        "min_validation_trades: at least 20000 is asked, found 19999",
        "min_validation_sharpe: at least 1 is asked, found 0.99996",
    ]


def test_the_shipped_policy_is_off(project_root: Path, tmp_path: Path) -> None:
    """config/promotion.toml names every rule, and asks nothing until it is enabled."""
    text = (project_root / "config" / "promotion.toml").read_text()
    policy = read_policy(project_root / "config" / "promotion.toml")
    assert not policy.enabled
    assert read_policy(tmp_path / "missing.toml") == OFF
    on = tmp_path / "promotion.toml"
    on.write_text(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))
    enabled = read_policy(on)
    off = {name for name in OFF.__struct_fields__ if getattr(enabled, name) == getattr(OFF, name)}
    assert off == {"enabled"}


def test_force_needs_a_reason_and_leaves_a_trace(
    registry: ModelRegistry, classifier: Any, info: Info
) -> None:
    """A forced promotion is in the audit trail with what it overruled."""
    (Path(registry.storage_root) / "promotion.toml").write_text("min_validation_sharpe = 1.0")
    registry.save_model(classifier, info())
    with pytest.raises(PromotionRefused, match="found none"):
        registry.promote_model("eurusd_1h_xgb_trend")
    with pytest.raises(ReasonMissing):
        registry.promote_model("eurusd_1h_xgb_trend", force=True, reason="  ")
    record = registry.promote_model("eurusd_1h_xgb_trend", force=True, reason="a demo")
    assert record.overruled == ("min_validation_sharpe: at least 1 is asked, found none",)
    change = registry.history()[-1]
    assert (change.reason, change.overruled) == ("a demo", record.overruled)


def test_saving_to_production_asks_the_policy(
    registry: ModelRegistry, classifier: Any, info: Info
) -> None:
    """A refused save leaves nothing behind; a rollback is not asked again."""
    strict = ModelRegistry(
        registry.storage_root, policy=PromotionPolicy(required_metadata=("author",))
    )
    strict.save_model(classifier, info(author="me"), environment="production")
    with pytest.raises(PromotionRefused, match="author"):
        strict.save_model(classifier, info(version=2), environment="production")
    assert len(strict.entries()) == 1
    assert list(Path(strict.storage_root).rglob("*_v2_*")) == []
    registry.save_model(classifier, info(version=2), environment="production")
    assert strict.rollback("eurusd_1h_xgb_trend").model_id == "eurusd_1h_xgb_trend_v1"
    assert strict.verify()
