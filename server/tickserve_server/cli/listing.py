"""Commands that show the registry: models, show, compare, history, next-version."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import typer
from rich import box
from rich.table import Column, Table

from tickserve_registry.comparison import block_of
from tickserve_registry.listing import FIGURES, PHASES
from tickserve_server.cli.output import FAILURE, JsonFlag, cell, console, print_json, printable
from tickserve_server.cli.registry import (
    FAMILY,
    MODEL,
    SOME_MODEL,
    STORAGE,
    complete_environments,
    complete_models,
    open_registry,
    require_environment,
)

ENVIRONMENT = typer.Option(
    None,
    "--environment",
    help="Only staging, production or archive.",
    autocompletion=complete_environments,
    callback=require_environment,
)
MARKET = typer.Option(None, "--market", help="Only this market.")
STATUS = typer.Option(None, "--status", help="Only this status.")
MODELS = typer.Argument(
    None,
    help=r"Families, model_ids or builds. \[default: all in production]",
    autocompletion=complete_models,
    show_default=False,
)
LIMIT = typer.Option(50, "--limit", min=1, help="Latest changes, at most.")

NONE = "–"
ROWS = (*FIGURES, "n_trades", "n_days", "net_pnl")
COUNTS = ("n_trades", "n_days")
SHARES = ("max_drawdown", "win_rate")

HEADINGS = ("Sharpe", "max dd", "win", "pf")


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(epilog="Example: tickserve models --environment production --json")(models)
    app.command(epilog="Example: tickserve show eurusd_1h_xgb_trend_v1")(show)
    app.command(
        epilog="Example: tickserve compare eurusd_1h_xgb_trend  (all its versions)",
    )(compare)
    app.command(epilog="Example: tickserve history eurusd_1h_xgb_trend --limit 10")(history)
    app.command("next-version", epilog="Example: tickserve next-version eurusd_1h_xgb_trend")(
        next_version
    )


def models(
    storage: str | None = STORAGE,
    environment: str | None = ENVIRONMENT,
    market: str | None = MARKET,
    status: str | None = STATUS,
    as_json: bool = JsonFlag,
) -> None:
    """List the builds in the registry, with their validation beside their live Sharpe ratio."""
    registry = open_registry(storage)
    frame = registry.list_models(environment=environment, market=market, status=status)
    rows = _records(frame)
    if as_json:
        print_json(rows)
        return
    if not rows:
        console().print(f"no models in {registry.storage_root}", highlight=False)
        return
    table = _table("environment", "framework", "valid.", "live", first="build")
    for row in rows:
        table.add_row(
            row["build"],
            row["environment"],
            cell(row["framework"]),
            figure("sharpe_ratio", row["validation_sharpe_ratio"]),
            figure("sharpe_ratio", row["live_sharpe_ratio"]),
        )
    console().print(table)
    unreadable = [row for row in rows if row["problem"]]
    for row in unreadable:
        console().print(f"unreadable: {row['build']}: {printable(row['problem'])}", markup=False)
    raise typer.Exit(FAILURE if unreadable else 0)


def show(model: str = MODEL, storage: str | None = STORAGE, as_json: bool = JsonFlag) -> None:
    """Show one model; with --json its metadata, whole."""
    metadata = open_registry(storage).metadata(model)
    document = metadata.document
    if as_json:
        print_json(document)
        return
    out = console()
    for name, value in _described(document).items():
        out.print(f"{name:14} {printable(value)}", highlight=False, markup=False)
    table = _table(*PHASES, first="performance")
    blocks = [block_of(document, phase) for phase in PHASES]
    for name in ROWS:
        shown = (figure(name, block.get(name)) for block in blocks)
        table.add_row(name.removeprefix("n_").replace("_", " "), *shown)
    out.print(table)


def compare(
    models: list[str] | None = MODELS, storage: str | None = STORAGE, as_json: bool = JsonFlag
) -> None:
    """Compare versions and strategies: backtest, validation, live, and what was lost between."""
    frame = open_registry(storage).compare(models or ())
    rows = _records(frame.reset_index())
    if as_json:
        print_json(rows)
        return
    table = _table(*HEADINGS, "trades", "decay", first="build")
    for row in rows:
        table.add_row(row["build"])
        for phase in PHASES:
            table.add_row(
                f"  {phase}",
                *(figure(name, row[f"{phase}_{name}"]) for name in FIGURES),
                figure("n_trades", row[f"{phase}_n_trades"]),
                figure("win_rate", row.get(f"{phase}_sharpe_decay"), digits=0),
            )
    console().print(table if rows else "nothing is in production; name what to compare")
    for row in rows:
        if not row["comparable"] and row["live_n_trades"] is not None:
            reasons = "; ".join(row["not_comparable_reasons"])
            text = f"{row['build']}: not comparable, {printable(reasons)}"
            console().print(text, highlight=False, markup=False)


def history(
    model: str | None = SOME_MODEL,
    storage: str | None = STORAGE,
    limit: int = LIMIT,
    as_json: bool = JsonFlag,
) -> None:
    """Show the audit trail: who did what to which build, when and why."""
    changes = open_registry(storage).history(model)[-limit:]
    if as_json:
        print_json([msgspec.to_builtins(change) for change in changes])
        return
    folded = (Column(each, overflow="fold") for each in ("build", "who and why"))
    whole = [Column(each, no_wrap=True) for each in ("when, UTC", "what")]
    table = _table(whole[1], *folded, first=whole[0])
    for change in changes:
        rules = [f"overruled {rule}" for rule in change.overruled]
        why = "; ".join(filter(None, [change.who, change.reason, *rules]))
        when = change.at.replace("T", " ")[: len("2025-03-25 14:30")]
        table.add_row(cell(when), cell(change.action), cell(change.build), cell(why))
    console().print(table)


def next_version(
    family: str = FAMILY, storage: str | None = STORAGE, as_json: bool = JsonFlag
) -> None:
    """Print the model_id under which to save the family's next version."""
    found = open_registry(storage).next_version(family)
    if as_json:
        print_json({"model_id": found})
        return
    console().print(found, highlight=False)


