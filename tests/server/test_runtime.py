"""One daemon a storage root, and a private folder for it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tickserve_server.errors import AlreadyRunning, StorageUnusable
from tickserve_server.runtime import Runtime


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short runtime base of the test's own, through the variable that systemd sets."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


def test_socket_paths_fit_a_unix_address_and_differ_by_root(base: Path) -> None:
    """Two storage roots never meet, however long their names are."""
    first, second = Runtime(base / ("a" * 150)), Runtime(base / ("b" * 150))
    assert first.folder != second.folder
    assert len(first.records.removeprefix("ipc://")) < 100


def test_the_second_daemon_is_told_who_holds_the_root(base: Path) -> None:
    """The lock names the pid of its holder and is free again when that has gone."""
    runtime = Runtime(base / "storage")
    runtime.prepare()
    held = runtime.lock()
    with pytest.raises(AlreadyRunning, match=r"pid \d+"):
        runtime.lock()
    held.close()
    runtime.lock().close()


def test_a_folder_open_to_others_is_refused(base: Path) -> None:
    """Sockets are never put where another user could reach them."""
    runtime = Runtime(base / "storage")
    runtime.prepare()
    runtime.folder.chmod(0o755)
    with pytest.raises(StorageUnusable, match="open to others"):
        runtime.prepare()
