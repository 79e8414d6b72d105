"""Files that are at all times the old one or the new one, and the lock of a storage root."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec

FILE_MODE = 0o664
FOLDER_MODE = 0o2775
TEMPORARY = ".tmp-"
LONGEST_LINE = 1 << 20
CLOCK_TICK_NS = 50_000_000

Fingerprint = tuple[int, int, int]
"""Inode, time of change in ns and size: differs whenever a file has been replaced."""


def make_folder(path: Path) -> None:
    """Create a folder and its parents, setgid and group-writable; existing ones stay as is."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(FOLDER_MODE)
            sync_folder(folder.parent)


def read_plain(path: Path, *, largest: int) -> bytes:
    """Return a plain file's bytes; a pipe never makes the reader wait.

    Raises FileNotFoundError, or OSError saying that it is no plain file or too large.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is no plain file")
        if found.st_size > largest:
            problem = f"takes {found.st_size} bytes, the limit is {largest}"
            raise OSError(errno.EFBIG, problem)
        return file.read()


def write_atomic(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Replace a file as one step that survives power loss; keeps its group and mode.

    Written beside it, fsynced, renamed over it, the folder fsynced. With `sync=False` the
    folder is left to the caller, who writes several files into it.
    """
    temporary = path.parent / f".{path.name}{TEMPORARY}{secrets.token_hex(4)}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            _keep_owner(path, descriptor)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)


def link_or_write(source: Path, path: Path, data: bytes) -> None:
    """Give a stored file a second name, or write its bytes where links are not possible.

    The bytes are on disk already, so a promotion writes none of them again.
    """
    try:
        os.link(source, path, follow_symlinks=False)
    except OSError:
        write_atomic(path, data, sync=False)


def append_lines(path: Path, lines: Sequence[bytes]) -> None:
    """Append lines durably, as one write; a torn last line is dropped first.

    A last line without its end that is whole JSON is a hand's, and is kept.
    """
    descriptor = _open_shared(path, os.O_APPEND)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        start = b""
        torn = _torn_line(file)
        if torn and _is_json(torn):
            start = b"\n"
        elif torn:
            file.truncate(file.seek(0, os.SEEK_END) - len(torn))
        os.write(descriptor, start + b"".join(line + b"\n" for line in lines))
        os.fsync(descriptor)


def fingerprint_of(path: str | Path) -> Fingerprint | None:
    """Return a file's fingerprint, or None when it is not there or cannot be seen."""
    try:
        found = os.stat(path)  # noqa: PTH116 - asked ten thousand times; a Path costs more than the call
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def is_settled(fingerprint: Fingerprint) -> bool:
    """Whether a later replacement must show in the fingerprint.

    Clocks of file systems are coarse: a file replaced twice within one tick may come back with
    the same inode, time and size, so a fingerprint that young proves nothing.
    """
    return time.time_ns() - fingerprint[1] > CLOCK_TICK_NS


def sync_folder(path: Path) -> None:
    """Make renames and removals in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> int:
    """Remove temporary files that a crash left below a folder; return how many."""
    count = 0
    for path in folder.rglob(f".*{TEMPORARY}*"):
        path.unlink(missing_ok=True)
        count += 1
    return count


class RootLock:
    """One writer a storage root, across threads and processes; it dies with its process.

    Not reentrant: a transaction takes it once, at its outermost step.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = threading.Lock()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for the duration of the block; waits for other writers."""
        with self._threads:
            descriptor = _open_shared(self._path, 0)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)


def _open_shared(path: Path, flags: int) -> int:
    """Open for reading and writing; a new file gets its mode whatever the umask is."""
    flags |= os.O_RDWR | os.O_NOFOLLOW
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags)
    descriptor = os.open(path, flags | os.O_CREAT, FILE_MODE)
    with contextlib.suppress(PermissionError):
        os.fchmod(descriptor, FILE_MODE)
    sync_folder(path.parent)
    return descriptor


def _torn_line(file: IO[bytes]) -> bytes:
    """Return what follows the last end of line."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - LONGEST_LINE))
    return (file.read() or b"").rpartition(b"\n")[2]


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return True


def _keep_owner(path: Path, descriptor: int) -> None:
    try:
        old = path.stat()
    except FileNotFoundError:
        os.fchmod(descriptor, FILE_MODE)
        return
    os.fchmod(descriptor, old.st_mode & 0o7777)
    with contextlib.suppress(PermissionError):
        os.fchown(descriptor, -1, old.st_gid)
