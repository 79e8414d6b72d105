"""Commands about the ledger: trades, export, ledger verify."""

from __future__ import annotations

import contextlib
import datetime as dt
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from tickserve_client.codec import milliseconds
from tickserve_client.errors import ProtocolError
from tickserve_registry.layout import Layout
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.trading_calendar import iso
from tickserve_server.cli.listing import figure
from tickserve_server.cli.output import FAILURE, JsonFlag, cell, console, print_json, printable
from tickserve_server.cli.registry import SOME_MODEL
from tickserve_server.cli.service import CONFIG, LEDGER, STORAGE, resolve
from tickserve_server.errors import LedgerMissing
from tickserve_server.settings import Settings

FOLDER = typer.Argument(..., help="Folder for the files; made where there is none.")
ONLY = typer.Option(None, "--only", help="Only this source; may be given again.")
BOT = typer.Option(None, "--bot", help="Only trades of this bot.")
SINCE = typer.Option(None, "--since", help="From this date or RFC 3339 time on (UTC).")
UNTIL = typer.Option(None, "--until", help="Before this date or time.")
LIMIT = typer.Option(50, "--limit", min=1, help="The latest closed, at most.")
PARKED = typer.Option(False, "--parked", help="Only what waits for its prediction.")
HIDDEN = ("content", "position", "received_at")


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(epilog="Example: tickserve trades eurusd_1h_xgb_trend --since 2025-03-01")(trades)
    app.command(epilog="Example: tickserve export exports --only outcomes --only labels")(export)
    group = typer.Typer(no_args_is_help=True, help="Check the ledger.")
    group.command(epilog="Example: tickserve ledger verify --storage model_storage")(verify)
    app.add_typer(group, name="ledger")


def trades(  # noqa: PLR0917 - Typer passes options by name
    model: str | None = SOME_MODEL,
    bot: str | None = BOT,
    since: str | None = SINCE,
    until: str | None = UNTIL,
    limit: int = LIMIT,
    parked: bool = PARKED,
    config: Path | None = CONFIG,
    storage: str | None = STORAGE,
    ledger: str | None = LEDGER,
    as_json: bool = JsonFlag,
) -> None:
    """List trades as the ledger has them, the latest closed first."""
    from tickserve_server.recorder.reader import TradeFilter

    chosen = TradeFilter(model, bot, _time(since, "--since"), _time(until, "--until"), parked)
    with _reading(resolve(config, {"storage": storage, "ledger.url": ledger})) as reader:
        rows = list(reader.trades(chosen, limit=limit))
    if as_json:
        print_json([_whole(row) for row in rows])
        return
    if not rows:
        console().print("no trades", highlight=False)
        return
    console().print(_trades(rows))


def export(  # noqa: PLR0917 - Typer passes options by name
    folder: Path = FOLDER,
    only: list[str] | None = ONLY,
    since: str | None = SINCE,
    until: str | None = UNTIL,
    config: Path | None = CONFIG,
    storage: str | None = STORAGE,
    ledger: str | None = LEDGER,
    as_json: bool = JsonFlag,
) -> None:
    """Write the ledger to Parquet files, one for each source, by when rows were stored."""
    from tickserve_server.recorder import export as exports

    unknown = [name for name in only or () if name not in exports.SOURCES]
    if unknown:
        known = ", ".join(exports.SOURCES)
        raise typer.BadParameter(f"no source is called {unknown[0]!r}; the sources are {known}")
    span = {"since": _time(since, "--since"), "until": _time(until, "--until")}
    done = []
    with _reading(resolve(config, {"storage": storage, "ledger.url": ledger})) as reader:
        for name in only or exports.SOURCES:
            rows = exports.count(reader, name, **span)
            with _progress(name, rows) as advance:
                file = folder / f"{name}.parquet"
                done.append(exports.export(reader, name, file, **span, progress=advance))
    if as_json:
        print_json([{"source": e.source, "file": str(e.file), "rows": e.rows} for e in done])
        return
    for each in done:
        console().print(f"{each.rows:>10,} rows  {each.file}", highlight=False, markup=False)


