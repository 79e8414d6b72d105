"""registry.json: one line for each build, read whole and replaced whole."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from tickserve_registry.errors import ArtefactRefused, CatalogUnreadable
from tickserve_registry.layout import ARTEFACT, METADATA, Environment, Layout
from tickserve_registry.metadata import Metadata
from tickserve_registry.naming import parse_build
from tickserve_registry.store import Fingerprint, fingerprint_of, read_plain, write_atomic


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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


HEAD_BYTES = 64
LARGEST_BYTES = 1 << 30

Key = tuple[Fingerprint | None, bytes]


class Catalog(msgspec.Struct, frozen=True):
    """The index and the transaction that wrote it last, whose commit it is."""

    models: tuple[Entry, ...] = ()
    transaction: str | None = None


class CatalogFile:
    """registry.json of one storage root; parsed again only when the file has changed.

    It begins with the transaction that wrote it, so its first bytes tell any two apart.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: tuple[Key, Catalog] | None = None

    def read(self) -> Catalog:
        """Return the index; none, and no models, is a new registry. Raises CatalogUnreadable."""
        key = self._key()
        if key is None:
            return Catalog()
        cached = self._read
        if cached is not None and cached[0] == key:
            return cached[1]
        catalog = _decode(self.path)
        self._read = key, catalog
        return catalog

    def write(self, entries: Iterable[Entry], *, transaction: str) -> None:
        """Replace the index atomically, sorted by build, one line each."""
        ordered = sorted(entries, key=lambda entry: entry.build)
        # No raw end of line stands inside an entry: JSON escapes it.
        lines = msgspec.json.Encoder().encode_lines(ordered).strip().replace(b"\n", b",\n")
        head = b'{"transaction": "%s",\n"models": [\n' % transaction.encode()
        write_atomic(self.path, head + lines + b"\n]}\n")
        key = self._key()  # the lock is held, so this is the file just written
        self._read = None if key is None else (key, Catalog(tuple(ordered), transaction))

    def _key(self) -> Key | None:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb", buffering=0) as file:
                return fingerprint_of(self.path), file.read(HEAD_BYTES) or b""
        except FileNotFoundError:
            self._require_empty()
            return None
        except OSError as error:
            raise CatalogUnreadable(path=self.path, problem=error.strerror or str(error)) from error

    def _require_empty(self) -> None:
        """Refuse a missing index where there are models: it is lost, and not the first one."""
        if not self.path.parent.is_dir():
            raise CatalogUnreadable(path=self.path, problem="its folder is gone")
        try:
            lost = any(Layout(self.path.parent.parent).metadata_files())
        except ArtefactRefused as error:
            raise CatalogUnreadable(path=self.path, problem=f"it is gone; {error}") from error
        if lost:
            raise CatalogUnreadable(path=self.path, problem="it is gone, the models are there")


def entry_of(metadata: Metadata, layout: Layout) -> Entry:
    """Return the index entry of a build from its metadata."""
    document, build = metadata.document, metadata.build
    environment = metadata.environment
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
        file_path=layout.relative(layout.file(build, environment, ARTEFACT)),
        metadata_path=layout.relative(layout.file(build, environment, METADATA)),
        serving_digest=metadata.serving.digest,
        revision=metadata.revision,
    )


def _decode(path: Path) -> Catalog:
    try:
        return msgspec.json.decode(read_plain(path, largest=LARGEST_BYTES), type=Catalog)
    except OSError as error:
        raise CatalogUnreadable(path=path, problem=error.strerror or str(error)) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CatalogUnreadable(path=path, problem=str(error)) from error
