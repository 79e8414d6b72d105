"""Tests of the folder of keys: secrets, names, revocation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tickserve_client import KeyFileUnreadable, read_keys
from tickserve_server.access.grant import NOBODY
from tickserve_server.access.key_folder import KeyFolder
from tickserve_server.errors import KeyRefused, KeysUnreadable


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    """Return a folder that is not there yet."""
    return KeyFolder(tmp_path / "keys")


def test_a_key_is_made_once_and_its_secret_kept_nowhere_else(
    folder: KeyFolder, tmp_path: Path
) -> None:
    """Files are their owner's alone; the bot's file works with read_keys and holds all it needs."""
    out = tmp_path / "a.json"
    grant = folder.create("a", out=out)
    keys = read_keys(out)
    assert (keys.bot, keys.public, keys.server) == ("a", grant.public, folder.server().public)
    for path, mode in ((folder.folder, 0o700), (folder.server_file, 0o600), (out, 0o600)):
        assert path.stat().st_mode & 0o777 == mode
    kept = "".join(path.read_text() for path in folder.folder.iterdir())
    assert keys.secret not in kept
    assert folder.ring().find(keys.public) == grant
    assert folder.problems() == []


def test_a_revoked_name_may_get_a_new_key(folder: KeyFolder, tmp_path: Path) -> None:
    """The old key stays known as revoked, and each change counts the revision up."""
    old = folder.create("a", out=tmp_path / "1")
    with pytest.raises(KeyRefused, match="revoke it first"):
        folder.create("a", out=tmp_path / "2")
    assert folder.revoke("a") == 2
    new = folder.create("a", out=tmp_path / "2")
    ring = folder.ring()
    assert ring.revision == 3
    assert ring.find(old.public).revoked_at is not None
    assert ring.find(new.public).revoked_at is None
    with pytest.raises(KeyRefused, match="there are keys of: a"):
        folder.revoke("b")


@pytest.mark.parametrize("name", ["", "operator", "a b", "../x", "-x", "x" * 65])
def test_a_name_that_could_mislead_is_refused(folder: KeyFolder, tmp_path: Path, name: str) -> None:
    """No path, no blank, nothing too long, and not the name of the machine's own commands."""
    with pytest.raises(KeyRefused):
        folder.create(name, out=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_no_file_is_written_over(folder: KeyFolder, tmp_path: Path) -> None:
    """Neither another's key file is lost, nor a key granted that nobody has."""
    out = tmp_path / "a.json"
    out.write_text("precious")
    with pytest.raises(KeyRefused, match="File exists"):
        folder.create("a", out=out)
    assert out.read_text() == "precious"
    assert folder.grants() == ()


def test_damaged_files_say_so(folder: KeyFolder, tmp_path: Path) -> None:
    """A ring is never guessed; a folder without keys says how to make one."""
    with pytest.raises(KeysUnreadable, match="tickserve keys new"):
        folder.ring()
    grant = folder.create("a", out=tmp_path / "a")
    folder.grants_file.write_text("{")
    with pytest.raises(KeysUnreadable):
        folder.ring()
    folder.grants_file.unlink()
    assert folder.ring().find(grant.public) is NOBODY
    folder.server_file.chmod(0o644)
    assert "chmod 600" in folder.problems()[0]


@pytest.mark.parametrize(
    "content",
    ["", "{}", json.dumps({"bot": "a", "public": "x", "secret": "y", "server": "z"})],
)
def test_a_key_file_that_is_none_says_how_to_get_one(tmp_path: Path, content: str) -> None:
    """Missing, of another form, or with keys that are none."""
    path = tmp_path / "a.json"
    with pytest.raises(KeyFileUnreadable, match="No such file"):
        read_keys(path)
    path.write_text(content)
    with pytest.raises(KeyFileUnreadable, match="tickserve keys new"):
        read_keys(path)
