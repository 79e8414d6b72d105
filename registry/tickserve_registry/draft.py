"""A transaction in the making: builds to add and to move, before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tickserve_registry.build import NewBuild
from tickserve_registry.catalog import Entry, entry_of
from tickserve_registry.document import write_document
from tickserve_registry.history import Change, new_change
from tickserve_registry.layout import ARTEFACT, COMPILED, METADATA, Environment, Layout
from tickserve_registry.metadata import view
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
        """Plan to move a build under the name that the audit trail gives it."""
        metadata = self._reader.metadata(entry.build)
        for suffix, digest in _model_files(metadata.document):
            source = self._layout.file(entry.build, entry.environment, suffix)
            data = self._reader.artefact(metadata, suffix, digest=digest)
            path = self._layout.file(entry.build, target, suffix)
            self._files.append(NewFile(path=path, data=data, stored_at=source))
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


def _model_files(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Return suffix and digest of the model files that a build has."""
    files = [(ARTEFACT, document["sha256"])]
    if document["serving"]["engine"] == "onnxruntime":
        files.append((COMPILED, document["serving"]["sha256"]))
    return files
