"""`tickserve doctor` on set-ups that are sound, and on those that are broken."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.daemon import Service, model_info, train
from tickserve_registry.model_registry import ModelRegistry
from tickserve_server.access.key_folder import KeyFolder

FAMILY = "eurusd_1h_xgb_bench"


class SetUp:
    """A storage root with one production model, and the settings a daemon is to have."""

    def __init__(self, folder: Path, model: Any) -> None:
        self.folder = folder
        self.opened = contextlib.ExitStack()
        self.storage = folder / "model_storage"
        self.environment = {"TICKSERVE_STORAGE": str(self.storage)}
        for name in ("PREDICT", "FEEDBACK", "EVENTS"):
            self.environment[f"TICKSERVE_ENDPOINTS__{name}"] = f"ipc://{folder}/{name.lower()}"
        registry = ModelRegistry(self.storage)
        registry.save_model(model, model_info(), environment="production")

    def examined(self, *arguments: str) -> tuple[int, list[dict[str, str]]]:
        """Return the exit code of the doctor, and what it found beside what is ok."""
        command = [sys.executable, "-m", "tickserve_server", "doctor", "--json", *arguments]
        environment = {**os.environ, **self.environment}
        run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert run.stderr == ""
        findings = json.loads(run.stdout)
        # Whether this machine's clock is synchronised is not what these tests are about.
        text = "the clock is not known to be synchronised"
        return run.returncode, [f for f in findings if f["level"] != "ok" and f["text"] != text]


@pytest.fixture(scope="module")
def model() -> Any:
    """Return a small model."""
    return train(trees=3)


@pytest.fixture
def setup(tmp_path: Path, model: Any) -> Iterator[SetUp]:
    """Return a sound set-up."""
    made = SetUp(tmp_path, model)
    with made.opened:
        yield made


def test_a_sound_setup_has_no_fault(setup: SetUp) -> None:
    """Nothing but ok, exit code 0, and nothing is changed."""
    before = sorted(setup.folder.rglob("*"))
    assert setup.examined() == (0, [])
    assert sorted(setup.folder.rglob("*")) == before


def unknown_setting(setup: SetUp) -> None:
    """A misspelt variable."""
    setup.environment["TICKSERVE_RECORDER__WRITEBAK_SECONDS"] = "5"


def port_taken(setup: SetUp) -> None:
    """Somebody listens where the daemon is to."""
    taken = setup.opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    port = taken.getsockname()[1]
    setup.environment["TICKSERVE_ENDPOINTS__PREDICT"] = f"tcp://127.0.0.1:{port}"


def storage_is_a_file(setup: SetUp) -> None:
    """The root is no folder."""
    path = setup.folder / "file"
    path.write_text("")
    setup.environment["TICKSERVE_STORAGE"] = str(path)


def index_torn(setup: SetUp) -> None:
    """Half of registry.json."""
    index = setup.storage / "metadata" / "registry.json"
    index.write_bytes(index.read_bytes()[:50])


def artefact_changed(setup: SetUp) -> None:
    """One bit of a model file."""
    path = next(setup.storage.rglob("*.onnx"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


def nothing_in_production(setup: SetUp) -> None:
    """A registry from which nothing is served."""
    ModelRegistry(setup.storage).archive_model(FAMILY)


def ledger_is_no_database(setup: SetUp) -> None:
    """Somebody's text where the ledger should be."""
    path = setup.storage / "ledger" / "ledger.sqlite3"
    path.parent.mkdir()
    path.write_text("shopping list\n" * 1000)


def database_server_away(setup: SetUp) -> None:
    """A PostgreSQL that does not answer."""
    url = "postgresql+psycopg://user:secret@127.0.0.1:1/ledger"
    setup.environment["TICKSERVE_LEDGER__URL"] = url


def clock_set_back(setup: SetUp) -> None:
    """Files from the future."""
    index = setup.storage / "metadata" / "registry.json"
    future = time.time() + 86_400
    os.utime(index, (future, future))


def keys_missing(setup: SetUp) -> None:
    """Bots are asked for keys, and there are none."""
    setup.environment["TICKSERVE_SECURITY__CURVE"] = "true"


