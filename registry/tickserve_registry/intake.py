"""Folders of models laid out by the naming convention's own utility, found and made sense of."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple

import msgspec

from tickserve_registry.document import read_strictly
from tickserve_registry.errors import ArtefactRefused, MetadataRefused
from tickserve_registry.layout import COMPILED, ENVIRONMENTS, METADATA, Environment

INDEX = "registry.json"
MODEL_SUFFIXES = (".model", ".joblib", ".pkl", ".onnx", ".ubj", ".skops")
PREFERRED: tuple[Environment, ...] = ("production", "staging", "archive")
"""Where of two copies nothing says which counts: promotion there left the old one behind."""

PLACES = ("file_path", "metadata_path", "environment")
"""Fields of the old index that say where a model was; they do not belong to its metadata."""

Outcome = Literal["imported", "would import", "present", "refused"]


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one model: where it was, its build, and why not, or what was noticed."""

    source: str
    build: str
    outcome: Outcome
    environment: Environment | None = None
    reason: str | None = None
    notes: tuple[str, ...] = ()


class Candidate(NamedTuple):
    """A model that was found: its files, where it belongs, and what is odd about it."""

    stem: str
    model: Path | None
    info: Mapping[str, Any] | None
    environment: Environment
    notes: tuple[str, ...] = ()
    problem: str | None = None


def candidates(folder: Path) -> list[Candidate]:
    """Return every model below a folder, oldest first; each names its own problem."""
    if not folder.is_dir():
        raise ArtefactRefused(path=folder, problem="is no folder", remedy="")
    index = _index(folder)
    models: dict[str, list[Path]] = defaultdict(list)
    documents: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.name.startswith(".") or path.parent.name == "metadata" or not path.is_file():
            continue
        if path.suffix in MODEL_SUFFIXES:
            models[path.stem].append(path)
        elif path.suffix == METADATA:
            documents[path.stem].append(path)
    for stem, paths in models.items():
        originals = [path for path in paths if path.suffix != COMPILED]
        models[stem] = originals or paths  # what was compiled from a model is no model of its own
    stems = {*models, *documents, *index}
    found = [_candidate(stem, models[stem], documents[stem], index.get(stem)) for stem in stems]
    return sorted(found, key=lambda each: (each.stem[-8:], each.stem))


def info_of(candidate: Candidate) -> dict[str, Any]:
    """Return the metadata as save_model takes it: named by the file where it names nothing."""
    info = {key: value for key, value in (candidate.info or {}).items() if key not in PLACES}
    stem_id, _, date = candidate.stem.rpartition("_")
    info.setdefault("model_id", stem_id)
    return info | {"date": date}


def created_at(info: Mapping[str, Any]) -> str | None:
    """Return when the model says that it was made, in UTC; without a zone UTC is meant."""
    try:
        stamp = dt.datetime.fromisoformat(str(info.get("created_at")))
    except ValueError:
        return None
    zoned = stamp if stamp.tzinfo is not None else stamp.replace(tzinfo=dt.UTC)
    return zoned.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _index(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Return the old index by the stems of its files; its paths may belong to another root."""
    path = folder / "metadata" / INDEX
    if not path.exists():
        return {}
    models = read_strictly(path).get("models")
    if not isinstance(models, list):
        raise MetadataRefused(source=str(path), field="models", problem="is no list")
    entries = [each for each in models if isinstance(each, dict)]
    return {_stem(each): each for each in entries}


def _stem(entry: Mapping[str, Any]) -> str:
    path = str(entry.get("file_path") or entry.get("metadata_path") or entry.get("model_id") or "?")
    return PurePath(path.replace("\\", "/")).stem


def _candidate(
    stem: str, models: list[Path], documents: list[Path], entry: Mapping[str, Any] | None
) -> Candidate:
    environment = _environment(models or documents, entry)
    model = _preferred(models, environment)
    notes = [f"another copy, {each}, was left alone" for each in models if each != model]
    notes += [f"{each} differs from the copy taken" for each in _different(model, models)]
    document = _preferred(documents, environment)
    info = entry
    try:
        if document is not None:
            info = read_strictly(document)
    except MetadataRefused as error:
        return Candidate(stem, model, None, environment, tuple(notes), str(error))
    problem = None
    if model is None:
        problem = "there is no model file of this name"
    elif info is None:
        problem = f"there is no metadata beside it; write {stem}{METADATA}"
    return Candidate(stem, model, info, environment, tuple(notes), problem)


def _environment(paths: Iterable[Path], entry: Mapping[str, Any] | None) -> Environment:
    stated = (entry or {}).get("environment")
    for environment in ENVIRONMENTS:
        if stated == environment:
            return environment
    folders = {part for path in paths for part in path.parts}
    return next((each for each in PREFERRED if each in folders), "staging")


def _preferred(paths: list[Path], environment: Environment) -> Path | None:
    inside = [path for path in paths if environment in path.parts]
    return next(iter(inside or paths), None)


def _different(model: Path | None, models: list[Path]) -> list[Path]:
    if model is None or len(models) == 1:
        return []
    data = model.read_bytes()
    return [each for each in models if each != model and each.read_bytes() != data]
