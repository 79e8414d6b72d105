"""Files that are at all times the old one or the new one, and the lock of a storage root."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

FILE_MODE = 0o664
FOLDER_MODE = 0o2775
TEMPORARY = ".tmp-"


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


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file as one step that survives power loss; keeps its group and mode.

    Written beside it, fsynced, renamed over it, the folder fsynced.
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
    sync_folder(path.parent)


def append_line(path: Path, line: bytes) -> None:
    """Append one line durably, ending a torn last line first."""
    descriptor = _open_shared(path, os.O_APPEND)
    with os.fdopen(descriptor, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        torn = size > 0 and file.read(1) != b"\n"
        file.write(b"\n" * torn + line + b"\n")
        file.flush()
        os.fsync(descriptor)


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


def _keep_owner(path: Path, descriptor: int) -> None:
    try:
        old = path.stat()
    except FileNotFoundError:
        os.fchmod(descriptor, FILE_MODE)
        return
    os.fchmod(descriptor, old.st_mode & 0o7777)
    with contextlib.suppress(PermissionError):
        os.fchown(descriptor, -1, old.st_gid)
