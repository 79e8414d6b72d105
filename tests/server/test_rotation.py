"""Tests of files of lines: full ones are renamed, moved ones made anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from tickserve_server.rotation import ROTATED_FILES, RotatingFile


def test_a_full_file_is_renamed_and_the_oldest_goes(tmp_path: Path) -> None:
    """Lines stay whole, and what is kept is bounded."""
    file = RotatingFile(str(tmp_path / "log"))
    file.maxBytes = 100
    for number in range(200):
        file.write_line(f"line {number:04}")
    file.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["log", *(f"log.{number}" for number in range(1, ROTATED_FILES + 1))]
    assert (tmp_path / "log").read_text().endswith("line 0199\n")
    assert all(len(path.read_text()) <= 100 for path in tmp_path.iterdir())


def test_a_moved_or_removed_file_is_made_anew(tmp_path: Path) -> None:
    """As logrotate moves it, without being told."""
    path = tmp_path / "log"
    file = RotatingFile(str(path))
    file.write_line("first")
    path.rename(tmp_path / "old")
    file.write_line("second")
    path.unlink()
    file.write_line("third")
    file.close()
    assert (path.read_text(), (tmp_path / "old").read_text()) == ("third\n", "first\n")


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """For the caller to decide on."""
    with pytest.raises(OSError, match="No such file"):
        RotatingFile(str(tmp_path / "nowhere" / "log")).write_line("x")
