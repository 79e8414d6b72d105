"""How commands speak: tables for people, JSON for scripts, one line for an error."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import msgspec
import typer
from rich.console import Console

FAILURE = 1

JsonFlag = typer.Option(False, "--json", help="Print JSON for scripts.")


def console() -> Console:
    """Return the console of standard output; it colours only a terminal."""
    return Console(soft_wrap=not sys.stdout.isatty())


def print_json(value: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def fail(message: str, code: int = FAILURE) -> NoReturn:
    """Print one line to standard error and exit with a code that is not 0."""
    sys.stderr.write(f"tickserve: {' '.join(message.split())}\n")
    sys.exit(code)
