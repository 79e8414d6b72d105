"""Precedence, refusal of what is unknown, and loopback only."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tickserve_server.errors import SettingsError
from tickserve_server.settings import Settings, dump_settings, load_settings, read_settings


def test_flags_beat_environment_beats_file_beats_defaults(tmp_path: Path) -> None:
    """Each source overrides the one below it and leaves the rest alone."""
    file = tmp_path / "tickserve.toml"
    file.write_text(
        'storage = "from_file"\n[recorder]\nwriteback_seconds = 5\ndefault_capital = 7\n'
        '[endpoints]\npredict = "tcp://127.0.0.1:6000"\n'
    )
    settings = load_settings(
        file=file,
        environment={
            "TICKSERVE_RECORDER__WRITEBACK_SECONDS": "2",
            "TICKSERVE_ENDPOINTS__PREDICT": "tcp://127.0.0.1:6001",
            "HOME": "/",
        },
        flags={"endpoints.predict": "tcp://127.0.0.1:6002", "ledger.url": None},
    )
    assert settings.endpoints.predict == "tcp://127.0.0.1:6002"
    assert settings.recorder.writeback_seconds == 2
    assert settings.recorder.default_capital == 7
    assert settings.storage == "from_file"
    assert settings.endpoints.feedback == Settings().endpoints.feedback


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("storge = 'x'", "storge"),
        ("[recorder]\nwriteback_secs = 5", "writeback_secs"),
        ("[recorder]\nwriteback_seconds = 'soon'", "writeback_seconds"),
        ("[recorder", "TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    """The error names the file and the key."""
    file = tmp_path / "tickserve.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(file=file, environment={}, flags={})
    assert named in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("servng = 1", "did you mean serving?"),
        ("[recorder]\nwriteback_secs = 5", "did you mean writeback_seconds"),
        ("[logging]\nzzz = 1", "known: level, form"),
    ],
)
def test_an_unknown_key_says_what_there_is(tmp_path: Path, text: str, hint: str) -> None:
    """The keys alike, or else all of the section."""
    file = tmp_path / "tickserve.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=re.escape(hint)):
        load_settings(file=file, environment={}, flags={})


def test_a_wrong_environment_variable_is_refused_by_name() -> None:
    """The error names the variable, not the merged result."""
    with pytest.raises(SettingsError, match="TICKSERVE_SERVING__SPIN_UZ"):
        load_settings(file=None, environment={"TICKSERVE_SERVING__SPIN_UZ": "1"}, flags={})


@pytest.mark.parametrize(
    "endpoint",
    ["tcp://0.0.0.0:5555", "tcp://*:5555", "tcp://192.0.2.1:5555", "tcp://127.0.0.1", "inproc://a"],
)
def test_nothing_listens_beyond_loopback(endpoint: str) -> None:
    """Public addresses and other transports are refused before anything is bound."""
    with pytest.raises(SettingsError, match=r"endpoints\.events"):
        load_settings(file=None, environment={}, flags={"endpoints.events": endpoint})


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:1", "tcp://[::1]:1", "ipc:///run/x.sock"])
def test_loopback_and_ipc_are_allowed(endpoint: str) -> None:
    """What cannot be reached from another machine may be bound."""
    settings = load_settings(file=None, environment={}, flags={"endpoints.predict": endpoint})
    assert settings.endpoints.predict == endpoint


def test_children_read_what_the_supervisor_wrote(tmp_path: Path) -> None:
    """The resolved settings survive the way to a child process."""
    settings = load_settings(file=None, environment={}, flags={"storage": str(tmp_path)})
    file = tmp_path / "settings.json"
    file.write_bytes(dump_settings(settings))
    assert read_settings(file) == settings
    assert settings.ledger_url == f"sqlite:///{tmp_path}/ledger/ledger.sqlite3"
