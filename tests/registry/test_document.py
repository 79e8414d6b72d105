"""Tests of documents: JSON text from anywhere is read with limits, and what is written is read."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tickserve_registry.document import (
    LARGEST_BYTES,
    encode_plain,
    read_file,
    read_strictly,
    write_document,
)
from tickserve_registry.errors import MetadataRefused


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a document may be written."""
    return tmp_path / "model.json"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"1",
        b'"text"',
        b"null",
        b"{",
        b"{} {}",
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"1" * 5_000 + b"}",
        b'{"a": "\\ud800"}',
        b'{"a": "\xed\xa0\x80"}',
        b"{'a': 1}",
        b'{"a": 1,}',
        b"\x00" * 100,
        b'{"a":' * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_no_json_object_is_refused(path: Path, data: bytes) -> None:
    """Each is a MetadataRefused that names the file."""
    path.write_bytes(data)
    for read in (read_file, read_strictly):
        with pytest.raises(MetadataRefused) as refused:
            read(path)
        assert refused.value.source == str(path)


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ('{"a": 1, "b": [{"c": 1, "c": 2}]}', "c", "twice"),
        ('{"a": 1, "\\u0061": 1}', "a", "twice"),
        ('{"a":' * 100 + "1" + "}" * 100, "a.a.a", "nested deeper"),
        ('{"a": 9223372036854775808}', "a", "64 bits"),
    ],
)
def test_what_other_readers_read_otherwise_is_reported(
    path: Path, text: str, field: str, words: str
) -> None:
    """A key that stands twice, depth and long integers pass a daemon's reading, and no check."""
    path.write_text(text)
    assert read_file(path)
    with pytest.raises(MetadataRefused, match=words) as refused:
        read_strictly(path)
    assert refused.value.field.startswith(field)


def test_many_keys_are_checked_in_no_time(path: Path) -> None:
    """An object of 100,000 keys is looked through once, not once for each key."""
    path.write_text(json.dumps(dict.fromkeys(map(str, range(100_000)), 1)))
    start = time.monotonic()
    assert len(read_strictly(path)) == 100_000
    assert time.monotonic() - start < 5


def test_a_file_of_100_mb_is_not_read(path: Path) -> None:
    """Its size is seen before its contents."""
    with path.open("wb") as file:
        os.truncate(file.fileno(), 100 * 1024 * 1024)
    for read in (read_file, read_strictly):
        with pytest.raises(MetadataRefused, match="the limit is"):
            read(path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_at_once(path: Path, make: Any) -> None:
    """A pipe, on which a reader would wait for ever, and a folder."""
    make(path)
    with pytest.raises(MetadataRefused, match="cannot be read"):
        read_file(path)


def test_a_file_that_has_gone_is_told_apart(path: Path) -> None:
    """Another process may have moved it: no refusal, the caller looks again."""
    with pytest.raises(FileNotFoundError):
        read_file(path)


def test_the_limit_names_the_largest_field() -> None:
    """Escapes make a text longer in JSON than it was: then the whole is refused by its field."""
    document = {"small": "x" * 1_000, "large": "\x00" * (LARGEST_BYTES // 4)}
    with pytest.raises(MetadataRefused, match="the limit is") as refused:
        write_document(document, source="x")
    assert refused.value.field == "large"


def test_what_is_written_is_read_back(path: Path) -> None:
    """Indented JSON in the order given, ending with a line end, the same when written again."""
    document = {"b": 1, "a": [1.5, None, {"c": "ä\n\u2028"}], "tiny": 5e-324, "n": 2**63 - 1}
    data = write_document(document, source="x")
    assert data.endswith(b"}\n")
    assert list(msgspec.json.decode(data)) == ["b", "a", "tiny", "n"]
    path.write_bytes(data)
    assert read_strictly(path) == document
    assert encode_plain(read_file(path), source="x") == data
