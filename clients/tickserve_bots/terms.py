"""The terms of an evaluation: thresholds, strategy and costs, as the metadata and caller say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np

from tickserve_bots.broker import Costs
from tickserve_bots.strategy import ThresholdStrategy
from tickserve_registry.errors import EvaluationRefused
from tickserve_registry.metadata import Metadata, Output

COSTS_MARKET = "eurusd"
"""The market whose costs `Costs` has by default."""

Kind = TypeVar("Kind")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Terms:
    """How answers become trades, and what trading costs."""

    output: Output
    strategy: ThresholdStrategy
    costs: Costs


def strategy_of(metadata: Metadata) -> ThresholdStrategy:
    """Return the strategy that the metadata's `strategy_parameters` describe, or the default.

    Raises EvaluationRefused for parameters that this strategy does not have.
    """
    try:
        strategy = _converted(metadata.document.get("strategy_parameters") or {}, ThresholdStrategy)
        _require(min(strategy.qty, strategy.stop_atr) > 0, "qty and stop_atr are above 0")
        _require(strategy.hold_bars >= 1, "hold_bars is 1 or more")
    except ValueError as error:
        raise EvaluationRefused(
            build=metadata.build,
            reason=f"its strategy_parameters do not fit the threshold strategy ({error})",
            remedy="pass a replay that trades your strategy",
        ) from error
    return strategy


def costs_of(given: Mapping[str, float] | None, metadata: Metadata) -> Costs:
    """Return costs; those of EURUSD stand for what is not given, but for no other market.

    Raises EvaluationRefused.
    """
    market = metadata.name.market
    stated = dict(given or {})
    names = [field.name for field in dataclasses.fields(Costs)]
    if market != COSTS_MARKET and not set(names) <= set(stated):
        raise EvaluationRefused(
            build=metadata.build,
            reason=f"the costs of trading {market} are not known",
            remedy="give costs: spread in price units, fee_rate a side (--spread, --fee-rate)",
        )
    try:
        costs = _converted(stated, Costs)
        in_bounds = all(0 <= value < np.inf for value in dataclasses.astuple(costs))
        _require(in_bounds, "costs are finite and not negative")
        _require(costs.fee_rate < 1, "fee_rate is a fraction of the amount traded, below 1")
    except ValueError as error:
        raise EvaluationRefused(
            build=metadata.build,
            reason=f"the costs {stated} cannot be used ({error})",
            remedy=f"give {' and '.join(names)}",
        ) from error
    return costs


def _converted(stated: Any, kind: type[Kind]) -> Kind:
    """Build a dataclass from a mapping; raise ValueError for a name or value it does not have."""
    if isinstance(stated, Mapping):
        known = getattr(kind, "__dataclass_fields__", {})
        unknown = sorted(str(name) for name in stated if name not in known)
        _require(not unknown, f"unknown: {', '.join(unknown)}")
    return msgspec.convert(stated, kind)


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(rule)
