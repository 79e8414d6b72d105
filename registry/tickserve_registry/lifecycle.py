"""Lifecycle of builds: transactions that store, move and describe them, crash-safe."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from tickserve_registry.build import NewBuild
from tickserve_registry.catalog import Entry, entry_of, read_catalog, write_catalog
from tickserve_registry.digest import sha256
from tickserve_registry.errors import ArtefactRefused, BuildExists, ModelNotFound, TransitionRefused
from tickserve_registry.history import Change, new_change, record
from tickserve_registry.layout import (
    ARTEFACT,
    COMPILED,
    ENVIRONMENTS,
    METADATA,
    Environment,
    Layout,
)
from tickserve_registry.metadata import Metadata, read_file, view, write_document
from tickserve_registry.store import RootLock, make_folder, sync_folder, write_atomic

MOVES_OUTRUN = 20
"""How often a reader, which takes no lock, starts again when a build is moved under it."""

ALLOWED: frozenset[tuple[Environment, Environment]] = frozenset(
    {
        ("staging", "production"),
        ("staging", "archive"),
        ("production", "archive"),
        ("archive", "production"),
    }
)


class PromotionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a lifecycle change did: the build moved, and the champion it displaced, if any."""

    build: str
    model_id: str
    origin: Environment
    target: Environment
    archived: tuple[str, ...]
    serving_digest: str
    at: str


