"""Verify and rebuild: what is wrong in a storage root, and the index made anew."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import msgspec

from tickserve_registry.catalog import Entry, entry_of, read_catalog, write_catalog
from tickserve_registry.errors import RegistryError
from tickserve_registry.layout import ARTEFACT, COMPILED, METADATA, Layout
from tickserve_registry.lifecycle import Lifecycle
from tickserve_registry.metadata import Metadata, read_document, view
from tickserve_registry.store import TEMPORARY, sweep


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
        copies: dict[str, list[tuple[Path, Metadata]]] = defaultdict(list)
        for path in layout.metadata_files():
            try:
                metadata = _read(layout, path)
                _verify_files(lifecycle, metadata)
                copies[metadata.build].append((path, metadata))
            except RegistryError as error:
                problems.append(str(error))
        entries = []
        for found in copies.values():
            *older, (_, newest) = sorted(found, key=lambda copy: copy[1].revision)
            for path, _ in older:
                _remove_copy(path)
                repaired.append(f"older copy removed: {layout.relative(path)}")
            entries.append(entry_of(newest, layout))
        write_catalog(layout.catalog, entries)
    return Report(builds=len(entries), problems=tuple(problems), repaired=tuple(repaired))


def _read(layout: Layout, path: Path) -> Metadata:
    layout.require_plain(path)
    return view(read_document(path.read_bytes(), source=str(path)), source=str(path))


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
