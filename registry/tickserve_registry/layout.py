"""Where each file of the registry lies below the storage root."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tickserve_registry.errors import ArtefactRefused
from tickserve_registry.naming import parse_build

Environment = Literal["staging", "production", "archive"]
ENVIRONMENTS: tuple[Environment, ...] = ("staging", "production", "archive")

ARTEFACT = ".model"
COMPILED = ".onnx"
METADATA = ".json"


class Layout:
    """Paths below one storage root; the root may be a link, nothing below it may."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.metadata_folder = root / "metadata"
        self.catalog = self.metadata_folder / "registry.json"
        self.history = self.metadata_folder / "history.jsonl"
        self.halts = self.metadata_folder / "halts.json"
        self.intent = self.metadata_folder / ".intent.json"
        self.lock = self.metadata_folder / ".lock"
        self.policy = root / "promotion.toml"

    def folder(self, build: str, environment: Environment) -> Path:
        """Return the folder of a build: {environment}/{market}/v{N}."""
        name, _ = parse_build(build)
        return self.root / environment / name.market / f"v{name.version}"

    def file(self, build: str, environment: Environment, suffix: str) -> Path:
        """Return the path of one file of a build."""
        return self.folder(build, environment) / f"{build}{suffix}"

    def inside(self, name: str) -> Path:
        """Return the path that a relative name means; raise ArtefactRefused if it leads out."""
        path = self.root / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ArtefactRefused(path=path, problem="leads out of the storage root")
        return self.require_plain(path)

    def relative(self, path: Path) -> str:
        """Return a path as registry.json holds it: relative to the root."""
        return path.relative_to(self.root).as_posix()

    def metadata_files(self) -> list[Path]:
        """Return every metadata file, in all environments.

        Raises ArtefactRefused for a folder that may not be read: what it holds is not gone.
        """
        return sorted(
            path
            for environment in ENVIRONMENTS
            for market in _listed(self.root / environment)
            for version in _listed(market)
            if version.name.startswith("v")
            for path in _listed(version)
            if path.suffix == METADATA and not path.name.startswith(".")
        )

    def require_plain(self, path: Path) -> Path:
        """Return the path if no link stands between the root and it; else ArtefactRefused."""
        inside = path.relative_to(self.root)
        step = self.root
        for part in inside.parts:
            step /= part
            if _is_link(step):
                raise ArtefactRefused(path=step, problem="is a symbolic link below the root")
        return path


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except OSError as error:
        raise ArtefactRefused(path=path, problem=error.strerror or str(error)) from error


def _listed(folder: Path) -> list[Path]:
    """Return what a folder holds; nothing, if it is none. A glob passes over a closed one."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ArtefactRefused(path=folder, problem=error.strerror or str(error)) from error
