"""How commands speak: tables for people, JSON for scripts, one line for an error."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.text import Text

FAILURE = 1
PIPE_COLUMNS = 250

JsonFlag = typer.Option(False, "--json", help="Print JSON for scripts.")


def console() -> Console:
    """Return the console of standard output; it colours and cuts only on a terminal."""
    if sys.stdout.isatty():
        return Console()
    return Console(soft_wrap=True, width=None if os.environ.get("COLUMNS") else PIPE_COLUMNS)


def cell(value: object) -> Text:
    """Return a table's cell of anybody's text: no markup, no commands to the terminal."""
    return Text(printable(value))


def printable(value: object) -> str:
    """Return a text on one line, without what terminals take for commands."""
    return "".join(each if each.isprintable() else " " for each in str(value))


def print_json(value: Any, *, indent: int = 2) -> None:
    """Print one JSON document; without indent on one line."""
    document = msgspec.json.format(msgspec.json.encode(value), indent=indent or -1)
    sys.stdout.write(document.decode() + "\n")
    sys.stdout.flush()


def fail(message: str, code: int = FAILURE) -> NoReturn:
    """Print one line to standard error and exit with a code that is not 0."""
    sys.stderr.write(f"tickserve: {' '.join(message.split())}\n")
    sys.exit(code)
