"""Verify and rebuild: what is wrong in a storage root, and the index made anew."""

from __future__ import annotations

import secrets
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec

from tickserve_registry.catalog import Entry, entry_of, read_catalog, write_catalog
from tickserve_registry.errors import MetadataRefused, RegistryError
from tickserve_registry.layout import ARTEFACT, COMPILED, ENVIRONMENTS, METADATA, Layout
from tickserve_registry.lifecycle import Lifecycle
from tickserve_registry.metadata import Metadata, read_file, view
from tickserve_registry.store import TEMPORARY, make_folder, sweep, sync_folder


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


def verify(layout: Layout, lifecycle: Lifecycle) -> Report:
    """Check the index against the metadata files, and every model file against its digest."""
    problems: list[str] = []
    try:
        entries = {each.build: each for each in read_catalog(layout.catalog)}
    except RegistryError as error:
        return Report(builds=0, problems=(str(error),))
    seen = set()
    for path in layout.metadata_files():
        try:
            metadata = _read(layout, path)
            seen.add(metadata.build)
            problems += _differences(layout, path, metadata, entries.get(metadata.build))
            _verify_files(lifecycle, metadata)
        except RegistryError as error:
            problems.append(str(error))
    problems += [f"{build} is in the index, its files are gone" for build in entries.keys() - seen]
    problems += [f"{layout.relative(path)} has no metadata beside it" for path in _orphans(layout)]
    problems += [f"{path} was left by a crash" for path in layout.root.rglob(f".*{TEMPORARY}*")]
    return Report(builds=len(entries), problems=tuple(problems))


def rebuild(layout: Layout, lifecycle: Lifecycle) -> Report:
    """Write registry.json from the metadata files; of two copies the higher revision stays."""
    problems: list[str] = []
    repaired: list[str] = []
    with lifecycle.locked():
        swept = sweep(layout.root)
        if swept:
            repaired.append(f"{swept} temporary files removed")
        chosen, older = _choose(layout, lifecycle, problems)
        write_catalog(layout.catalog, (entry_of(each, layout) for each in chosen.values()))
        for path in older:
            _remove_copy(path)
            repaired.append(f"older copy removed: {layout.relative(path)}")
        for path in _orphans(layout):
            _set_aside(layout, path)
            repaired.append(f"set aside, no metadata beside it: {layout.relative(path)}")
    return Report(builds=len(chosen), problems=tuple(problems), repaired=tuple(repaired))


def _choose(
    layout: Layout, lifecycle: Lifecycle, problems: list[str]
) -> tuple[dict[str, Metadata], list[Path]]:
    """Return each build's newest intact copy and the older ones that may go.

    A build of which no copy is intact stays in the index, so that it is seen and refused.
    """
    copies: dict[str, list[tuple[bool, int, Path, Metadata]]] = defaultdict(list)
    for path in layout.metadata_files():
        try:
            metadata = _read(layout, path)
        except RegistryError as error:
            problems.append(str(error))
            continue
        intact = True
        try:
            _verify_files(lifecycle, metadata)
        except RegistryError as error:
            intact = False
            problems.append(str(error))
        copies[metadata.build].append((intact, metadata.revision, path, metadata))
    chosen, older = {}, []
    for build, found in copies.items():
        *others, best = sorted(found, key=lambda copy: copy[:2])
        chosen[build] = best[3]
        older += [path for intact, _, path, _ in others if intact]
    return chosen, older


def _orphans(layout: Layout) -> list[Path]:
    """Return model files without metadata beside them: a crash came before or after it."""
    return [
        path
        for environment in ENVIRONMENTS
        for suffix in (ARTEFACT, COMPILED)
        for path in sorted((layout.root / environment).glob(f"*/v*/*{suffix}"))
        if not path.with_suffix(METADATA).exists() and not path.name.startswith(".")
    ]


def _set_aside(layout: Layout, path: Path) -> None:
    """Move a file to metadata/orphans, where nothing reads it and nothing is lost."""
    layout.require_plain(path)
    folder = layout.metadata_folder / "orphans" / secrets.token_hex(4)
    make_folder(folder)
    path.rename(folder / path.name)
    sync_folder(folder)
    sync_folder(path.parent)


def _read(layout: Layout, path: Path) -> Metadata:
    layout.require_plain(path)
    metadata = view(read_file(path), source=str(path))
    environment: Any = metadata.environment
    if environment not in ENVIRONMENTS or path != layout.file(
        metadata.build, environment, METADATA
    ):
        problem = f"says {metadata.build} in {environment}, which is not where it lies"
        raise MetadataRefused(source=str(path), field="environment", problem=problem)
    return metadata


def _differences(layout: Layout, path: Path, metadata: Metadata, entry: Entry | None) -> list[str]:
    if entry is None:
        return [f"{layout.relative(path)} is not in the index"]
    if entry.metadata_path != layout.relative(path):
        return [f"{layout.relative(path)} is a second copy; the index has {entry.metadata_path}"]
    if (entry.environment, entry.serving_digest) != (
        metadata.environment,
        metadata.serving.digest,
    ):
        return [f"{metadata.build} differs between the index and its metadata"]
    return []


def _verify_files(lifecycle: Lifecycle, metadata: Metadata) -> None:
    lifecycle.artefact(metadata, ARTEFACT, digest=metadata.sha256)
    if metadata.serving.engine == "onnxruntime":
        lifecycle.artefact(metadata, COMPILED, digest=metadata.serving.sha256)


def _remove_copy(path: Path) -> None:
    for suffix in (METADATA, COMPILED, ARTEFACT):
        path.with_suffix(suffix).unlink(missing_ok=True)
