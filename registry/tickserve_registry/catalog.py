"""registry.json: one small entry for each build, read whole and replaced whole."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from tickserve_registry.errors import CatalogUnreadable
from tickserve_registry.layout import METADATA, Environment, Layout
from tickserve_registry.metadata import Metadata
from tickserve_registry.naming import parse_build
from tickserve_registry.store import write_atomic


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What the index says of one build; paths are relative to the storage root."""

    build: str
    model_id: str
    family: str
    market: str
    timeframe: str
    model_type: str
    strategy: str
    version: int
    date: str
    environment: Environment
    status: str
    created_at: str
    framework: str
    file_path: str
    metadata_path: str
    serving_digest: str
    revision: int


class _Document(msgspec.Struct, frozen=True):
    models: tuple[Entry, ...] = ()


def entry_of(metadata: Metadata, layout: Layout) -> Entry:
    """Return the index entry of a build from its metadata."""
    document, build = metadata.document, metadata.build
    environment: Any = metadata.environment
    name, date = parse_build(build)
    return Entry(
        build=build,
        model_id=name.model_id,
        family=name.family,
        market=name.market,
        timeframe=name.timeframe,
        model_type=name.model_type,
        strategy=name.strategy,
        version=name.version,
        date=date,
        environment=environment,
        status=str(document.get("status", environment)),
        created_at=str(document.get("created_at", "")),
        framework=metadata.framework,
        file_path=layout.relative(layout.folder(build, environment) / document["artefact"]),
        metadata_path=layout.relative(layout.file(build, environment, METADATA)),
        serving_digest=metadata.serving.digest,
        revision=metadata.revision,
    )


def read_catalog(path: Path) -> tuple[Entry, ...]:
    """Read the index; a missing file is an empty registry. Raises CatalogUnreadable."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        if path.parent.is_dir():
            return ()
        raise CatalogUnreadable(path=path, problem="its folder is gone") from None
    except OSError as error:
        raise CatalogUnreadable(path=path, problem=error.strerror or str(error)) from error
    try:
        return msgspec.json.decode(data, type=_Document).models
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CatalogUnreadable(path=path, problem=str(error)) from error


def write_catalog(path: Path, entries: Iterable[Entry]) -> None:
    """Replace the index atomically, sorted by build."""
    ordered = sorted(entries, key=lambda entry: entry.build)
    write_atomic(path, msgspec.json.format(msgspec.json.encode({"models": ordered}), indent=1))
