"""`tickserve live`: what was promised beside what has come, with sample sizes."""

from __future__ import annotations

from typing import Any

import typer
from rich import box
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from tickserve_registry.comparison import block_of
from tickserve_registry.errors import RegistryError
from tickserve_registry.model_registry import ModelRegistry
from tickserve_server.cli.listing import figure
from tickserve_server.cli.output import JsonFlag, cell, console, print_json, printable
from tickserve_server.cli.registry import SOME_MODEL, STORAGE, open_registry

FIGURES = ("sharpe_ratio", "max_drawdown", "win_rate", "profit_factor", "n_trades", "n_days")
HEADINGS = ("Sharpe", "max dd", "win rate", "pf", "trades", "days")
QUALITY = ("hit_rate", "brier", "log_loss", "auc", "calibration_error")
LARGEST_DRIFTS = 5


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog="Example: tickserve live eurusd_1h_xgb_trend_v1")(live)


def live(
    model: str | None = SOME_MODEL, storage: str | None = STORAGE, as_json: bool = JsonFlag
) -> None:
    """Show validation beside live: figures, sample sizes, and whether they may be compared.

    Without a model, every build with live figures; with one, also its labels, inputs and serving.
    """
    registry = open_registry(storage)
    found = _found(registry, model)
    if as_json:
        print_json(found)
        return
    if not found:
        console().print(f"no live figures in {registry.storage_root} yet", highlight=False)
        return
    console().print(_table(found))
    for each in found:
        console().print(_notes(each))
        if model is not None:
            console().print(_details(each["live"]))


def _found(registry: ModelRegistry, model: str | None) -> list[dict[str, Any]]:
    """Return builds that go by a name, or all, with their validation and live figures."""
    found = []
    for entry in registry.entries():
        if model not in {None, entry.build, entry.model_id, entry.family}:
            continue
        try:
            document = registry.metadata(entry.build).document
        except (RegistryError, OSError):
            continue
        live_block = block_of(document, "live")
        if live_block:
            validation = block_of(document, "validation")
            kept = {name: validation.get(name) for name in (*FIGURES, "span")} if validation else {}
            found.append({"build": entry.build, "validation": kept, "live": live_block})
    if model is not None and not found:
        registry.find(model)
    return found


def _table(found: list[dict[str, Any]]) -> Table:
    build = Column("build", no_wrap=True)
    numbers = [Column(name, justify="right") for name in HEADINGS]
    table = Table(build, "phase", *numbers, box=box.SIMPLE_HEAD, pad_edge=False)
    for each in found:
        for phase in ("validation", "live"):
            shown = [figure(name, each[phase].get(name)) for name in FIGURES]
            table.add_row(cell(each["build"]), phase, *shown)
    return table


def _notes(each: dict[str, Any]) -> RenderableType:
    block = each["live"]
    begun = block.get("period_start") or "no trade yet"
    status = str(block.get("sharpe_status")).replace("_", " ")
    lines = [f"{each['build']}: live since {begun}, as of {block.get('as_of')}; Sharpe {status}"]
    reasons = block.get("not_comparable_reasons") or []
    if reasons:
        lines.append("  not comparable with validation: " + "; ".join(map(str, reasons)))
    return Text("\n".join(printable(line) for line in lines))


def _details(block: dict[str, Any]) -> RenderableType:
    return Group(
        Text(_money(block)),
        Text(_quality(block.get("quality") or {})),
        Text(_inputs(block.get("inputs") or {})),
        Text(_serving(block.get("serving") or {})),
    )


def _money(block: dict[str, Any]) -> str:
    currency = printable(block.get("currency") or "")
    marked = block.get("max_drawdown_marked")
    return (
        f"  money: net pnl {block.get('net_pnl', 0.0):,.2f} {currency} on "
        f"{block.get('starting_equity', 0.0):,.0f} of {block.get('n_accounts', 0)} accounts, "
        f"drawdown marked to the market {figure('max_drawdown', marked)}"
    )


def _quality(quality: dict[str, Any]) -> str:
    if not quality.get("n"):
        return "  labels: none"
    told = ", ".join(f"{name.replace('_', ' ')} {_number(quality.get(name))}" for name in QUALITY)
    return f"  labels: {quality['n']}, {told}"


def _inputs(inputs: dict[str, Any]) -> str:
    if not inputs:
        return "  inputs: nothing to compare with (save the model with training_sample)"
    drifted = [name for name, each in inputs.items() if each["drifted"]]
    largest = sorted(drifted, key=lambda name: -inputs[name]["psi"])[:LARGEST_DRIFTS]
    told = ", ".join(f"{printable(n)} (PSI {_number(inputs[n]['psi'])})" for n in largest)
    return f"  inputs: {len(drifted)} of {len(inputs)} features have drifted: {told or 'none'}"


def _serving(serving: dict[str, Any]) -> str:
    latency = serving.get("latency") or {}
    errors = sum((serving.get("errors") or {}).values())
    return (
        f"  serving: {serving.get('predictions', 0)} predictions recorded, "
        f"{serving.get('predictions_without_outcome', 0)} without outcome, {errors} errors, "
        f"p50 {_number(latency.get('p50_us'))} µs, p99 {_number(latency.get('p99_us'))} µs"
    )


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}"
