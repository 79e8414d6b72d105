"""Commands that run the daemon and reach it: serve, ping."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import typer

from tickserve_client.messages import Ping, Pong
from tickserve_server.access.key_folder import KeyFolder
from tickserve_server.cli.asking import TIMEOUT, ask
from tickserve_server.cli.output import JsonFlag, console, print_json
from tickserve_server.daemon import Daemon
from tickserve_server.logs import configure_logging
from tickserve_server.settings import Settings, load_settings
from tickserve_server.systemd import Notifier

CONFIG = typer.Option(None, "--config", help="TOML file; every setting has a default.")
STORAGE = typer.Option(None, "--storage", help=r"Storage root. \[default: ./model_storage]")
PREDICT = typer.Option(None, "--predict", help=r"Endpoint. \[default: tcp://127.0.0.1:5555]")
FEEDBACK = typer.Option(None, "--feedback", help=r"Endpoint. \[default: tcp://127.0.0.1:5556]")
EVENTS = typer.Option(None, "--events", help=r"Endpoint. \[default: tcp://127.0.0.1:5557]")
OPS = typer.Option(None, "--ops", help=r"Metrics over HTTP: HOST:PORT. \[default: nowhere]")
LEDGER = typer.Option(None, "--ledger", help=r"Database. \[default: SQLite in the storage]")


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(epilog="Example: tickserve serve --storage model_storage")(serve)
    app.command(epilog="Example: tickserve ping --predict tcp://127.0.0.1:5555")(ping)


def serve(  # noqa: PLR0917 - Typer passes options by name
    config: Path | None = CONFIG,
    storage: str | None = STORAGE,
    predict: str | None = PREDICT,
    feedback: str | None = FEEDBACK,
    events: str | None = EVENTS,
    ledger: str | None = LEDGER,
    ops: str | None = OPS,
) -> None:
    """Run the daemon in the foreground; SIGTERM or Ctrl-C ends it cleanly."""
    settings = resolve(
        config,
        {
            "storage": storage,
            "endpoints.predict": predict,
            "endpoints.feedback": feedback,
            "endpoints.events": events,
            "ledger.url": ledger,
            "ops.listen": ops,
        },
    )
    configure_logging(settings.logging, process="supervisor")
    raise typer.Exit(Daemon(settings, Notifier(os.environ)).run())


def ping(
    config: Path | None = CONFIG,
    storage: str | None = STORAGE,
    predict: str | None = PREDICT,
    timeout: float = TIMEOUT,
    as_json: bool = JsonFlag,
) -> None:
    """Check that the daemon answers; exit code 0 when it is ready, 1 when not.

    Where it asks for keys, its own are used, so only its own user can ask.
    """
    settings = resolve(config, {"storage": storage, "endpoints.predict": predict})
    endpoint = _reachable(settings.endpoints.predict)
    started = time.perf_counter()
    keys = KeyFolder(settings.keys_folder).operator() if settings.security.curve else None
    pong: Pong = ask(endpoint, Ping(), timeout, Pong, keys=keys)
    microseconds = (time.perf_counter() - started) * 1e6
    if as_json:
        print_json({"endpoint": endpoint, "ready": pong.ready, "round_trip_us": microseconds})
    else:
        state = "ready" if pong.ready else "not ready"
        console().print(f"{endpoint} is {state} ({microseconds:.0f} µs)", highlight=False)
    raise typer.Exit(0 if pong.ready else 1)


def _reachable(endpoint: str) -> str:
    """Return where to ask a daemon that listens on every address of this machine."""
    return re.sub(r"^tcp://(\*|0\.0\.0\.0|\[::\]):", "tcp://127.0.0.1:", endpoint)


def resolve(config: Path | None, flags: dict[str, Any]) -> Settings:
    """Return the settings of a command: flags over environment over file over defaults."""
    return load_settings(file=config, environment=os.environ, flags=flags)
