"""The replay behind `tickserve evaluate`: a model trades bars as the demo bot would."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tickserve_bots.backtest import Span, simulate
from tickserve_bots.bar_source import BarSource, load_bars
from tickserve_bots.bars import Bars, step_of
from tickserve_bots.broker import Trade
from tickserve_bots.features import features_of, matrix
from tickserve_bots.inputs import Inputs, Outputs, Rows
from tickserve_bots.terms import Terms, costs_of, strategy_of
from tickserve_registry.errors import EvaluationRefused
from tickserve_registry.metadata import Metadata
from tickserve_registry.replay import (
    BarsUsed,
    Replayed,
    ReplayedRow,
    ReplayedTrade,
    ReplayRequest,
)

SHOWN_ROWS = 8


def replay(request: ReplayRequest) -> Replayed:
    """Trade the request's bars with the features, strategy, broker and costs of the demo bot.

    Raises EvaluationRefused, BarsRefused or FeatureUnknown.
    """
    metadata = request.metadata
    source = load_bars(request.bars)
    _require_same_market(source, metadata)
    bars = source.bars
    terms = Terms(
        output=metadata.output,
        strategy=strategy_of(metadata),
        costs=costs_of(request.costs, metadata),
    )
    kit = features_of(
        metadata.features,
        metadata.document.get("feature_definitions"),
        columns=bars.columns,
    )
    span = _span(source, request)
    inputs = Inputs(matrix(bars, kit), metadata.input, metadata.features)
    outputs = inputs.answers(request.predict, span)
    if not np.isfinite(outputs[span.start : span.end]).any():
        raise EvaluationRefused(
            build=metadata.build,
            reason=f"on none of the {span.end - span.start} bars its features were complete",
            remedy=f"give more bars before them ({metadata.input.length} for a window, and the "
            f"features need {max(each.minimum_bars for each in kit)})",
        )
    used = tuple(name for name in metadata.features if name in bars.columns)
    return replayed_span(source.name, bars, span, outputs, inputs, terms=terms, columns=used)


def replayed_span(
    name: str,
    bars: Bars,
    span: Span,
    outputs: Outputs,
    inputs: Inputs,
    *,
    terms: Terms,
    columns: tuple[str, ...] = (),
) -> Replayed:
    """Trade outputs, one for each bar and NaN where there is none, over a span of bars."""
    trades = simulate(
        bars, outputs, span, strategy=terms.strategy, costs=terms.costs, output=terms.output
    )
    answered = np.flatnonzero(np.isfinite(outputs[span.start : span.end])) + span.start
    count = span.end - span.start
    return Replayed(
        trades=tuple(map(_compact, trades)),
        rows=tuple(_row(bars, inputs, outputs, int(at)) for at in answered[:SHOWN_ROWS]),
        bars=BarsUsed(
            name=name,
            sha256=bars.sha256(),
            count=count,
            unanswered=count - len(answered),
            columns=columns,
        ),
        start=int(bars.times[span.start]),
        end=int(bars.times[span.end - 1]) + bars.step_ms,
        costs=dataclasses.asdict(terms.costs),
        strategy=terms.strategy.described(),
    )


def _require_same_market(source: BarSource, metadata: Metadata) -> None:
    name, bars = metadata.name, source.bars
    if source.market not in {None, name.market}:
        raise EvaluationRefused(
            build=metadata.build,
            reason=f"the bars {source.name} are of {source.market}, not of {name.market}",
            remedy=f"give bars of {name.market} (--bars FILE)",
        )
    step = step_of(name.timeframe)
    if step is not None and len(bars) > 1 and bars.step_ms != step:
        raise EvaluationRefused(
            build=metadata.build,
            reason=f"the bars {source.name} are {bars.step_ms / 1000:g} s apart, {name.timeframe} "
            f"is {step / 1000:g} s",
            remedy=f"give bars of {name.timeframe}",
        )


def _span(source: BarSource, request: ReplayRequest) -> Span:
    """Return the indices of the bars to trade; raise EvaluationRefused when there are none."""
    times = source.bars.times
    start = 0 if request.start is None else int(np.searchsorted(times, request.start))
    end = len(times) if request.end is None else int(np.searchsorted(times, request.end))
    if start >= end:
        bars = source.bars
        raise EvaluationRefused(
            build=request.metadata.build,
            reason=f"the bars {source.name}, {bars.date(0)} to {bars.date(len(bars) - 1)}, hold "
            "none that it has not seen in the span asked for",
            remedy="give later bars (--bars FILE)",
        )
    return Span(start=start, end=end)


def _compact(trade: Trade) -> ReplayedTrade:
    return ReplayedTrade(
        opened_at=trade.opened_at,
        closed_at=trade.closed_at,
        side="long" if trade.side == "long" else "short",
        pnl=float(trade.pnl),
    )


def _row(bars: Bars, inputs: Inputs, outputs: Outputs, index: int) -> ReplayedRow:
    return ReplayedRow(
        time=int(bars.times[index]) + bars.step_ms,
        features=_listed(inputs.at(index)),
        output=float(outputs[index]),
    )


def _listed(shown: Rows) -> Any:
    """Return an input as JSON can hold it: gaps are None."""
    plain = shown.astype(object)
    plain[np.isnan(shown)] = None
    return plain.tolist()
