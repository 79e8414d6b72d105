"""Importing: each model that was found in a folder becomes a build, or says why it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tickserve_registry.errors import PromotionRefused, RegistryError
from tickserve_registry.intake import Candidate, Imported, candidates, created_at, info_of
from tickserve_registry.lifecycle import Lifecycle
from tickserve_registry.model_file import ModelFiles
from tickserve_registry.saving import make_build
from tickserve_registry.transaction import Transactions
from tickserve_registry.trust import Trust


class Importer:
    """Brings models of other folders into one storage root."""

    def __init__(
        self, transactions: Transactions, lifecycle: Lifecycle, files: ModelFiles, *, trust: Trust
    ) -> None:
        self._transactions = transactions
        self._lifecycle = lifecycle
        self._files = files
        self._trust = trust

    def import_folder(self, folder: Path, *, dry_run: bool) -> Iterator[Imported]:
        """Yield what became of each model, oldest first; a dry run writes nothing."""
        found = candidates(folder)
        return (self._import(each, dry_run=dry_run) for each in found)

    def _import(self, candidate: Candidate, *, dry_run: bool) -> Imported:
        outcome = partial(
            Imported,
            source=str(candidate.model or candidate.stem),
            build=candidate.stem,
            environment=candidate.environment,
            notes=candidate.notes,
        )
        if candidate.problem is not None or candidate.model is None:
            return outcome(outcome="refused", reason=candidate.problem)
        present = {entry.build for entry in self._transactions.catalog().models}
        if candidate.stem.lower() in present:
            return outcome(outcome="present")
        try:
            return self._store(candidate, candidate.model, outcome, dry_run=dry_run)
        except RegistryError as error:
            return outcome(outcome="refused", reason=str(error))

    def _store(
        self, candidate: Candidate, path: Path, outcome: partial[Imported], *, dry_run: bool
    ) -> Imported:
        model, names = self._files.load(path)
        info = info_of(candidate)
        if names and not info.get("features"):
            info["features"] = list(names)
        new = make_build(model, info, trust=self._trust, created_at=created_at(info))
        if dry_run:
            return outcome(outcome="would import", build=new.build)
        try:
            self._lifecycle.store(
                new, environment=candidate.environment, keep=True, action="import"
            )
        except PromotionRefused as error:
            self._lifecycle.store(new, environment="staging", action="import")
            return outcome(
                outcome="imported", build=new.build, environment="staging", reason=str(error)
            )
        return outcome(outcome="imported", build=new.build)
