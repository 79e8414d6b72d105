"""The folder of one running daemon: ipc sockets, child settings and the single-daemon lock."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from pathlib import Path
from typing import IO

from tickserve_server.errors import AlreadyRunning, StorageUnusable

FOLDER_MODE = 0o700
LONGEST_BASE = 50


class Runtime:
    """Paths keyed by a hash of the storage root, so that daemons on one machine never meet.

    Socket paths stay under 100 bytes, the limit of a Unix socket address.
    """

    def __init__(self, storage_root: Path) -> None:
        self.storage_root = storage_root
        key = hashlib.sha256(os.fsencode(storage_root.resolve())).hexdigest()[:16]
        base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        if len(base) > LONGEST_BASE:
            base = "/tmp"  # noqa: S108 - the folder below is private (0700, owner checked)
        self.folder = Path(base) / f"tickserve-{os.getuid()}-{key}"

    @property
    def records(self) -> str:
        """Where the serving process hands prediction records to the recorder."""
        return f"ipc://{self.folder / 'records.sock'}"

    @property
    def admin_serving(self) -> str:
        """The serving process's admin endpoint."""
        return f"ipc://{self.folder / 'serving.sock'}"

    @property
    def admin_recorder(self) -> str:
        """The recorder process's admin endpoint."""
        return f"ipc://{self.folder / 'recorder.sock'}"

    @property
    def settings_file(self) -> Path:
        """Where the supervisor leaves the resolved settings for its children."""
        return self.folder / "settings.json"

    def prepare(self) -> None:
        """Create the folder, private to this user; raise StorageUnusable where it is not."""
        self.folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        found = self.folder.lstat()
        if found.st_uid != os.getuid() or found.st_mode & 0o077 or self.folder.is_symlink():
            raise StorageUnusable(
                root=self.storage_root,
                reason=f"its runtime folder {self.folder} belongs to another user or is open to "
                "others; remove it",
            )

    def lock(self) -> IO[str]:
        """Become the one daemon of this storage root; the lock dies with the process.

        Raises AlreadyRunning with the pid of the other daemon.
        """
        handle = (self.folder / "daemon.lock").open("a+")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            pid = handle.read().strip() or "unknown"
            handle.close()
            raise AlreadyRunning(root=self.storage_root, pid=pid) from error
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        return handle
