"""The command that evaluates a model on bars it never saw: evaluate."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Column, Table

from tickserve_server.cli.output import JsonFlag, console, print_json
from tickserve_server.cli.registry import MODEL, STORAGE, open_registry

BARS = typer.Option("eurusd_1h", "--bars", help="Name of bars, or a .csv or .parquet file.")
SPREAD = typer.Option(None, "--spread", help="Spread in price units (EURUSD: 0.00006).")
FEE_RATE = typer.Option(None, "--fee-rate", help="Fee a side, a fraction (EURUSD: 0.000035).")
FROM = typer.Option(None, "--from", help="First date or time, UTC; else what follows training.")
TO = typer.Option(None, "--to", help="Last date, or the time before which the last bar opens.")

MONEY = ("net_pnl", "expectancy", "average_win", "average_loss")
SHARES = ("max_drawdown", "win_rate")
ROWS = ("sharpe_ratio", *SHARES, "profit_factor", "n_trades", "n_days", *MONEY)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog="Example: tickserve evaluate eurusd_1h_xgb_trend_v1 --bars eurusd_1h")(
        evaluate
    )


def evaluate(  # noqa: PLR0917 - Typer passes options by name
    model: str = MODEL,
    bars: str = BARS,
    spread: float | None = SPREAD,
    fee_rate: float | None = FEE_RATE,
    start: str | None = FROM,
    end: str | None = TO,
    storage: str | None = STORAGE,
    as_json: bool = JsonFlag,
) -> None:
    """Trade a model on bars it never saw; the figures become its validation."""
    registry = open_registry(storage)
    build = registry.find(model).build
    stated = {"spread": spread, "fee_rate": fee_rate}
    costs = {name: value for name, value in stated.items() if value is not None}
    with _progress(f"{build} trades {bars}"):
        block = registry.evaluate(build, bars, costs=costs or None, start=start, end=end)
    if as_json:
        print_json({"build": build, "validation": block})
        return
    console().print(_table(block))
    console().print(_terms(block), highlight=False)


def _progress(text: str) -> contextlib.AbstractContextManager[Any]:
    """Say on a terminal that it is at work; scripts and logs see nothing of it."""
    return Console(stderr=True).status(text) if sys.stderr.isatty() else contextlib.nullcontext()


def _table(block: dict[str, Any]) -> Table:
    table = Table("validation", Column(justify="right"), box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ROWS:
        table.add_row(name.removeprefix("n_").replace("_", " "), _shown(name, block))
    return table


def _shown(name: str, block: dict[str, Any]) -> str:
    value = block[name]
    if value is None:
        return str(block.get(f"{name.removesuffix('_ratio')}_status", "-")).replace("_", " ")
    if name in SHARES:
        return f"{value:.1%}"
    if name in MONEY:
        return f"{value:,.2f} {block['currency'] or ''}".rstrip()
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


def _terms(block: dict[str, Any]) -> str:
    """Say on which bars and at what costs the figures were made."""
    bars, span, costs = block["bars"], block["span"], block["costs"]
    unanswered = f", {bars['unanswered']:,} without an answer" if bars["unanswered"] else ""
    ready = f"\nready features from the bars: {', '.join(bars['columns'])}" * bool(bars["columns"])
    return (
        f"{bars['count']:,} bars of {bars['name']}, {span['start']} to {span['end']}{unanswered}\n"
        + ", ".join(f"{name.replace('_', ' ')} {_decimal(value)}" for name, value in costs.items())
        + f", starting equity {block['starting_equity']:,.0f}, calendar {block['calendar']}"
        + ready
    )


def _decimal(value: float) -> str:
    """Return a small number without an exponent."""
    return f"{value:.8f}".rstrip("0").rstrip(".")
