"""`recorder` and `serving`, which the supervisor starts: without what only commands need."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

import structlog

from tickserve_server.child import Lifeline
from tickserve_server.doors import raise_limit
from tickserve_server.errors import DaemonError
from tickserve_server.logs import configure_logging
from tickserve_server.settings import read_settings


def run(name: str, arguments: Sequence[str]) -> int:
    """Run one process of the daemon to its end; return its exit code."""
    parser = argparse.ArgumentParser(description="A process of the daemon; see tickserve serve.")
    parser.add_argument("--settings", type=Path, required=True, help="resolved settings, as JSON")
    parser.add_argument("--lifeline", type=int, required=True, help="socket to the supervisor")
    chosen = parser.parse_args(arguments)
    settings = read_settings(chosen.settings)
    configure_logging(settings.logging, process=name)
    raise_limit()
    process = importlib.import_module(f"tickserve_server.{name}.process")
    try:
        code: int = process.run(settings, chosen.lifeline)
    except DaemonError as error:
        structlog.get_logger(__name__).error("start_failed", reason=str(error))
        Lifeline(chosen.lifeline).failed(str(error))
        return 1
    return code
