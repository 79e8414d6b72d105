"""Verify: what is wrong in a storage root, found without changing anything."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tickserve_registry.catalog import Entry
from tickserve_registry.document import read_strictly
from tickserve_registry.errors import MetadataRefused, RegistryError
from tickserve_registry.history import read_history, unreadable_lines, whereabouts
from tickserve_registry.layout import ARTEFACT, COMPILED, ENVIRONMENTS, METADATA, Layout
from tickserve_registry.metadata import Metadata, require_stated, view
from tickserve_registry.reader import BuildReader
from tickserve_registry.store import TEMPORARY
from tickserve_registry.transaction import Intent, Transactions


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a check or a repair found; true when nothing is wrong."""

    builds: int
    problems: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        lines = [_counted(self.builds, "build") + ", " + _counted(len(self.problems), "problem")]
        lines += [f"repaired: {each}" for each in self.repaired]
        lines += [f"problem: {each}" for each in self.problems]
        return "\n".join(lines)


class Inspection:
    """Looks through one storage root."""

    def __init__(self, layout: Layout, transactions: Transactions, reader: BuildReader) -> None:
        self._layout = layout
        self._transactions = transactions
        self._reader = reader

    def verify(self) -> Report:
        """Check index, metadata, audit trail, and every model file against its digest.

        Looks without the lock first, so that a service is not held up; only where something
        seems wrong does it look again while nobody writes.
        """
        report = self._check()
        if report:
            return report
        with contextlib.suppress(OSError), self._transactions.locked_as_is():
            return self._check()
        return report

    def metadata_at(self, path: Path) -> Metadata:
        """Read a metadata file strictly; raise MetadataRefused for one that is out of place."""
        self._layout.require_plain(path)
        document = read_strictly(path)
        require_stated(document, source=str(path))
        metadata = view(document, source=str(path))
        environment: Any = metadata.environment
        if environment not in ENVIRONMENTS or path != self._layout.file(
            metadata.build, environment, METADATA
        ):
            problem = f"says {metadata.build} in {environment}, which is not where it lies"
            raise MetadataRefused(source=str(path), field="environment", problem=problem)
        return metadata

    def orphans(self) -> list[Path]:
        """Return model files without metadata beside them: a crash came before or after it."""
        return [
            path
            for environment in ENVIRONMENTS
            for suffix in (ARTEFACT, COMPILED)
            for path in sorted((self._layout.root / environment).glob(f"*/v*/*{suffix}"))
            if not path.with_suffix(METADATA).exists() and not path.name.startswith(".")
        ]

    def _check(self) -> Report:
        problems: list[str] = []
        try:
            entries = {each.build: each for each in self._transactions.catalog().models}
            paths = self._layout.metadata_files()
        except RegistryError as error:
            return Report(builds=0, problems=(str(error),))
        seen = set()
        for path in paths:
            try:
                metadata = self.metadata_at(path)
                seen.add(metadata.build)
                problems += self._differences(path, metadata, entries.get(metadata.build))
                self._reader.verify_files(metadata)
            except FileNotFoundError:  # moved meanwhile
                problems.append(f"{self._layout.relative(path)} has gone")
            except RegistryError as error:
                seen.add(path.stem)
                problems.append(str(error))
        lost = sorted(entries.keys() - seen)
        problems += [f"{build} is in the index, its files are gone" for build in lost]
        names = map(self._layout.relative, self.orphans())
        problems += [f"{name} has no metadata beside it" for name in names]
        problems += self._left_by_a_crash()
        problems += self._history_problems(entries)
        return Report(builds=len(entries), problems=tuple(problems))

    def _left_by_a_crash(self) -> list[str]:
        problems = []
        try:
            intent = self._transactions.pending()
        except RegistryError as error:
            problems.append(str(error))
        else:
            if intent is not None:
                problems.append(f"cut short by a crash: {described(intent)}")
        rests = sorted(self._layout.root.rglob(f".*{TEMPORARY}*"))
        return problems + [f"{self._layout.relative(path)} was left by a crash" for path in rests]

    def _history_problems(self, entries: Mapping[str, Entry]) -> list[str]:
        path = self._layout.history
        last = whereabouts(read_history(path))
        problems = [
            f"{build} is in {entry.environment}, the audit trail has it in {last.get(build)}"
            for build, entry in sorted(entries.items())
            if last.get(build) != entry.environment
        ]
        unreadable = unreadable_lines(path)
        if unreadable:
            problems.append(f"{self._layout.relative(path)} has {unreadable} unreadable lines")
        return problems

    def _differences(self, path: Path, metadata: Metadata, entry: Entry | None) -> list[str]:
        name = self._layout.relative(path)
        if entry is None:
            return [f"{name} is not in the index"]
        if entry.metadata_path != name:
            return [f"{name} is a second copy; the index has {entry.metadata_path}"]
        indexed = entry.environment, entry.serving_digest
        if indexed != (metadata.environment, metadata.serving.digest):
            return [f"{metadata.build} differs between the index and its metadata"]
        return []


def described(intent: Intent) -> str:
    """Return a change in words: what was to go where."""
    steps = (f"{each.action} {each.build} to {each.target}" for each in intent.changes)
    return ", ".join(steps)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
