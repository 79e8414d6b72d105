"""Commands about the registry: models, show, promote, archive, verify, rebuild."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import typer
from rich import box
from rich.table import Column, Table

from tickserve_registry.model_registry import ModelRegistry
from tickserve_server.cli.output import JsonFlag, console, print_json
from tickserve_server.errors import StorageUnusable
from tickserve_server.settings import load_settings

STORAGE = typer.Option(None, "--storage", help="Storage root. [default: ./model_storage]")
MODEL = typer.Argument(..., help="Family, model_id or build.")
REASON = typer.Option(None, "--reason", help="Why; goes to the audit trail.")
KEEP = typer.Option(False, "--keep", help="Leave the family's present production build there.")
ENVIRONMENT = typer.Option(None, "--environment", help="staging, production or archive.")
MARKET = typer.Option(None, "--market", help="Only this market.")


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(epilog="Example: tickserve models --environment production --json")(models)
    app.command(epilog="Example: tickserve show eurusd_1h_xgb_trend_v1")(show)
    app.command(epilog="Example: tickserve promote eurusd_1h_xgb_trend_v2")(promote)
    app.command(epilog="Example: tickserve archive eurusd_1h_xgb_trend_v1")(archive)
    app.command(epilog="Example: tickserve verify --storage model_storage")(verify)
    app.command(epilog="Example: tickserve rebuild --storage model_storage")(rebuild)


def models(
    storage: str | None = STORAGE,
    environment: str | None = ENVIRONMENT,
    market: str | None = MARKET,
    as_json: bool = JsonFlag,
) -> None:
    """List the builds in the registry."""
    registry = open_registry(storage)
    rows = [
        msgspec.to_builtins(entry)
        for entry in registry.entries()
        if environment in (None, entry.environment) and market in (None, entry.market)
    ]
    if as_json:
        print_json(rows)
        return
    build = Column("build", no_wrap=True)
    table = Table(build, "environment", "framework", "created", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(
            row["build"],
            row["environment"],
            row["framework"],
            row["created_at"][:10],
        )
    console().print(table if rows else f"no models in {registry.storage_root}")


def show(model: str = MODEL, storage: str | None = STORAGE) -> None:
    """Print one model's metadata, whole."""
    print_json(open_registry(storage).metadata(model).document)


def promote(
    model: str = MODEL,
    storage: str | None = STORAGE,
    keep: bool = KEEP,
    reason: str | None = REASON,
    as_json: bool = JsonFlag,
) -> None:
    """Move a build to production; a running daemon picks it up."""
    record = open_registry(storage).promote_model(model, keep=keep, reason=reason)
    _report(record, as_json=as_json, done=f"{model} is in production")


def archive(
    model: str = MODEL,
    storage: str | None = STORAGE,
    reason: str | None = REASON,
    as_json: bool = JsonFlag,
) -> None:
    """Move a build to the archive; nothing is deleted."""
    record = open_registry(storage).archive_model(model, reason=reason)
    _report(record, as_json=as_json, done=f"{model} is in the archive")


def verify(storage: str | None = STORAGE, as_json: bool = JsonFlag) -> None:
    """Check every file of the registry; exit code 1 when something is wrong."""
    report = open_registry(storage).verify()
    _report(report, as_json=as_json, done=str(report))
    raise typer.Exit(0 if report else 1)


def rebuild(storage: str | None = STORAGE, as_json: bool = JsonFlag) -> None:
    """Write registry.json anew from the metadata files."""
    report = open_registry(storage).rebuild()
    _report(report, as_json=as_json, done=str(report))


def open_registry(storage: str | None) -> ModelRegistry:
    """Return the registry of a storage root; raise StorageUnusable where there is none."""
    settings = load_settings(file=None, environment=os.environ, flags={"storage": storage})
    root = settings.storage_root
    if not (root / "metadata").is_dir():
        raise StorageUnusable(root=root, reason="holds no registry")
    return ModelRegistry(str(root))


def _report(record: Any, *, as_json: bool, done: str) -> None:
    if as_json:
        print_json(msgspec.to_builtins(record))
        return
    console().print(done, highlight=False)
