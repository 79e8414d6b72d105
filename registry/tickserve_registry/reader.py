"""Reading builds without the lock, also while another process moves them."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tickserve_registry.digest import serving_digest, sha256
from tickserve_registry.document import read_file
from tickserve_registry.errors import ArtefactRefused, MetadataRefused, ModelNotFound
from tickserve_registry.layout import ARTEFACT, COMPILED, ENVIRONMENTS, METADATA, Layout
from tickserve_registry.metadata import Metadata, view
from tickserve_registry.store import read_plain

LARGEST_BYTES = 4 << 30

MOVES_OUTRUN = 20
"""How often a reader starts again when a build is moved under it."""


class BuildReader:
    """Reads metadata and model files below one storage root; follows no link there.

    A model file of more than `largest` bytes is refused unread.
    """

    def __init__(self, layout: Layout, *, largest: int = LARGEST_BYTES) -> None:
        self._layout = layout
        self._largest = largest

    def metadata(self, build: str) -> Metadata:
        """Read one build's metadata. Raises ModelNotFound or MetadataRefused."""
        for _ in range(MOVES_OUTRUN):
            with contextlib.suppress(ModelNotFound, FileNotFoundError):
                return self._metadata(build)
        return self._metadata(build)

    def with_artefact(self, build: str, *, served: bool) -> tuple[Metadata, bytes]:
        """Read a build's metadata and its native or served file.

        Raises ModelNotFound, MetadataRefused or ArtefactRefused.
        """
        metadata = self.metadata(build)
        for _ in range(MOVES_OUTRUN):
            try:
                return metadata, self.file_of(metadata, served=served)
            except ArtefactRefused:
                latest = self.metadata(build)
                if latest.environment == metadata.environment:
                    raise
                metadata = latest
        return metadata, self.file_of(metadata, served=served)

    def metadata_path(self, build: str) -> Path:
        """Return where a build's metadata lies; of two copies that of the higher revision."""
        found = self.copies(build)
        if not found:
            raise ModelNotFound(name=build, nearest=[])
        for path in found:
            self._layout.require_plain(path)
        return found[0] if len(found) == 1 else max(found, key=_revision)

    def copies(self, build: str) -> list[Path]:
        """Return the build's metadata files in all environments."""
        places = [self._layout.file(build, each, METADATA) for each in ENVIRONMENTS]
        try:
            return [path for path in places if path.exists()]
        except OSError as error:
            problem = f"cannot be looked for ({error.strerror})"
            raise MetadataRefused(source=build, field="", problem=problem) from error

    def file_of(self, metadata: Metadata, *, served: bool) -> bytes:
        """Return the bytes of the native or the served file. Raises ArtefactRefused."""
        if served and metadata.serving.engine == "onnxruntime":
            return self.artefact(metadata, COMPILED, digest=metadata.serving.sha256)
        return self.artefact(metadata, ARTEFACT, digest=metadata.sha256)

    def artefact(self, metadata: Metadata, suffix: str, *, digest: str) -> bytes:
        """Read a model file once and return its bytes if they have the digest.

        Raises ArtefactRefused for a missing, linked or changed file.
        """
        path = self._layout.require_plain(
            self._layout.file(metadata.build, metadata.environment, suffix)
        )
        size = metadata.document.get("size") if suffix == ARTEFACT else None
        largest = size if isinstance(size, int) else self._largest
        try:
            data = read_plain(path, largest=min(largest, self._largest))
        except OSError as error:
            raise ArtefactRefused(path=path, problem=error.strerror or str(error)) from error
        found = sha256(data)
        if found != digest:
            problem = f"its SHA-256 is {found[:16]}…, {digest[:16]}… was saved"
            raise ArtefactRefused(path=path, problem=problem)
        return data

    def as_it_is(self, metadata: Metadata, suffix: str) -> bytes | None:
        """Read a model file whatever its digest, or None where there is none: for the archive.

        Raises ArtefactRefused for a link or anything but a plain file.
        """
        path = self._layout.require_plain(
            self._layout.file(metadata.build, metadata.environment, suffix)
        )
        try:
            return read_plain(path, largest=LARGEST_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ArtefactRefused(path=path, problem=error.strerror or str(error)) from error

    def require_indexed(self, metadata: Metadata, *, digest: str) -> None:
        """Refuse a build of which anything that determines an answer differs from the index.

        Whoever changes a model file and its metadata alike is found out here. Raises
        ArtefactRefused.
        """
        found = serving_digest(metadata.document, serving_sha256=metadata.serving.sha256)
        if found != digest:
            problem = "its features, input, output, thresholds or golden rows were changed"
            path = self._layout.file(metadata.build, metadata.environment, METADATA)
            raise ArtefactRefused(path=path, problem=problem)

    def verify_files(self, metadata: Metadata) -> None:
        """Check the digests of a build's files. Raises ArtefactRefused."""
        self.artefact(metadata, ARTEFACT, digest=metadata.sha256)
        if metadata.serving.engine == "onnxruntime":
            self.artefact(metadata, COMPILED, digest=metadata.serving.sha256)

    def _metadata(self, build: str) -> Metadata:
        path = self.metadata_path(build)
        metadata = view(read_file(path), source=str(path))
        if metadata.build != build:
            problem = f"says {metadata.build!r} in the file of {build}"
            raise MetadataRefused(source=str(path), field="build", problem=problem)
        return metadata


def _revision(path: Path) -> int:
    found = read_file(path).get("revision", 1)
    return found if isinstance(found, int) else 0
