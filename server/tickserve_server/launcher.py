"""Entry point of the `tickserve` command: names the missing extra instead of a traceback."""

from __future__ import annotations

import importlib
import os
import sys

from tickserve_registry.telemetry import silence_telemetry

MISSING_EXTRA = 2
CHILDREN = ("recorder", "serving")
"""What the supervisor starts: processes that need nothing of the command line."""


def main() -> None:
    """Run the command line; exit 2 with the line to install where the extra is missing."""
    silence_telemetry(os.environ)
    if sys.argv[1:] and sys.argv[1] in CHILDREN:
        child = importlib.import_module("tickserve_server.child_command")
        sys.exit(child.run(sys.argv[1], sys.argv[2:]))
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
