"""Commands of the halt switch: halt, resume, halts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import typer
from rich import box
from rich.table import Table

from tickserve_registry.halts import ALL_MODELS, Halt
from tickserve_registry.model_registry import ModelRegistry
from tickserve_server.cli.asking import await_effect, when
from tickserve_server.cli.output import FAILURE, JsonFlag, cell, console, fail, print_json
from tickserve_server.cli.registry import STORAGE, complete_models, open_registry
from tickserve_server.runtime import Runtime

MODEL = typer.Argument(
    None,
    help="Family, model_id or build.",
    autocompletion=complete_models,
    show_default=False,
)
ALL = typer.Option(False, "--all", help="All models, also those promoted later.")
ALL_HALTS = typer.Option(False, "--all", help="Lift every halt.")
WHY_HALTED = typer.Option(..., "--reason", help="Why; bots are told, the audit trail keeps it.")
WHY_RESUMED = typer.Option(None, "--reason", help="Why; goes to the audit trail.")


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(
        epilog="Examples: tickserve halt eurusd_1h_xgb_trend --reason 'spread widened'\n\n"
        "tickserve halt --all --reason 'exchange is down'"
    )(halt)
    app.command(epilog="Example: tickserve resume eurusd_1h_xgb_trend")(resume)
    app.command(epilog="Example: tickserve halts --json")(halts)


def halt(
    model: str | None = MODEL,
    every: bool = ALL,
    reason: str = WHY_HALTED,
    storage: str | None = STORAGE,
    as_json: bool = JsonFlag,
) -> None:
    """Have a model answer `halted` instead of predictions, until it is resumed.

    Stands across restarts. Returns when the daemon, if one runs, has seen it.
    """
    registry = open_registry(storage)
    made = registry.halt_model(_name(model, every=every), reason=reason)
    seconds = _await_effect(registry)
    if as_json:
        print_json({"halt": made, "effective_s": seconds})
    else:
        _say(f"{_shown(made.model)} answers `halted`", seconds)


def resume(
    model: str | None = MODEL,
    every: bool = ALL_HALTS,
    reason: str | None = WHY_RESUMED,
    storage: str | None = STORAGE,
    as_json: bool = JsonFlag,
) -> None:
    """Lift a halt, under the name it was given, or all."""
    registry = open_registry(storage)
    lifted = registry.resume_model(_name(model, every=every), reason=reason)
    seconds = _await_effect(registry)
    if as_json:
        print_json({"lifted": lifted, "effective_s": seconds})
    else:
        _say(f"{', '.join(_shown(each.model) for each in lifted)} goes on", seconds)


def halts(storage: str | None = STORAGE, as_json: bool = JsonFlag) -> None:
    """Show what is halted, by whom, since when and why."""
    standing = open_registry(storage).halts().standing
    if as_json:
        print_json({"halts": standing})
    elif standing:
        console().print(_table(standing))
    else:
        console().print("nothing is halted")


def _name(model: str | None, *, every: bool) -> str:
    if every == (model is not None):
        fail("name a model, or say --all", FAILURE)
    return ALL_MODELS if model is None else model


def _await_effect(registry: ModelRegistry) -> float | None:
    """Wait until the daemon's halts are those of the file; None where no daemon answers."""
    endpoint = Runtime(Path(registry.storage_root)).admin_serving
    wanted = _names(msgspec.to_builtins(registry.halts().standing))
    return await_effect(endpoint, lambda report: _names(report["halts"]) == wanted)


def _names(halts: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(halt["model"], halt["at"]) for halt in halts]


def _shown(model: str) -> str:
    return "every model" if model == ALL_MODELS else model


def _say(what: str, seconds: float | None) -> None:
    console().print(f"{what} {when(seconds)}", highlight=False, markup=False)


def _table(halts: Sequence[Halt]) -> Table:
    table = Table("model", "since", "by", "reason", box=box.SIMPLE_HEAD, pad_edge=False)
    for each in halts:
        table.add_row(*(cell(text) for text in (_shown(each.model), each.at, each.by, each.reason)))
    return table
