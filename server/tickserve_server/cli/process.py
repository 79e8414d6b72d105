"""Hidden commands that the supervisor starts: `recorder` and `serving`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import structlog
import typer

from tickserve_server.child import Lifeline
from tickserve_server.doors import raise_limit
from tickserve_server.errors import DaemonError
from tickserve_server.logs import configure_logging
from tickserve_server.settings import read_settings

SETTINGS = typer.Option(..., "--settings", help="Resolved settings, as JSON.")
LIFELINE = typer.Option(..., "--lifeline", help="Inherited socket to the supervisor.")


def add_to(app: typer.Typer) -> None:
    """Register the child processes' commands."""
    for name in ("recorder", "serving"):
        app.command(name, hidden=True)(_command(name))


def _command(name: str) -> Callable[[Path, int], None]:
    def run(settings: Path = SETTINGS, lifeline: int = LIFELINE) -> None:
        """Run one process of the daemon; started by `tickserve serve`."""
        resolved = read_settings(settings)
        configure_logging(resolved.logging, process=name)
        raise_limit()
        try:
            code = importlib.import_module(f"tickserve_server.{name}.process").run(
                resolved, lifeline
            )
        except DaemonError as error:
            structlog.get_logger(__name__).error("start_failed", reason=str(error))
            Lifeline(lifeline).failed(str(error))
            code = 1
        raise typer.Exit(code)

    return run
