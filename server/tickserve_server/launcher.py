"""Entry point of the `tickserve` command: names the missing extra instead of a traceback."""

from __future__ import annotations

import importlib
import os
import sys

from tickserve_registry.telemetry import silence_telemetry

MISSING_EXTRA = 2


def main() -> None:
    """Run the command line; exit 2 with the line to install where the extra is missing."""
    silence_telemetry(os.environ)
    try:
        cli = importlib.import_module("tickserve_server.cli")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("tickserve"):
            raise
        sys.stderr.write(
            f"tickserve: this command needs {error.name}, which is not installed; "
            "run: pip install 'tickserve[server]'\n"
        )
        sys.exit(MISSING_EXTRA)
    cli.main()
