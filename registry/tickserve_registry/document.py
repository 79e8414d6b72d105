"""JSON documents: read with limits, written without anything that is no JSON value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tickserve_registry import json_value
from tickserve_registry.errors import MetadataRefused
from tickserve_registry.store import read_plain

LARGEST_BYTES = 16 * 1024 * 1024


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

    plain(document, source=str(path))
    twice = _doubled(data)
    if twice is not None:
        raise MetadataRefused(source=str(path), field=twice[:80], problem="stands there twice")
    return document


def _doubled(data: bytes) -> str | None:
    """Return a key that stands twice in one object, if any does."""
    found: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        keys: set[str] = set()
        for key, _ in pairs:
            if key in keys:
                found.append(key)
            keys.add(key)

    json.loads(data, object_pairs_hook=look)
    return found[0] if found else None


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
    return json_value.plain(value, source=source, largest=LARGEST_BYTES)


def encode_plain(document: dict[str, Any], *, source: str) -> bytes:
    """Return a document that was read, or made plain, as indented JSON."""
    try:
        compact = msgspec.json.encode(document)
    except (msgspec.MsgspecError, UnicodeEncodeError, OverflowError) as error:
        raise MetadataRefused(source=source, field="", problem=str(error)) from error
    if len(compact) > LARGEST_BYTES:
        problem = f"is the largest of {len(compact)} bytes, the limit is {LARGEST_BYTES}"
        raise MetadataRefused(source=source, field=_largest(document), problem=problem)
    return msgspec.json.format(compact, indent=2) + b"\n"


def _largest(document: dict[str, Any]) -> str:
    return max(document, key=lambda field: len(msgspec.json.encode(document[field])))[:80]