def keys_open(setup: SetUp) -> None:
    """The daemon's secret may be read by everybody."""
    keys_missing(setup)
    keys = KeyFolder(setup.storage / "keys")
    keys.create("bot", out=setup.folder / "bot.json")
    keys.server_file.chmod(0o644)


def beyond_loopback(setup: SetUp) -> None:
    """An endpoint for everybody, without keys."""
    setup.environment["TICKSERVE_ENDPOINTS__PREDICT"] = "tcp://0.0.0.0:5555"


def socket_nowhere(setup: SetUp) -> None:
    """An ipc endpoint in a folder that is not there."""
    setup.environment["TICKSERVE_ENDPOINTS__PREDICT"] = "ipc:///nowhere/predict"


BROKEN = [
    (unknown_setting, "settings", "did you mean writeback_seconds", "correct it"),
    (beyond_loopback, "settings", "beyond loopback", "correct it"),
    (port_taken, "ports", "Address already in use", "stop the program"),
    (socket_nowhere, "ports", "cannot be made", "make the folder"),
    (storage_is_a_file, "storage", "is no folder", "--storage"),
    (index_torn, "registry", "registry.json", "tickserve rebuild"),
    (artefact_changed, "registry", "SHA-256", "tickserve rollback"),
    (ledger_is_no_database, "ledger", "not a database", "backup"),
    (database_server_away, "ledger", "127.0.0.1", "server runs"),
    (clock_set_back, "clock", "was set back", "set the clock right"),
    (keys_missing, "keys", "no keys", "tickserve keys new"),
    (keys_open, "keys", "open to others", "chmod 600"),
]


@pytest.mark.parametrize(("damage", "check", "text", "remedy"), BROKEN)
def test_a_broken_setup_is_named_with_what_to_do(
    setup: SetUp, damage: Callable[[SetUp], None], check: str, text: str, remedy: str
) -> None:
    """Exactly the check concerned finds a fault and says what helps; no secret is shown."""
    damage(setup)
    code, found = setup.examined()
    assert code == 1
    assert {each["check"] for each in found} == {check}
    (fault,) = (each for each in found if each["level"] == "fault")
    assert text in fault["text"]
    assert remedy in fault["remedy"]
    assert "secret" not in fault["text"]


def test_what_is_merely_unwise_is_a_warning(setup: SetUp) -> None:
    """Nothing in production, a halt, all keys revoked: said, and no fault."""
    nothing_in_production(setup)
    keys_missing(setup)
    keys = KeyFolder(setup.storage / "keys")
    keys.create("bot", out=setup.folder / "bot.json")
    keys.revoke("bot")
    ModelRegistry(setup.storage).halt_model(FAMILY, reason="night")
    code, found = setup.examined()
    assert code == 0
    assert [each["check"] for each in found] == ["registry", "registry", "keys"]
    assert all(each["level"] == "warning" and each["remedy"] for each in found)


def test_a_running_daemon_is_looked_at_too(tmp_path: Path, model: Any) -> None:
    """Its ports are taken as they should be; what it says is wrong is told."""
    service = Service(tmp_path)
    registry = ModelRegistry(service.storage)
    registry.save_model(model, model_info(), environment="production")
    setup = SetUp.__new__(SetUp)
    setup.environment = {
        "TICKSERVE_STORAGE": str(service.storage),
        **{
            f"TICKSERVE_ENDPOINTS__{name.upper()}": endpoint
            for name, endpoint in service.endpoints._asdict().items()
        },
    }
    with service:
        assert setup.examined() == (0, [])
        (service.storage / "metadata" / "halts.json").write_text("{")
        time.sleep(0.5)
        code, found = setup.examined()
        assert code == 1
        assert found[0]["check"] == "daemon"
        assert "halts.json" in found[0]["text"]


def test_people_see_marks_and_remedies(setup: SetUp) -> None:
    """One line each, the remedy beneath."""
    index_torn(setup)
    command = [sys.executable, "-m", "tickserve_server", "doctor"]
    environment = {**os.environ, **setup.environment}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 1
    assert "✗ registry " in run.stdout
    assert "\n    → run: tickserve rebuild" in run.stdout
    assert "✓ storage " in run.stdout
