"""The promotion policy: what a build must show before it may go to production."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from tickserve_registry.errors import PolicyUnreadable, Unmet
from tickserve_registry.store import read_plain

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Figure = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]
"""Bounded, since TOML has a nan, which nothing meets, and infinities, which all or nothing do."""

LARGEST_BYTES = 1 << 20


class PromotionPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules for a promotion; one that is None or empty is not asked.

    Sharpe ratios are annualised as their block says, drawdowns are fractions of the peak, a
    decay is 1 − validation/backtest, and `better_than_champion_by` is a margin in Sharpe over
    the best production build of the family.
    """

    enabled: bool = True
    min_validation_trades: Count | None = None
    min_validation_sharpe: Figure | None = None
    max_validation_drawdown: Share | None = None
    min_validation_profit_factor: Figure | None = None
    max_sharpe_decay: Figure | None = None
    better_than_champion_by: Figure | None = None
    required_metadata: tuple[str, ...] = ()
    require_golden_rows: bool = False


OFF = PromotionPolicy(enabled=False)


def read_policy(path: Path) -> PromotionPolicy:
    """Read a policy from TOML; a missing file is no policy. Raises PolicyUnreadable."""
    try:
        table = tomllib.loads(read_plain(path, largest=LARGEST_BYTES).decode())
        return msgspec.convert(table, PromotionPolicy)
    except FileNotFoundError as error:
        if path.is_symlink():
            raise PolicyUnreadable(path=path, problem="is a link to nothing") from error
        return OFF
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise PolicyUnreadable(path=path, problem=str(error)) from error
    except msgspec.ValidationError as error:
        rules = ", ".join(PromotionPolicy.__struct_fields__)
        raise PolicyUnreadable(path=path, problem=f"{error}; the rules are {rules}") from error


def unmet_rules(
    policy: PromotionPolicy,
    candidate: Mapping[str, Any],
    champions: Sequence[Mapping[str, Any]],
) -> list[Unmet]:
    """Return every rule that the candidate's metadata does not meet; all of them, not the first."""
    if not policy.enabled:
        return []
    return [*_figure_rules(policy, candidate, champions), *_metadata_rules(policy, candidate)]


def _figure_rules(
    policy: PromotionPolicy,
    candidate: Mapping[str, Any],
    champions: Sequence[Mapping[str, Any]],
) -> Iterator[Unmet]:
    sharpe = _figure(candidate, "validation", "sharpe_ratio")
    lower = {
        "min_validation_trades": _figure(candidate, "validation", "n_trades"),
        "min_validation_sharpe": sharpe,
        "min_validation_profit_factor": _profit_factor(candidate),
    }
    upper = {
        "max_validation_drawdown": _figure(candidate, "validation", "max_drawdown"),
        "max_sharpe_decay": _decay(_figure(candidate, "backtest", "sharpe_ratio"), sharpe),
    }
    for rule, found in lower.items():
        asked = getattr(policy, rule)
        if asked is not None and not _at_least(found, asked):
            yield _unmet(rule, f"at least {_text(asked)}", found)
    for rule, found in upper.items():
        asked = getattr(policy, rule)
        if asked is not None and not (found is not None and found <= asked):
            yield _unmet(rule, f"at most {_text(asked)}", found)
    margin = policy.better_than_champion_by
    best = _best_sharpe(champions)
    if margin is not None and best is not None and not _at_least(sharpe, best + margin):
        yield _unmet(
            "better_than_champion_by", f"a Sharpe of {_text(best)} + {_text(margin)}", sharpe
        )


def _metadata_rules(policy: PromotionPolicy, candidate: Mapping[str, Any]) -> Iterator[Unmet]:
    for path in policy.required_metadata:
        if _at(candidate, path) in (None, "", [], {}):
            yield Unmet(rule="required_metadata", asked=path, found="nothing")
    if policy.require_golden_rows and not _at(candidate, "golden.inputs"):
        yield Unmet(rule="require_golden_rows", asked="golden rows", found="none")


def _figure(document: Mapping[str, Any], phase: str, name: str) -> float | None:
    found = _at(document, f"performance.{phase}.{name}")
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def _profit_factor(document: Mapping[str, Any]) -> float | None:
    """Return it; without a losing trade it is unbounded."""
    if _at(document, "performance.validation.profit_factor_status") == "no_losses":
        return float("inf")
    return _figure(document, "validation", "profit_factor")


def _decay(backtest: float | None, validation: float | None) -> float | None:
    """Return 1 − validation/backtest; a backtest that earned nothing can only have decayed."""
    if backtest is None or validation is None:
        return None
    return 1 - validation / backtest if backtest > 0 else float("inf")


def _best_sharpe(champions: Sequence[Mapping[str, Any]]) -> float | None:
    found = [_figure(each, "validation", "sharpe_ratio") for each in champions]
    return max((each for each in found if each is not None), default=None)


def _at_least(found: float | None, asked: float) -> bool:
    return found is not None and found >= asked


def _at(document: Mapping[str, Any], path: str) -> Any:
    value: Any = document
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _unmet(rule: str, asked: str, found: float | None) -> Unmet:
    return Unmet(rule=rule, asked=asked, found="none" if found is None else _text(found))


def _text(figure: float) -> str:
    return str(figure) if isinstance(figure, int) else f"{figure:.6g}"
