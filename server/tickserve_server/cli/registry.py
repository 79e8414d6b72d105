"""What commands about the registry share: opening it, naming models, completing names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import typer

from tickserve_registry.catalog import CatalogFile, Entry
from tickserve_registry.layout import ENVIRONMENTS, Layout
from tickserve_registry.model_registry import ModelRegistry
from tickserve_server.errors import RegistryMissing, StorageUnusable
from tickserve_server.settings import Settings, load_settings


def complete_models(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return families, model_ids and builds that begin like this; reads the index only."""
    names = {name for e in _index(ctx) for name in (e.family, e.model_id, e.build)}
    return sorted(name for name in names if name.startswith(incomplete.lower()))


def complete_families(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return families that begin like this."""
    names = {entry.family for entry in _index(ctx)}
    return sorted(name for name in names if name.startswith(incomplete.lower()))


def complete_environments(incomplete: str) -> list[str]:
    """Return environments that begin like this."""
    return [name for name in ENVIRONMENTS if name.startswith(incomplete)]


def require_environment(value: str | None) -> str | None:
    """Return an environment's name, or end with the usage and the names that there are."""
    if value is not None and value not in ENVIRONMENTS:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(ENVIRONMENTS)}")
    return value


STORAGE = typer.Option(None, "--storage", help=r"Storage root. \[default: ./model_storage]")
MODEL = typer.Argument(
    ..., help="Family, model_id or build.", autocompletion=complete_models, show_default=False
)
SOME_MODEL = typer.Argument(
    None, help="Only this family, model_id or build.", autocompletion=complete_models
)
FAMILY = typer.Argument(
    ...,
    help="Family, or any name of it.",
    autocompletion=complete_families,
    show_default=False,
)
REASON = typer.Option(None, "--reason", help="Why; goes to the audit trail.")
ALLOW_PICKLE = typer.Option(
    False, "--allow-pickle", help="Load pickles, which can run any code: only if you trust them."
)


def open_registry(storage: str | None, *, allow_pickle: bool = False) -> ModelRegistry:
    """Return the registry in a storage root; raise StorageUnusable where there is none."""
    settings = _settings(storage)
    root = settings.storage_root
    if not any((root / folder).is_dir() for folder in ("metadata", *ENVIRONMENTS)):
        raise RegistryMissing(root=root)
    return _opened(settings, allow_pickle=allow_pickle)


def create_registry(storage: str | None, *, allow_pickle: bool = False) -> ModelRegistry:
    """Return the registry in a storage root, made where there is none."""
    return _opened(_settings(storage), allow_pickle=allow_pickle)


def _settings(storage: str | None) -> Settings:
    return load_settings(file=None, environment=os.environ, flags={"storage": storage})


def _opened(settings: Settings, *, allow_pickle: bool) -> ModelRegistry:
    try:
        return ModelRegistry(
            str(settings.storage_root),
            allow_pickle=allow_pickle or settings.registry.allow_pickle,
            trusted_types=settings.registry.trusted_types,
        )
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageUnusable(root=settings.storage_root, reason=reason) from error


def _index(ctx: typer.Context) -> tuple[Entry, ...]:
    """Return the index, or nothing: a completion must never fail."""
    try:
        stated: Any = ctx.params.get("storage")
        root = Path(_settings(stated).storage_root)
        return CatalogFile(Layout(root).catalog).read().models
    except Exception:  # noqa: BLE001 - the shell shows whatever is printed in the middle of a line
        return ()
