"""`tickserve keys`: who may connect, and what for."""

from __future__ import annotations

from pathlib import Path

import typer
from rich import box
from rich.table import Table

from tickserve_server.access.grant import OPERATIONS, Grant
from tickserve_server.access.key_folder import KeyFolder
from tickserve_server.cli.asking import await_effect, when
from tickserve_server.cli.output import JsonFlag, cell, console, print_json
from tickserve_server.cli.service import CONFIG, STORAGE, resolve
from tickserve_server.runtime import Runtime
from tickserve_server.settings import Settings

NAME = typer.Argument(..., help="Whose key: letters, digits, '_', '.' and '-'.")
OUT = typer.Option(None, "--out", help=r"The file to hand over. \[default: NAME.key.json]")
OPERATION = typer.Option(
    None, "--operation", help=r"predict, feedback or events; repeatable. \[default: all]"
)
MARKET = typer.Option(None, "--market", help="Only models of this market; repeatable.")
FAMILIES = typer.Option(None, "--model", help="Only models of this family; repeatable.")
BOT = typer.Option(None, "--bot", help=r"Speak for this bot; repeatable. \[default: NAME]")


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke the keys of bots.")
    keys.command(
        "new",
        epilog="Examples: tickserve keys new trend_bot --market eurusd\n\n"
        "tickserve keys new screen --operation events --out screen.key.json",
    )(new)
    keys.command("list", epilog="Example: tickserve keys list --json")(list_)
    keys.command("revoke", epilog="Example: tickserve keys revoke trend_bot")(revoke)
    app.add_typer(keys, name="keys")


def new(  # noqa: PLR0917 - Typer passes options by name
    name: str = NAME,
    out: Path | None = OUT,
    operation: list[str] | None = OPERATION,
    market: list[str] | None = MARKET,
    model: list[str] | None = FAMILIES,
    bot: list[str] | None = BOT,
    config: Path | None = CONFIG,
    storage: str | None = STORAGE,
    as_json: bool = JsonFlag,
) -> None:
    """Make a key for a bot and write it to a file that is the bot's alone.

    A running daemon knows it at once. Without --market and --model it reaches every model.
    """
    settings = resolve(config, {"storage": storage})
    file = (out or Path(f"{name}.key.json")).absolute()
    grant = KeyFolder(settings.keys_folder).create(
        name,
        out=file,
        operations=[each for each in OPERATIONS if each in _operations(operation)],
        markets=[each.lower() for each in market or ()],
        models=[each.lower() for each in model or ()],
        bots=bot or (),
    )
    _await(settings, KeyFolder(settings.keys_folder).ring().revision)
    if as_json:
        print_json({"grant": grant, "file": str(file)})
        return
    out_ = console()
    out_.print(f"{file}: hand it to {name} alone; its secret is nowhere else", highlight=False)
    if not settings.security.curve:
        out_.print("the daemon asks for keys once security.curve is true", highlight=False)


def list_(
    config: Path | None = CONFIG, storage: str | None = STORAGE, as_json: bool = JsonFlag
) -> None:
    """Show every key: what it allows, since when, and whether it is revoked."""
    grants = KeyFolder(resolve(config, {"storage": storage}).keys_folder).grants()
    if as_json:
        print_json({"keys": grants})
    elif grants:
        console().print(_table(grants))
    else:
        console().print("there are no keys; make one with: tickserve keys new NAME")


def revoke(
    name: str = NAME,
    config: Path | None = CONFIG,
    storage: str | None = STORAGE,
    as_json: bool = JsonFlag,
) -> None:
    """Make a key good for nothing: its connections get no answer any more, it makes no new one."""
    settings = resolve(config, {"storage": storage})
    revision = KeyFolder(settings.keys_folder).revoke(name)
    seconds = _await(settings, revision)
    if as_json:
        print_json({"revoked": name, "effective_s": seconds})
    else:
        console().print(f"{name} is locked out {when(seconds)}", highlight=False, markup=False)


def _operations(chosen: list[str] | None) -> list[str]:
    unknown = [each for each in chosen or () if each not in OPERATIONS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(OPERATIONS)}")
    return chosen or list(OPERATIONS)


def _await(settings: Settings, revision: int) -> float | None:
    """Wait until both processes know the keys; None where no daemon that asks for them runs."""
    runtime = Runtime(settings.storage_root)
    waits = [
        await_effect(endpoint, lambda report: _knows(report["keys_revision"], revision))
        for endpoint in (runtime.admin_serving, runtime.admin_recorder)
    ]
    return None if None in waits else sum(each or 0.0 for each in waits)


def _knows(known: int | None, revision: int) -> bool:
    return known is None or known >= revision


def _table(grants: tuple[Grant, ...]) -> Table:
    table = Table(
        "name",
        "operations",
        "reaches",
        "speaks for",
        "since",
        "revoked",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for each in grants:
        reach = ", ".join((*each.markets, *each.models)) or "every model"
        texts = (each.name, ", ".join(each.operations), reach, ", ".join(each.bots or (each.name,)))
        revoked = each.revoked_at or "–"
        style = "dim" if each.revoked_at else None
        table.add_row(*(cell(t) for t in (*texts, each.created_at, revoked)), style=style)
    return table
