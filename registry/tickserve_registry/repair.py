"""Rebuild: the index made anew from the metadata files, and what a crash left settled."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from tickserve_registry.catalog import Entry, entry_of
from tickserve_registry.errors import IntentUnreadable, RegistryError
from tickserve_registry.history import (
    new_change,
    read_history,
    record,
    unreadable_lines,
    whereabouts,
)
from tickserve_registry.inspection import Inspection, Report, described
from tickserve_registry.layout import ARTEFACT, COMPILED, METADATA, Layout
from tickserve_registry.metadata import Metadata
from tickserve_registry.reader import BuildReader
from tickserve_registry.store import make_folder, sweep, sync_folder, write_atomic
from tickserve_registry.transaction import Intent, Transactions, new_transaction


class Repair:
    """Mends one storage root."""

    def __init__(
        self,
        layout: Layout,
        transactions: Transactions,
        reader: BuildReader,
        inspection: Inspection,
    ) -> None:
        self._inspection = inspection
        self._layout = layout
        self._transactions = transactions
        self._reader = reader

    def rebuild(self) -> Report:
        """Write registry.json from the metadata files; of two copies the higher revision stays."""
        findings = _Findings()
        with self._transactions.locked_as_is():
            self._settle(findings)
            swept = sweep(self._layout.root)
            if swept:
                findings.repaired.append(f"{swept} temporary files removed")
            before = self._before(findings)
            chosen, older = self._choose(findings)
            entries = {build: entry_of(each, self._layout) for build, each in chosen.items()}
            # A build whose metadata cannot be read stays in the index, to be seen and refused.
            unread = {path.stem for path in self._layout.metadata_files()} - entries.keys()
            entries |= {build: each for build, each in before.items() if build in unread}
            transaction = new_transaction()
            self._transactions.replace_catalog(entries.values(), transaction=transaction)
            self._complete_history(entries, transaction, findings)
            for path in older:
                _remove_copy(path)
                findings.repaired.append(f"older copy removed: {self._layout.relative(path)}")
            for path in self._inspection.orphans():
                self._set_aside(path)
                name = self._layout.relative(path)
                findings.repaired.append(f"set aside, no metadata beside it: {name}")
        return Report(
            builds=len(entries),
            problems=tuple(findings.problems),
            repaired=tuple(findings.repaired),
        )

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
        last = whereabouts(known)
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
        findings.repaired.append(f"{done}, a crash had cut it short: {described(intent)}")

    def _is_complete(self, intent: Intent) -> bool:
        metadata = [name for name in intent.created if name.endswith(METADATA)]
        try:
            for name in metadata:
                self._reader.verify_files(self._inspection.metadata_at(self._layout.inside(name)))
        except (RegistryError, FileNotFoundError):
            return False
        return bool(metadata)

    def _before(self, findings: _Findings) -> dict[str, Entry]:
        """Return the index as it was, if it can be read."""
        try:
            return {each.build: each for each in self._transactions.catalog().models}
        except RegistryError:
            findings.repaired.append("registry.json, which was unreadable, is made anew")
            return {}

    def _choose(self, findings: _Findings) -> tuple[dict[str, Metadata], list[Path]]:
        """Return each build's newest intact copy and the older ones that may go.

        A build of which no copy is intact stays in the index, so that it is seen and refused.
        """
        copies: dict[str, list[tuple[bool, int, Path, Metadata]]] = defaultdict(list)
        for path in self._layout.metadata_files():
            try:
                metadata = self._inspection.metadata_at(path)
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


class _Findings:
    """What a repair has found and done so far."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.repaired: list[str] = []


def _remove_copy(path: Path) -> None:
    for suffix in (METADATA, COMPILED, ARTEFACT):
        path.with_suffix(suffix).unlink(missing_ok=True)