def verify(
    config: Path | None = CONFIG,
    storage: str | None = STORAGE,
    ledger: str | None = LEDGER,
    as_json: bool = JsonFlag,
) -> None:
    """Check the database, and live figures against all trades; exit code 1 when one is wrong."""
    from tickserve_server.recorder.builds import Builds
    from tickserve_server.recorder.verification import verify as verified

    settings = resolve(config, {"storage": storage, "ledger.url": ledger})
    with _reading(settings) as reader, _working("reading every trade"):
        builds = Builds(
            ModelRegistry(settings.storage_root),
            Layout(settings.storage_root).catalog,
            calendars=settings.recorder.calendars,
        )
        report = verified(
            reader, profile=builds.profile, default_capital=settings.recorder.default_capital
        )
    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        counts = ", ".join(f"{count:,} {name}" for name, count in report.counts.items())
        console().print(f"{report.ledger}: {counts}", highlight=False, markup=False)
        for problem in report.problems:
            console().print(f"wrong: {printable(problem)}", highlight=False, markup=False)
        if not report.problems:
            console().print("all is well", highlight=False)
    raise typer.Exit(FAILURE if report.problems else 0)


@contextlib.contextmanager
def _reading(settings: Settings) -> Iterator[Any]:
    """Open the ledger to read; raise LedgerMissing where there is none."""
    import sqlalchemy as sa

    from tickserve_server.errors import LedgerUnusable
    from tickserve_server.recorder.database import Database
    from tickserve_server.recorder.reader import LedgerReader

    database = Database(settings.ledger_url)
    if database.file is not None and not database.file.exists():
        raise LedgerMissing(file=database.file)
    reader = LedgerReader(database)
    try:
        reader.require_version()
        yield reader
    except sa.exc.DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        raise LedgerUnusable(url=database.shown, reason=reason) from error
    finally:
        reader.close()


@contextlib.contextmanager
def _progress(name: str, rows: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal; scripts and logs see nothing of it."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=rows)
        yield lambda count: progress.advance(task, count)


def _working(text: str) -> contextlib.AbstractContextManager[object]:
    """Say on a terminal that it is at work; scripts and logs see nothing of it."""
    return Console(stderr=True).status(text) if sys.stderr.isatty() else contextlib.nullcontext()


def _time(value: str | None, name: str) -> int | None:
    """Return a date or time in ms; a date is its first moment in UTC."""
    if value is None:
        return None
    try:
        day = dt.date.fromisoformat(value)
    except ValueError:
        pass
    else:
        return milliseconds(f"{day}T00:00:00Z")
    try:
        return milliseconds(value)
    except ProtocolError as error:
        raise typer.BadParameter(f"{name}: {error}") from error


def _trades(rows: list[dict[str, Any]]) -> Table:
    numbers = [Column(name, justify="right") for name in ("pnl", "seq")]
    table = Table(
        "closed", "bot", "trade", "status", *numbers, "build", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for row in rows:
        table.add_row(
            "–" if row["closed_at"] is None else iso(row["closed_at"]),
            cell(row["bot"]),
            cell(row["trade"]),
            row["status"] if row["final"] else f"{row['status']}, not final",
            f"{figure('net_pnl', row['pnl'])} {printable(row['currency'] or '')}".rstrip(),
            str(row["seq"]),
            cell(row["build"] or f"waits for {row['prediction_id']}"),
        )
    return table


def _whole(row: dict[str, Any]) -> dict[str, Any]:
    """Return a trade as the bot told it, with what the ledger knows besides."""
    told: dict[str, Any] = msgspec.json.decode(row["content"])
    known = {name: value for name, value in row.items() if name not in HIDDEN}
    return told | known | {"received_at": row["received_at"]}
