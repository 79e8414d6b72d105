"""What a traced process did to its files, and what a disk may hold of it after a power cut."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HEADER = struct.Struct("<QIIQQ")
CREATE, WRITE, TRUNCATE, SYNC, UNLINK, RENAME, SYNC_FOLDER = range(1, 8)
SECTOR = 512
CARRIES_DATA = {WRITE, RENAME}


class Operation(NamedTuple):
    """One operation on a file; `at` is monotonic nanoseconds, of a sync when it was done."""

    at: int
    kind: int
    path: str
    offset: int
    data: bytes


def read(trace: Path) -> list[Operation]:
    """Return the operations of a trace."""
    content, found, place = trace.read_bytes(), [], 0
    while place + HEADER.size <= len(content):
        at, kind, path, offset, length = HEADER.unpack_from(content, place)
        place += HEADER.size
        name = content[place : place + path].decode()
        place += path
        size = length if kind in CARRIES_DATA else 0
        found.append(Operation(at, kind, name, offset, content[place : place + size]))
        place += size
    return found


class Disk:
    """A disk that keeps what was synced, and of the rest what chance will.

    Files that `unsynced` ends the names of are treated as if nobody had ever synced them, to show
    that the check can fail.
    """

    def __init__(self, *, unsynced: str | None = None) -> None:
        self._unsynced = unsynced
        self._safe: dict[str, bytearray] = {}
        self._pending: dict[str, list[Operation]] = {}
        self._unlinked: set[str] = set()

    def do(self, operation: Operation) -> None:
        """Take one operation."""
        path = operation.path
        if operation.kind == SYNC:
            if self._unsynced is None or not path.endswith(self._unsynced):
                self._settle(path)
        elif operation.kind == SYNC_FOLDER:
            for name in self._unlinked:
                self._safe.pop(name, None)
            self._unlinked.clear()
        elif operation.kind == UNLINK:
            self._pending.pop(path, None)
            self._unlinked.add(path)
        else:
            self._unlinked.discard(path)
            self._pending.setdefault(path, []).append(operation)

    def after_power_cut(self, chance: random.Random) -> Iterator[tuple[str, bytes]]:
        """Return the files as they may be found: each unsynced write kept, torn or lost."""
        for path in sorted({*self._safe, *self._pending}):
            if path in self._unlinked and chance.random() < 0.5:
                continue
            content = bytearray(self._safe.get(path, b""))
            for operation in self._pending.get(path, []):
                _apply(content, operation, kept=_kept(operation, chance))
            if path in self._safe or content:
                yield path, bytes(content)

    def _settle(self, path: str) -> None:
        content = self._safe.setdefault(path, bytearray())
        for operation in self._pending.pop(path, []):
            _apply(content, operation, kept=None)


def _kept(operation: Operation, chance: random.Random) -> set[int] | None:
    """Return which sectors of an unsynced write reach the disk; None for all of them."""
    fate = chance.random()
    if fate < 1 / 3:
        return None
    if fate < 2 / 3:
        return set()
    sectors = range(0, max(1, len(operation.data)), SECTOR)
    return {sector for sector in sectors if chance.random() < 0.5}


def _apply(content: bytearray, operation: Operation, *, kept: set[int] | None) -> None:
    if operation.kind == CREATE and kept is None:
        content.clear()
    elif operation.kind == TRUNCATE and kept is None:
        _resize(content, operation.offset)
    elif operation.kind == WRITE:
        for start in range(0, len(operation.data), SECTOR):
            if kept is None or start in kept:
                part = operation.data[start : start + SECTOR]
                at = operation.offset + start
                if len(content) < at:
                    _resize(content, at)
                content[at : at + len(part)] = part


def _resize(content: bytearray, size: int) -> None:
    if size < len(content):
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))