class Lifecycle:
    """Every change of one storage root, each under its lock.

    A change writes and fsyncs new files, replaces registry.json (the commit point), appends to
    the audit trail, and removes old copies last; a crash in between leaves either state whole.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = RootLock(layout.lock)

    def store(self, new: NewBuild, *, environment: Environment) -> Entry:
        """Add a new build; raise BuildExists if there is one of this name and date."""
        with self._lock.held():
            entries = read_catalog(self._layout.catalog)
            self._require_new(new, entries)
            document = new.document | {"environment": environment, "status": environment}
            self._write(new.build, environment, document, new.artefact, new.compiled)
            entry = entry_of(view(document, source=new.build), self._layout)
            write_catalog(self._layout.catalog, [*entries, entry])
            self._note("save", entry, origin=None, reason=None)
            return entry

    def move(
        self, entry: Entry, target: Environment, *, keep: bool, reason: str | None
    ) -> PromotionRecord:
        """Move a build; a promotion archives the family's other production builds unless `keep`.

        Raises TransitionRefused, or ModelNotFound when the build has gone meanwhile.
        """
        with self._lock.held():
            entries = {each.build: each for each in read_catalog(self._layout.catalog)}
            current = entries.get(entry.build)
            if current is None:
                raise ModelNotFound(name=entry.build, nearest=[])
            _require_allowed(current, target)
            displaced = [] if keep or target != "production" else _champions(entries, current)
            moves: list[tuple[Entry, Environment]] = [(current, target)]
            moves += [(each, "archive") for each in displaced]
            moved = {old.build: self._copy(old, to) for old, to in moves}
            write_catalog(self._layout.catalog, (entries | moved).values())
            changes = [
                self._note(_action(to), moved[old.build], origin=old.environment, reason=reason)
                for old, to in moves
            ]
            for old, _ in moves:
                self._remove(old)
            return PromotionRecord(
                build=current.build,
                model_id=current.model_id,
                origin=current.environment,
                target=target,
                archived=tuple(each.build for each in displaced),
                serving_digest=current.serving_digest,
                at=changes[0].at,
            )

    def describe(self, build: str, phase: str, block: dict[str, Any]) -> None:
        """Set `performance.{phase}` of one build; touches its metadata file and nothing else."""
        with self._lock.held():
            path = self.metadata_path(build)
            document = read_file(path)
            performance = document.get("performance")
            kept = performance if isinstance(performance, dict) else {}
            document["performance"] = kept | {phase: block}
            document["revision"] = int(document.get("revision", 1)) + 1
            write_atomic(path, write_document(document, source=build))

    def metadata(self, build: str) -> Metadata:
        """Read one build's metadata, also while another process moves it."""
        for _ in range(MOVES_OUTRUN):
            with contextlib.suppress(ModelNotFound, FileNotFoundError):
                path = self.metadata_path(build)
                return view(read_file(path), source=str(path))
        path = self.metadata_path(build)
        return view(read_file(path), source=str(path))

    def with_artefact(self, build: str, *, served: bool) -> tuple[Metadata, bytes]:
        """Read a build's metadata and its native or served file, also while it is moved.

        Raises ModelNotFound, MetadataRefused or ArtefactRefused.
        """
        metadata = self.metadata(build)
        for _ in range(MOVES_OUTRUN):
            try:
                return metadata, self._file_of(metadata, served=served)
            except ArtefactRefused:
                latest = self.metadata(build)
                if latest.environment == metadata.environment:
                    raise
                metadata = latest
        return metadata, self._file_of(metadata, served=served)

    def metadata_path(self, build: str) -> Path:
        """Return where a build's metadata lies; of two copies that of the higher revision."""
        found = [
            path
            for environment in ENVIRONMENTS
            if (path := self._layout.file(build, environment, METADATA)).exists()
        ]
        if not found:
            raise ModelNotFound(name=build, nearest=[])
        for path in found:
            self._layout.require_plain(path)
        return found[0] if len(found) == 1 else max(found, key=_revision)

    def artefact(self, metadata: Metadata, suffix: str, *, digest: str) -> bytes:
        """Read a model file once and return its bytes if they have the digest.

        Raises ArtefactRefused for a missing, linked or changed file.
        """
        environment: Any = metadata.environment
        path = self._layout.file(metadata.build, environment, suffix)
        return self._verified(path, digest=digest)

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Hold the root's lock, for a repair."""
        return self._lock.held()

    def _file_of(self, metadata: Metadata, *, served: bool) -> bytes:
        if served and metadata.serving.engine == "onnxruntime":
            return self.artefact(metadata, COMPILED, digest=metadata.serving.sha256)
        return self.artefact(metadata, ARTEFACT, digest=metadata.sha256)

    def _verified(self, path: Path, *, digest: str) -> bytes:
        self._layout.require_plain(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ArtefactRefused(path=path, problem=error.strerror or str(error)) from error
        found = sha256(data)
        if found != digest:
            problem = f"its SHA-256 is {found[:16]}…, {digest[:16]}… was saved"
            raise ArtefactRefused(path=path, problem=problem)
        return data

    def _require_new(self, new: NewBuild, entries: Iterable[Entry]) -> None:
        versions = [each.version for each in entries if each.family == new.name.family]
        taken = any(each.build == new.build for each in entries) or any(
            self._layout.file(new.build, environment, METADATA).exists()
            for environment in ENVIRONMENTS
        )
        if taken:
            latest = max([*versions, new.name.version])
            raise BuildExists(build=new.build, next_model_id=f"{new.name.family}_v{latest + 1}")

    def _write(
        self,
        build: str,
        environment: Environment,
        document: dict[str, Any],
        artefact: bytes,
        compiled: bytes | None,
    ) -> None:
        """Write a build's files; the metadata last, since it is what makes them a build."""
        folder = self._layout.folder(build, environment)
        self._layout.require_plain(folder)
        make_folder(folder)
        write_atomic(folder / f"{build}{ARTEFACT}", artefact)
        if compiled is not None:
            write_atomic(folder / f"{build}{COMPILED}", compiled)
        write_atomic(folder / f"{build}{METADATA}", write_document(document, source=build))

    def _copy(self, entry: Entry, target: Environment) -> Entry:
        metadata = self.metadata(entry.build)
        artefact = self.artefact(metadata, ARTEFACT, digest=metadata.sha256)
        compiled = None
        if metadata.serving.engine == "onnxruntime":
            compiled = self.artefact(metadata, COMPILED, digest=metadata.serving.sha256)
        document = metadata.document | {
            "environment": target,
            "status": target,
            "revision": metadata.revision + 1,
        }
        self._write(entry.build, target, document, artefact, compiled)
        return entry_of(view(document, source=entry.build), self._layout)

    def _remove(self, entry: Entry) -> None:
        folder = self._layout.folder(entry.build, entry.environment)
        for suffix in (METADATA, COMPILED, ARTEFACT):
            (folder / f"{entry.build}{suffix}").unlink(missing_ok=True)
        sync_folder(folder)

    def _note(self, action: str, entry: Entry, *, origin: str | None, reason: str | None) -> Change:
        change = new_change(
            action=action,
            build=entry.build,
            origin=origin,
            target=entry.environment,
            digest=entry.serving_digest,
            reason=reason,
        )
        record(self._layout.history, change)
        return change


def _require_allowed(entry: Entry, target: Environment) -> None:
    if (entry.environment, target) in ALLOWED:
        return
    reason = "it is there already" if entry.environment == target else "no such way exists"
    raise TransitionRefused(
        build=entry.build, origin=entry.environment, target=target, reason=reason
    )


def _champions(entries: dict[str, Entry], promoted: Entry) -> list[Entry]:
    return [
        each
        for each in entries.values()
        if each.family == promoted.family
        and each.environment == "production"
        and each.build != promoted.build
    ]


def _action(target: Environment) -> str:
    return "promote" if target == "production" else "archive"


def _revision(path: Path) -> int:
    return int(read_file(path).get("revision", 1))
