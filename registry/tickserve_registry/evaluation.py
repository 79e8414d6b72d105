"""Evaluation: what a model would have earned on bars it never saw, as figures beside live ones."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tickserve_registry.errors import EvaluationRefused
from tickserve_registry.metadata import Metadata, utc_now
from tickserve_registry.performance import figures
from tickserve_registry.predictor import served_predictor
from tickserve_registry.replay import Predict, Replay, Replayed, ReplayRequest
from tickserve_registry.span import Moment, unseen_span
from tickserve_registry.track_record import ClosedTrade
from tickserve_registry.trading_calendar import TRADING_DAYS, Calendar, default_calendar

if TYPE_CHECKING:
    from tickserve_registry.model_registry import ServingModel

STARTING_EQUITY = 10_000.0
GOLDEN_ROWS = 5
MOST_TRADES = 500
"""Trades that the metadata lists, the latest: each write-back of live figures writes it anew."""


def evaluate(
    model: ServingModel,
    *,
    bars: Any,
    replay: Replay,
    costs: Mapping[str, float] | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    calendar: Calendar | None = None,
    starting_equity: float = STARTING_EQUITY,
    native: Callable[[ServingModel], Predict],
) -> dict[str, Any]:
    """Return the block for `performance.validation` of a model; nothing is written.

    `native` gives the predictions of a model that was not compiled.

    Raises EvaluationRefused, ArtefactRefused, or what the replay raises for its bars.
    """
    metadata = model.metadata
    _require_thresholds(metadata)
    _require_equity(starting_equity, build=metadata.build)
    chosen = calendar_of(metadata.document, build=metadata.build, given=calendar)
    span = unseen_span(metadata.document, build=metadata.build, start=start, end=end)
    begin, finish = span.milliseconds()
    request = ReplayRequest(
        metadata=metadata,
        predict=served_predictor(model, native=native),
        bars=bars,
        start=begin,
        end=finish,
        costs=costs,
    )
    replayed = replay(request)
    block = performance_block(
        replayed,
        mode="validation",
        calendar=chosen,
        currency=metadata.document.get("currency"),
        starting_equity=starting_equity,
    )
    return block | {
        "trades": msgspec.to_builtins(list(replayed.trades[-MOST_TRADES:])),
        "trades_omitted": max(0, len(replayed.trades) - MOST_TRADES),
        "golden": [
            {"time": _iso(row.time), "features": row.features, "output": row.output}
            for row in replayed.rows[:GOLDEN_ROWS]
        ],
        "serving_digest": metadata.serving.digest,
        "evaluated_at": utc_now(),
    }


def performance_block(
    replayed: Replayed,
    *,
    mode: Literal["backtest", "validation"],
    calendar: Calendar,
    currency: str | None = None,
    starting_equity: float = STARTING_EQUITY,
) -> dict[str, Any]:
    """Return figures with their convention, costs, strategy, span and bars."""
    block = figures(
        [ClosedTrade(trade.closed_at, trade.pnl) for trade in replayed.trades],
        starting_equity=starting_equity,
        currency=currency,
        calendar=calendar,
        mode=mode,
    )
    return block | {
        "costs": replayed.costs,
        "strategy_parameters": replayed.strategy,
        "span": {"start": _iso(replayed.start), "end": _iso(replayed.end)},
        "bars": msgspec.to_builtins(replayed.bars) | {"columns": list(replayed.bars.columns)},
    }


def calendar_of(
    document: Mapping[str, Any], *, build: str, given: Calendar | None = None
) -> Calendar:
    """Return the calendar given, else the metadata's, else the market's; must be a known one."""
    stated: Any = given or document.get("calendar") or default_calendar(str(document["market"]))
    if stated not in TRADING_DAYS:
        remedy = f"the calendars are {', '.join(TRADING_DAYS)}"
        raise EvaluationRefused(build=build, reason=f"its calendar is {stated!r}", remedy=remedy)
    chosen: Calendar = stated
    return chosen


def _require_thresholds(metadata: Metadata) -> None:
    output = metadata.output
    if output.kind == "classes" or (output.long_above, output.short_below) == (None, None):
        raise EvaluationRefused(
            build=metadata.build,
            reason="its output has no thresholds, so no trade follows from an answer",
            remedy="save the next version with model_info['output'] = "
            "{'long_above': 0.55, 'short_below': 0.45}, chosen on bars of their own",
        )


def _require_equity(equity: float, *, build: str) -> None:
    if not 0 < equity < float("inf"):
        reason = f"a starting equity of {equity} gives no returns"
        raise EvaluationRefused(build=build, reason=reason, remedy="give a positive amount")


def _iso(milliseconds: int) -> str:
    stamp = dt.datetime.fromtimestamp(milliseconds // 1000, dt.UTC)
    return stamp.strftime("%Y-%m-%dT%H:%M:%SZ")
