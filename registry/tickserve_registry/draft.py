"""A transaction in the making: builds to add and to move, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tickserve_registry.build import NewBuild
from tickserve_registry.catalog import Entry, entry_of
from tickserve_registry.document import write_document
from tickserve_registry.history import Change, new_change
from tickserve_registry.layout import ARTEFACT, COMPILED, METADATA, Environment, Layout
from tickserve_registry.metadata import Metadata, view
from tickserve_registry.reader import BuildReader
from tickserve_registry.transaction import NewFile, Transactions, new_transaction


class Draft:
    """Collects what one transaction will do; `commit` does it. The root's lock is held.

    `entries` is the index as it will be.
    """

    def __init__(self, layout: Layout, transactions: Transactions, reader: BuildReader) -> None:
        self._layout = layout
        self._transactions = transactions
        self._reader = reader
        self._transaction = new_transaction()
        self._files: list[NewFile] = []
        self._removed: list[Path] = []
        self.entries: dict[str, Entry] = {
            each.build: each for each in transactions.catalog().models
        }
        self.changes: list[Change] = []

    def champions(self, family: str) -> list[Entry]:
        """Return the family's builds in production."""
        return [
            each
            for each in self.entries.values()
            if each.family == family and each.environment == "production"
        ]

    def add(self, new: NewBuild, environment: Environment, *, action: str) -> Entry:
        """Plan to store a new build."""
        document = new.document | {"environment": environment, "status": environment}
        entry = entry_of(view(document, source=new.build), self._layout)
        contents = {ARTEFACT: new.artefact, COMPILED: new.compiled}
        for suffix, data in contents.items():
            if data is not None:
                path = self._layout.file(new.build, environment, suffix)
                self._files.append(NewFile(path=path, data=data))
        self._put(entry, document)
        self._note(action, entry, origin=None)
        return entry

    def move(
        self,
        entry: Entry,
        target: Environment,
        *,
        action: str,
        reason: str | None,
        overruled: Sequence[str] = (),
    ) -> None:
        """Plan to move a build under the name that the audit trail gives it.

        To production it goes unharmed only. Any other way is open to a damaged one, too: it must
        not stand in the way of the build that replaces it, and `verify` goes on reporting it.
        """
        metadata = self._reader.metadata(entry.build)
        self._files += self._moved_files(entry, metadata, target)
        document = metadata.document | {
            "environment": target,
            "status": target,
            "revision": metadata.revision + 1,
        }
        moved = entry_of(view(document, source=entry.build), self._layout)
        self._put(moved, document)
        self._removed += [
            self._layout.file(entry.build, entry.environment, suffix)
            for suffix in (METADATA, COMPILED, ARTEFACT)
        ]
        self._note(action, moved, origin=entry.environment, reason=reason, overruled=overruled)

    def commit(self) -> None:
        """Do all of it, or nothing."""
        self._transactions.commit(
            self.entries.values(),
            transaction=self._transaction,
            files=self._files,
            removed=self._removed,
            changes=self.changes,
        )

    def _moved_files(
        self, entry: Entry, metadata: Metadata, target: Environment
    ) -> Iterator[NewFile]:
        unharmed = target == "production"
        if unharmed:
            self._reader.require_indexed(metadata, digest=entry.serving_digest)
        for suffix, digest in _model_files(metadata):
            source = self._layout.file(entry.build, entry.environment, suffix)
            path = self._layout.file(entry.build, target, suffix)
            if unharmed:
                data: bytes | None = self._reader.artefact(metadata, suffix, digest=digest)
            else:
                data = self._reader.as_it_is(metadata, suffix)
            if data is not None:
                yield NewFile(path=path, data=data, stored_at=source)

    def _put(self, entry: Entry, document: dict[str, Any]) -> None:
        path = self._layout.file(entry.build, entry.environment, METADATA)
        data = write_document(document, source=entry.build)
        self._files.append(NewFile(path=path, data=data))
        self.entries[entry.build] = entry

    def _note(
        self,
        action: str,
        entry: Entry,
        *,
        origin: str | None,
        reason: str | None = None,
        overruled: Sequence[str] = (),
    ) -> None:
        self.changes.append(
            new_change(
                transaction=self._transaction,
                action=action,
                build=entry.build,
                origin=origin,
                target=entry.environment,
                digest=entry.serving_digest,
                reason=reason,
                overruled=overruled,
            )
        )


def _model_files(metadata: Metadata) -> list[tuple[str, str]]:
    """Return suffix and digest of the model files that a build has."""
    files = [(ARTEFACT, metadata.sha256)]
    if metadata.serving.engine == "onnxruntime":
        files.append((COMPILED, metadata.serving.sha256))
    return files
