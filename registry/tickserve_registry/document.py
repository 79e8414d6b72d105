"""JSON documents: read with limits, written without anything that is no JSON value."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from tickserve_registry.errors import MetadataRefused
from tickserve_registry.store import read_plain

LARGEST_BYTES = 16 * 1024 * 1024
DEEPEST = 64
LARGEST_INTEGER = 2**63 - 1


def read_document(data: bytes, *, source: str) -> dict[str, Any]:
    """Parse a metadata file; raise MetadataRefused for anything but one JSON object."""
    try:
        document = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        problem = f"is no valid JSON ({error})"
        raise MetadataRefused(source=source, field="", problem=problem) from error
    if not isinstance(document, dict):
        raise MetadataRefused(source=source, field="", problem="is no JSON object")
    return document


def read_file(path: Path) -> dict[str, Any]:
    """Read a metadata file; raise MetadataRefused, or FileNotFoundError if it has gone."""
    return read_document(_read_bytes(path), source=str(path))


def read_strictly(path: Path) -> dict[str, Any]:
    """Read a metadata file as `read_file`, and refuse a key that stands twice in one object.

    Other readers of such a file would see other values than this one.
    """
    data = _read_bytes(path)
    document = read_document(data, source=str(path))

    def once(pairs: list[tuple[str, Any]]) -> None:
        keys = [key for key, _ in pairs]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise MetadataRefused(source=str(path), field=twice[:80], problem="stands there twice")

    json.loads(data, object_pairs_hook=once)
    _plain(document, source=str(path), path="", depth=0)
    return document


def _read_bytes(path: Path) -> bytes:
    try:
        return read_plain(path, largest=LARGEST_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
        raise MetadataRefused(source=str(path), field="", problem=problem) from error


def write_document(document: Mapping[str, Any], *, source: str) -> bytes:
    """Return the document as indented JSON; what is no JSON value is refused, naming the field."""
    return encode_plain(plain(document, source=source), source=source)


def plain(value: Mapping[str, Any], *, source: str) -> dict[str, Any]:
    """Return a mapping as JSON has it; raise MetadataRefused naming the field that cannot be."""
    found: dict[str, Any] = _plain(value, source=source, path="", depth=0)
    return found


def encode_plain(document: dict[str, Any], *, source: str) -> bytes:
    """Return a document that was read, or made plain, as indented JSON."""
    try:
        compact = msgspec.json.encode(document)
    except (msgspec.MsgspecError, UnicodeEncodeError, OverflowError) as error:
        raise MetadataRefused(source=source, field="", problem=str(error)) from error
    if len(compact) > LARGEST_BYTES:
        problem = f"takes {len(compact)} bytes, the limit is {LARGEST_BYTES}"
        raise MetadataRefused(source=source, field="", problem=problem)
    return msgspec.json.format(compact, indent=2) + b"\n"


def _plain(value: Any, *, source: str, path: str, depth: int) -> Any:
    """Return a value as JSON has it, numpy's and pandas' scalars and arrays among them.

    Raises MetadataRefused naming the field: NaN, Infinity, other types, too deep nesting.
    """
    if depth > DEEPEST:
        problem = f"is nested deeper than {DEEPEST} levels"
        raise MetadataRefused(source=source, field=path[:80], problem=problem)
    if isinstance(value, float) and not math.isfinite(value):
        problem = f"is {value}, which is no JSON number; use null"
        raise MetadataRefused(source=source, field=path, problem=problem)
    if isinstance(value, float):
        return float(value)  # numpy's float64 is a float, too
    if isinstance(value, int) and not -LARGEST_INTEGER <= value <= LARGEST_INTEGER:
        problem = "is an integer of more than 64 bits, which readers of JSON lose; write it as text"
        raise MetadataRefused(source=source, field=path, problem=problem)
    if value is None or isinstance(value, str | bool | int):
        return value
    inner = partial(_plain, source=source, depth=depth + 1)
    if isinstance(value, Mapping):
        return {
            _key(key, source=source, path=path): inner(item, path=f"{path}.{key}" if path else key)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [inner(item, path=f"{path}[{index}]") for index, item in enumerate(value)]
    return inner(_converted(value, source=source, path=path), path=path)


def _key(key: object, *, source: str, path: str) -> str:
    if isinstance(key, str):
        return key
    problem = f"has a key that is no text: {key!r}"
    raise MetadataRefused(source=source, field=path, problem=problem)


def _converted(value: Any, *, source: str, path: str) -> Any:
    if getattr(value, "isoformat", None) is not None and value != value:  # noqa: PLR0124 - no time
        problem = "is no time; use null"
        raise MetadataRefused(source=source, field=path, problem=problem)
    for method in ("tolist", "isoformat"):
        convert = getattr(value, method, None)
        if callable(convert):
            return convert()
    problem = f"is a {type(value).__name__}, which is no JSON value"
    raise MetadataRefused(source=source, field=path, problem=problem)
