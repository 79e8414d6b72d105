"""Changes of a storage root that happen whole or not at all, whatever instruction they die at."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from tickserve_registry.catalog import Catalog, CatalogFile, Entry
from tickserve_registry.errors import IntentUnreadable, PathTaken
from tickserve_registry.history import Change, record
from tickserve_registry.layout import Layout
from tickserve_registry.store import (
    TEMPORARY,
    RootLock,
    link_or_write,
    make_folder,
    sync_folder,
    write_atomic,
)


class NewFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a transaction makes: its bytes and, if they are stored already, where."""

    path: Path
    data: bytes
    stored_at: Path | None = None


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What a transaction is about to do; paths are relative to the root.

    It lies in the root while the transaction runs. Whoever finds it later knows from the index,
    which names the transaction that wrote it last, whether to finish or to undo.
    """

    transaction: str
    created: tuple[str, ...]
    removed: tuple[str, ...]
    changes: tuple[Change, ...]


class Transactions:
    """The one writer of a storage root.

    The order is: intent, new files, registry.json (the commit), audit trail, removal of old
    files, removal of the intent. A crash before the commit is undone, one after it finished, by
    the next writer or by a rebuild.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = RootLock(layout.lock)
        self._catalog = CatalogFile(layout.catalog)

    def catalog(self) -> Catalog:
        """Return the index as it is now, without the lock. Raises CatalogUnreadable."""
        return self._catalog.read()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the root's lock, after settling what a crashed writer has left."""
        with self._lock.held():
            if self._layout.intent.exists():
                self._settle()
            yield

    @contextlib.contextmanager
    def locked_as_is(self) -> Iterator[None]:
        """Hold the root's lock and settle nothing: for a repair, whose index may be unreadable."""
        with self._lock.held():
            yield

    def commit(
        self,
        entries: Iterable[Entry],
        *,
        transaction: str,
        files: Sequence[NewFile],
        removed: Sequence[Path],
        changes: Sequence[Change],
    ) -> None:
        """Make the files, replace the index, note the changes, remove; the lock is held.

        Raises PathTaken when a file is there already. A failure before the commit undoes all.
        """
        self._require_free(files)
        intent = Intent(
            transaction=transaction,
            created=tuple(self._layout.relative(file.path) for file in files),
            removed=tuple(map(self._layout.relative, removed)),
            changes=tuple(changes),
        )
        write_atomic(self._layout.intent, msgspec.json.encode(intent))
        try:
            self._make(files)
            self._catalog.write(entries, transaction=transaction)
        except BaseException:
            self._settle()
            raise
        self._finish(intent)

    def pending(self) -> Intent | None:
        """Return what a crashed writer has left to be settled. Raises IntentUnreadable."""
        path = self._layout.intent
        try:
            return msgspec.json.decode(path.read_bytes(), type=Intent)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise IntentUnreadable(path=path, problem=str(error)) from error

    def replace_catalog(self, entries: Iterable[Entry], *, transaction: str) -> None:
        """Replace the index, for a repair; the lock is held."""
        self._catalog.write(entries, transaction=transaction)

    def settle(self, intent: Intent, *, committed: bool) -> None:
        """Finish or undo what a crashed writer has left; the lock is held."""
        if committed:
            self._finish(intent)
        else:
            self._undo(intent)

    def _settle(self) -> None:
        intent = self.pending()
        if intent is not None:
            first = not self._layout.catalog.exists()  # the very first change of a new root
            committed = not first and self._catalog.read().transaction == intent.transaction
            self.settle(intent, committed=committed)

    def _require_free(self, files: Sequence[NewFile]) -> None:
        for file in files:
            self._layout.require_plain(file.path)
            if file.path.exists():
                raise PathTaken(path=file.path)

    def _make(self, files: Sequence[NewFile]) -> None:
        for file in files:
            make_folder(file.path.parent)
            if file.stored_at is None:
                write_atomic(file.path, file.data, sync=False)
            else:
                link_or_write(file.stored_at, file.path, file.data)
        _sync(file.path.parent for file in files)

    def _finish(self, intent: Intent) -> None:
        record(self._layout.history, intent.changes)
        self._remove(intent.removed)
        self._end()

    def _undo(self, intent: Intent) -> None:
        self._remove(intent.created)
        self._end()

    def _remove(self, names: Sequence[str]) -> None:
        paths = [self._layout.inside(name) for name in names]
        for path in paths:
            for rest in path.parent.glob(f".{path.name}{TEMPORARY}*"):
                rest.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        _sync(path.parent for path in paths if path.parent.is_dir())

    def _end(self) -> None:
        self._layout.intent.unlink(missing_ok=True)
        sync_folder(self._layout.intent.parent)


def new_transaction() -> str:
    """Return an id for a transaction."""
    return secrets.token_hex(8)


def _sync(folders: Iterable[Path]) -> None:
    for folder in dict.fromkeys(folders):
        sync_folder(folder)