def _described(document: dict[str, Any]) -> dict[str, str]:
    serving, output = document["serving"], document.get("output") or {}
    parity = serving["parity"]
    error = parity["max_abs_error"]
    proof = NONE if error is None else f"error {error:.1e} over {parity['probes']} probes"
    period = document.get("training_period")
    trained = period if isinstance(period, dict) else {}
    shape = document["input"]
    shown = {
        "build": document["build"],
        "environment": document["environment"],
        "created": document["created_at"],
        "size": f"{document['size']:,} bytes",
        "framework": f"{document['framework']} {document.get('framework_version', '')}",
        "served by": f"{serving['engine']} ({serving.get('reason') or proof})",
        "digest": serving["digest"][:16],
        "features": ", ".join(document["features"]),
        "thresholds": _thresholds(output),
        "input": f"{shape['kind']}, {shape['length']} × {len(document['features'])} float32",
        "output": output.get("kind", NONE),
        "trained on": f"{trained.get('start', NONE)} … {trained.get('end', NONE)}",
        "author": document.get("author") or NONE,
        "notes": document.get("notes") or NONE,
    }
    return {name: str(value) for name, value in shown.items()}


def _thresholds(output: dict[str, Any]) -> str:
    above, below = output.get("long_above"), output.get("short_below")
    if (above, below) == (None, None):
        return NONE
    return f"long above {above}, short below {below}"


def _table(*headings: str | Column, first: str | Column) -> Table:
    columns = [
        each if isinstance(each, Column) else Column(each, justify="right", no_wrap=True)
        for each in headings
    ]
    leading = first if isinstance(first, Column) else Column(first, overflow="fold")
    table = Table(leading, *columns, box=box.SIMPLE_HEAD, pad_edge=False)
    table.padding = (0, 1, 0, 0)
    return table


def _records(frame: Any) -> list[dict[str, Any]]:
    """Return a frame's rows with None for what is missing."""
    return [
        {name: None if _missing(value) else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def figure(name: str, value: Any, *, digits: int = 1) -> str:
    """Return a figure as people read it: shares in percent, counts whole."""
    if not isinstance(value, int | float):
        return NONE
    if name in SHARES:
        return f"{value:.{digits}%}"
    return f"{value:,.0f}" if name in COUNTS else f"{value:,.2f}"
