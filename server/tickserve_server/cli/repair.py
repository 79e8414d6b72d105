"""Commands that check and mend the registry: verify, rebuild."""

from __future__ import annotations

import contextlib
import sys

import msgspec
import typer
from rich.console import Console

from tickserve_registry.inspection import Report
from tickserve_server.cli.output import FAILURE, JsonFlag, console, print_json
from tickserve_server.cli.registry import STORAGE, open_registry


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(epilog="Example: tickserve verify --storage model_storage")(verify)
    app.command(epilog="Example: tickserve rebuild --storage model_storage")(rebuild)


def verify(storage: str | None = STORAGE, as_json: bool = JsonFlag) -> None:
    """Check every file of the registry; exit code 1 when something is wrong."""
    registry = open_registry(storage)
    with _working("checking every file"):
        report = registry.verify()
    _print(report, as_json=as_json)


def rebuild(storage: str | None = STORAGE, as_json: bool = JsonFlag) -> None:
    """Write registry.json anew from the metadata files; exit code 1 when something stays wrong."""
    registry = open_registry(storage)
    with _working("reading every file"):
        report = registry.rebuild()
    _print(report, as_json=as_json)


def _working(text: str) -> contextlib.AbstractContextManager[object]:
    """Say on a terminal that it is at work; scripts and logs see nothing of it."""
    return Console(stderr=True).status(text) if sys.stderr.isatty() else contextlib.nullcontext()


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        console().print(str(report), highlight=False, markup=False)
    raise typer.Exit(0 if report else FAILURE)
