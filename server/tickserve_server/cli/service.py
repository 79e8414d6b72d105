"""Commands about the running daemon: serve, ping, status."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import typer
import zmq
from rich import box
from rich.table import Column, Table

from tickserve_client.codec import Decoder, Encoder
from tickserve_client.errors import ProtocolError
from tickserve_client.messages import Error, Message, Ping, Pong, Status, StatusReport
from tickserve_server.cli.output import JsonFlag, console, fail, print_json
from tickserve_server.daemon import Daemon
from tickserve_server.errors import NotAnswering
from tickserve_server.logs import configure_logging
from tickserve_server.runtime import Runtime
from tickserve_server.settings import Settings, load_settings

CONFIG = typer.Option(None, "--config", help="TOML file; every setting has a default.")
STORAGE = typer.Option(None, "--storage", help=r"Storage root. \[default: ./model_storage]")
PREDICT = typer.Option(None, "--predict", help=r"Endpoint. \[default: tcp://127.0.0.1:5555]")
FEEDBACK = typer.Option(None, "--feedback", help=r"Endpoint. \[default: tcp://127.0.0.1:5556]")
EVENTS = typer.Option(None, "--events", help=r"Endpoint. \[default: tcp://127.0.0.1:5557]")
LEDGER = typer.Option(None, "--ledger", help=r"Database. \[default: SQLite in the storage]")
TIMEOUT = typer.Option(2.0, "--timeout", help="Seconds to wait for the answer.")


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(epilog="Example: tickserve serve --storage model_storage")(serve)
    app.command(epilog="Example: tickserve ping --predict tcp://127.0.0.1:5555")(ping)
    app.command(epilog="Example: tickserve status --storage model_storage --json")(status)


def serve(  # noqa: PLR0917 - Typer passes options by name
    config: Path | None = CONFIG,
    storage: str | None = STORAGE,
    predict: str | None = PREDICT,
    feedback: str | None = FEEDBACK,
    events: str | None = EVENTS,
    ledger: str | None = LEDGER,
) -> None:
    """Run the daemon in the foreground; SIGTERM or Ctrl-C ends it cleanly."""
    settings = _settings(
        config,
        {
            "storage": storage,
            "endpoints.predict": predict,
            "endpoints.feedback": feedback,
            "endpoints.events": events,
            "ledger.url": ledger,
        },
    )
    configure_logging(settings.logging, process="supervisor")
    raise typer.Exit(Daemon(settings).run())


def ping(
    config: Path | None = CONFIG,
    predict: str | None = PREDICT,
    timeout: float = TIMEOUT,
    as_json: bool = JsonFlag,
) -> None:
    """Check that the daemon answers; exit code 0 when it is ready, 1 when not."""
    settings = _settings(config, {"endpoints.predict": predict})
    endpoint = settings.endpoints.predict
    started = time.perf_counter()
    pong: Pong = _ask(endpoint, Ping(), timeout, Pong)
    microseconds = (time.perf_counter() - started) * 1e6
    if as_json:
        print_json({"endpoint": endpoint, "ready": pong.ready, "round_trip_us": microseconds})
    else:
        state = "ready" if pong.ready else "not ready"
        console().print(f"{endpoint} is {state} ({microseconds:.0f} µs)", highlight=False)
    raise typer.Exit(0 if pong.ready else 1)


def status(
    config: Path | None = CONFIG,
    storage: str | None = STORAGE,
    timeout: float = TIMEOUT,
    as_json: bool = JsonFlag,
) -> None:
    """Show what the daemon serves: builds, digests, requests, errors, latency, last reload."""
    settings = _settings(config, {"storage": storage})
    endpoint = Runtime(settings.storage_root).admin_serving
    report: StatusReport = _ask(endpoint, Status(), timeout, StatusReport)
    if as_json:
        print_json(report.report)
        return
    _print_status(report.report)


def _settings(config: Path | None, flags: dict[str, Any]) -> Settings:
    return load_settings(file=config, environment=os.environ, flags=flags)


def _ask(endpoint: str, message: Message, timeout: float, kind: type[Any]) -> Any:
    """Send one request on a fresh connection; raise NotAnswering without a reply in time."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.immediate = True
        socket.sndtimeo = socket.rcvtimeo = round(timeout * 1000)
        socket.connect(endpoint)
        try:
            socket.send(Encoder().encode(message, as_json=False))
            reply, _ = Decoder[Any](kind | Error).decode(socket.recv_multipart()[-1])
        except zmq.Again:
            reason = f"no reply within {timeout:g} s; start it with: tickserve serve"
            raise NotAnswering(endpoint=endpoint, reason=reason) from None
        except ProtocolError as error:
            raise NotAnswering(endpoint=endpoint, reason=error.reason) from error
    if isinstance(reply, Error):
        fail(f"{reply.code}: {reply.message}")
    return reply


def _print_status(report: dict[str, Any]) -> None:
    out = console()
    uptime = time.time() - report["started_at"]
    out.print(
        f"serving process {report['pid']}, up {uptime:.0f} s, {report['requests']} requests, "
        f"{report['records_uncommitted']} records not yet committed, "
        f"{report['records_dropped']} dropped",
        highlight=False,
    )
    build = Column("build", no_wrap=True)
    headings = ("digest", "answers", "errors", "p50 µs", "p99 µs", "max µs")
    table = Table(build, *headings, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for model in report["models"]:
        latency = model["latency"]
        table.add_row(
            model["build"],
            model["digest"][:8],
            str(model["predictions"]),
            str(sum(model["errors"].values())),
            *(_microseconds(latency[key]) for key in ("p50_us", "p99_us", "max_us")),
        )
    out.print(table)
    reload = report["last_reload"]
    if reload:
        out.print(f"last reload took {reload['seconds'] * 1000:.1f} ms", highlight=False)
    for build, reason in report["failures"].items():
        out.print(f"[red]not loaded[/red] {build}: {reason}", highlight=False)
    if report["degraded"]:
        out.print(f"[red]degraded[/red] {report['degraded']}", highlight=False)


def _microseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"
