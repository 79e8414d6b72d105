"""Verify and rebuild: what is wrong in a storage root, and the index made anew."""

from __future__ import annotations

import contextlib
import secrets
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tickserve_registry.catalog import Entry, entry_of
from tickserve_registry.document import read_strictly
from tickserve_registry.errors import IntentUnreadable, MetadataRefused, RegistryError
from tickserve_registry.history import new_change, read_history, record, unreadable_lines
from tickserve_registry.layout import ARTEFACT, COMPILED, ENVIRONMENTS, METADATA, Layout
from tickserve_registry.metadata import Metadata, view
from tickserve_registry.reader import BuildReader
from tickserve_registry.store import TEMPORARY, make_folder, sweep, sync_folder, write_atomic
from tickserve_registry.transaction import Intent, Transactions, new_transaction


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a check or a repair found; true when nothing is wrong."""

    builds: int
    problems: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        lines = [f"{self.builds} builds, {len(self.problems)} problems"]
        lines += [f"repaired: {each}" for each in self.repaired]
        lines += [f"problem: {each}" for each in self.problems]
        return "\n".join(lines)


class Repair:
    """Checks and repairs one storage root."""

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

    def rebuild(self) -> Report:
        """Write registry.json from the metadata files; of two copies the higher revision stays."""
        findings = _Findings()
        with self._transactions.locked_as_is():
            self._settle(findings)
            swept = sweep(self._layout.root)
            if swept:
                findings.repaired.append(f"{swept} temporary files removed")
            chosen, older = self._choose(findings)
            entries = {build: entry_of(each, self._layout) for build, each in chosen.items()}
            transaction = new_transaction()
            self._transactions.replace_catalog(entries.values(), transaction=transaction)
            self._complete_history(entries, transaction, findings)
            for path in older:
                _remove_copy(path)
                findings.repaired.append(f"older copy removed: {self._layout.relative(path)}")
            for path in self._orphans():
                self._set_aside(path)
                name = self._layout.relative(path)
                findings.repaired.append(f"set aside, no metadata beside it: {name}")
        return Report(
            builds=len(chosen),
            problems=tuple(findings.problems),
            repaired=tuple(findings.repaired),
        )

    def _check(self) -> Report:
        problems: list[str] = []
        try:
            entries = {each.build: each for each in self._transactions.catalog().models}
        except RegistryError as error:
            return Report(builds=0, problems=(str(error),))
        seen = set()
        for path in self._layout.metadata_files():
            try:
                metadata = self._read(path)
                seen.add(metadata.build)
                problems += self._differences(path, metadata, entries.get(metadata.build))
                self._reader.verify_files(metadata)
            except FileNotFoundError:  # moved meanwhile
                problems.append(f"{self._layout.relative(path)} has gone")
            except RegistryError as error:
                problems.append(str(error))
        lost = sorted(entries.keys() - seen)
        problems += [f"{build} is in the index, its files are gone" for build in lost]
        names = map(self._layout.relative, self._orphans())
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
                problems.append(f"cut short by a crash: {_described(intent)}")
        rests = sorted(self._layout.root.rglob(f".*{TEMPORARY}*"))
        return problems + [f"{self._layout.relative(path)} was left by a crash" for path in rests]

    def _history_problems(self, entries: Mapping[str, Entry]) -> list[str]:
        path = self._layout.history
        last = {change.build: change.target for change in read_history(path)}
        problems = [
            f"{build} is in {entry.environment}, the audit trail has it in {last.get(build)}"
            for build, entry in sorted(entries.items())
            if last.get(build) != entry.environment
        ]
        unreadable = unreadable_lines(path)
        if unreadable:
            problems.append(f"{self._layout.relative(path)} has {unreadable} unreadable lines")
        return problems

    def _complete_history(
        self, entries: Mapping[str, Entry], transaction: str, findings: _Findings
    ) -> None:
        """Note in the audit trail what a hand has done beside it; set unreadable lines aside."""
        path = self._layout.history
        known = read_history(path)
        if unreadable_lines(path):
            self._keep_aside(path)
            write_atomic(path, b"")
            record(path, known)
            findings.repaired.append("unreadable lines of the audit trail set aside")
        last = {change.build: change.target for change in known}
        found = [each for build, each in entries.items() if last.get(build) != each.environment]
        changes = [
            new_change(
                transaction=transaction,
                action="rebuild",
                build=each.build,
                origin=last.get(each.build),
                target=each.environment,
                digest=each.serving_digest,
                reason="found there by a rebuild",
            )
            for each in found
        ]
        if changes:
            record(path, changes)
            findings.repaired += [f"noted in the audit trail: {each.build}" for each in changes]

    def _settle(self, findings: _Findings) -> None:
        """Finish or undo what a crash cut short; without a readable index, by what is there."""
        try:
            intent = self._transactions.pending()
        except IntentUnreadable as error:
            self._set_aside(error.path)
            findings.repaired.append("an unreadable note of a crashed change was set aside")
            return
        if intent is None:
            return
        try:
            committed = self._transactions.catalog().transaction == intent.transaction
        except RegistryError:
            committed = self._is_complete(intent)
        self._transactions.settle(intent, committed=committed)
        done = "finished" if committed else "undone"
        findings.repaired.append(f"{done}, a crash had cut it short: {_described(intent)}")

    def _is_complete(self, intent: Intent) -> bool:
        metadata = [name for name in intent.created if name.endswith(METADATA)]
        try:
            for name in metadata:
                self._reader.verify_files(self._read(self._layout.inside(name)))
        except (RegistryError, FileNotFoundError):
            return False
        return bool(metadata)

    def _choose(self, findings: _Findings) -> tuple[dict[str, Metadata], list[Path]]:
        """Return each build's newest intact copy and the older ones that may go.

        A build of which no copy is intact stays in the index, so that it is seen and refused.
        """
        copies: dict[str, list[tuple[bool, int, Path, Metadata]]] = defaultdict(list)
        for path in self._layout.metadata_files():
            try:
                metadata = self._read(path)
            except RegistryError as error:
                findings.problems.append(str(error))
                continue
            intact = True
            try:
                self._reader.verify_files(metadata)
            except RegistryError as error:
                intact = False
                findings.problems.append(str(error))
            copies[metadata.build].append((intact, metadata.revision, path, metadata))
        chosen, older = {}, []
        for build, found in copies.items():
            *others, best = sorted(found, key=lambda copy: copy[:2])
            chosen[build] = best[3]
            older += [path for intact, _, path, _ in others if intact]
        return chosen, older

    def _orphans(self) -> list[Path]:
        """Return model files without metadata beside them: a crash came before or after it."""
        return [
            path
            for environment in ENVIRONMENTS
            for suffix in (ARTEFACT, COMPILED)
            for path in sorted((self._layout.root / environment).glob(f"*/v*/*{suffix}"))
            if not path.with_suffix(METADATA).exists() and not path.name.startswith(".")
        ]

    def _set_aside(self, path: Path) -> None:
        """Move a file to metadata/orphans, where nothing reads it and nothing is lost."""
        folder = self._aside(path)
        path.rename(folder / path.name)
        sync_folder(folder)
        sync_folder(path.parent)

    def _keep_aside(self, path: Path) -> None:
        """Put a copy of a file into metadata/orphans."""
        write_atomic(self._aside(path) / path.name, path.read_bytes())

    def _aside(self, path: Path) -> Path:
        self._layout.require_plain(path)
        folder = self._layout.metadata_folder / "orphans" / secrets.token_hex(4)
        make_folder(folder)
        return folder

    def _read(self, path: Path) -> Metadata:
        self._layout.require_plain(path)
        metadata = view(read_strictly(path), source=str(path))
        environment: Any = metadata.environment
        if environment not in ENVIRONMENTS or path != self._layout.file(
            metadata.build, environment, METADATA
        ):
            problem = f"says {metadata.build} in {environment}, which is not where it lies"
            raise MetadataRefused(source=str(path), field="environment", problem=problem)
        return metadata

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


class _Findings:
    """What a repair has found and done so far."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.repaired: list[str] = []


def _described(intent: Intent) -> str:
    """Return a change in words: what was to go where."""
    steps = (f"{each.action} {each.build} to {each.target}" for each in intent.changes)
    return ", ".join(steps)


def _remove_copy(path: Path) -> None:
    for suffix in (METADATA, COMPILED, ARTEFACT):
        path.with_suffix(suffix).unlink(missing_ok=True)
