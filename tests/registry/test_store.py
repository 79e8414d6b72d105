"""Tests of atomic files and the lock."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tickserve_registry.store import RootLock, append_lines, make_folder, write_atomic


def test_replacement_keeps_the_mode_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """A file that is replaced keeps its mode; a new one is group-writable."""
    path = tmp_path / "file"
    write_atomic(path, b"one")
    assert path.stat().st_mode & 0o777 == 0o664
    path.chmod(0o640)
    write_atomic(path, b"two")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"two", 0o640)
    assert list(tmp_path.iterdir()) == [path]


def test_a_replacement_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """Where the rename cannot happen, the old state stays and no temporary file does."""
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomic(path, b"data")
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_shared_with_the_group(tmp_path: Path) -> None:
    """New folders are setgid and group-writable, parents too."""
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o2775


def test_a_torn_last_line_is_dropped_and_a_whole_one_kept(tmp_path: Path) -> None:
    """A line that a crash tore goes; one that only lacks its end is ended."""
    path = tmp_path / "history"
    path.write_bytes(b'{"a": 1}\n{"b": ')
    append_lines(path, [b'{"c": 3}', b'{"d": 4}'])
    assert path.read_bytes() == b'{"a": 1}\n{"c": 3}\n{"d": 4}\n'
    path.write_bytes(b'{"a": 1}')
    append_lines(path, [b'{"c": 3}'])
    assert path.read_bytes() == b'{"a": 1}\n{"c": 3}\n'


def hold(path: Path, ready: Connection) -> None:
    """Take the lock, say so, and wait to be killed."""
    with RootLock(path).held():
        ready.send(True)
        signal.pause()


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    """A holder that is killed leaves no lock behind."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    holder = context.Process(target=hold, args=(tmp_path / "lock", theirs))
    holder.start()
    assert ours.recv()
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join()
    with RootLock(tmp_path / "lock").held():
        pass
