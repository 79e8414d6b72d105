"""Artefact trust in a daemon: who signed, how large, and links; the old build answers meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.daemon import Service, model_info, train
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.signing import create_key

FAMILY = "eurusd_1h_xgb_bench"
ROW = {f"f{index}": 0.25 * index for index in range(5)}
PATIENCE_S = 20.0


def tickserve(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command."""
    command = [sys.executable, "-m", "tickserve_server", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def failures(service: Service) -> list[dict[str, Any]]:
    """Return the attempts to load a build that failed."""
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    return [line for line in lines if line["event"] == "model_load_failed"]


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_only_what_is_signed_is_served(tmp_path: Path) -> None:
    """By the commands: a key, a signature, a promotion; unsigned and foreign ones stay out."""
    made = tickserve("signing-key", tmp_path / "alice.pem", "--name", "alice")
    signer = made.stdout.strip()
    service = Service(
        tmp_path,
        settings={
            "REGISTRY__REQUIRE_SIGNED": "true",
            "REGISTRY__SIGNERS": json.dumps([signer]),
            "SERVING__RETRY_SECONDS": "0.2",
        },
    )
    registry = ModelRegistry(str(service.storage))
    for version in (1, 2, 3):
        registry.save_model(train(trees=5 + version), model_info(version=version))
    registry.promote_model(f"{FAMILY}_v1")
    with pytest.raises(RuntimeError, match="it is not signed; have somebody allowed sign it"):
        service.start()
    done = tickserve(
        "sign", f"{FAMILY}_v1", "--key", tmp_path / "alice.pem", "--storage", service.storage
    )
    assert done.stdout.endswith(f"is signed by {signer.removeprefix('alice:')}\n")
    create_key(tmp_path / "mallory.pem")
    registry.sign_model(f"{FAMILY}_v2", tmp_path / "mallory.pem")
    registry.sign_model(f"{FAMILY}_v3", tmp_path / "alice.pem")
    service.log.unlink()
    with service, service.client() as client:
        assert client.predict(FAMILY, ROW).model_id == f"{FAMILY}_v1"
        registry.promote_model(f"{FAMILY}_v2")
        until(lambda: failures(service))
        assert "keys that are not allowed" in failures(service)[0]["reason"]
        assert client.predict(FAMILY, ROW).model_id == f"{FAMILY}_v1"
        registry.sign_model(f"{FAMILY}_v2", tmp_path / "alice.pem")
        until(lambda: client.predict(FAMILY, ROW).model_id == f"{FAMILY}_v2")
        registry.promote_model(f"{FAMILY}_v3")
        until(lambda: client.predict(FAMILY, ROW).model_id == f"{FAMILY}_v3")
        assert service.stop() == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"REGISTRY__REQUIRE_SIGNED": "true"}, "allows nobody"),
        ({"REGISTRY__SIGNERS": '["alice"]'}, "is not NAME:KEY"),
        ({"REGISTRY__SIGNERS": "[alice"}, "is none in JSON"),
    ],
)
def test_settings_that_would_trust_nobody_are_refused(
    tmp_path: Path, settings: dict[str, str], words: str
) -> None:
    """At the start, by name."""
    service = Service(tmp_path, settings=settings)
    with pytest.raises(RuntimeError, match=words):
        service.start()


def grown(path: Path) -> None:
    """A sparse gigabyte: nobody should even begin to read it."""
    os.truncate(path, 1 << 30)


def linked(path: Path) -> None:
    """A link to the same bytes elsewhere."""
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


def piped(path: Path) -> None:
    """A pipe that never says anything."""
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [(grown, "the limit is"), (linked, "symbolic link"), (piped, "no plain file")],
)
def test_a_file_that_should_not_be_read_is_not(
    tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    """Too large, a link or a pipe in a model's place: refused at once, the old build goes on."""
    service = Service(tmp_path, settings={"REGISTRY__MAX_ARTEFACT_BYTES": "10000000"})
    registry = ModelRegistry(str(service.storage))
    registry.save_model(train(trees=5), model_info(), environment="production")
    registry.save_model(train(trees=6), model_info(version=2))
    with service, service.client() as client:
        paths = (service.storage / "staging").rglob("*_v2_*.onnx")
        before = next(paths)
        before.chmod(0o600)
        registry.promote_model(f"{FAMILY}_v2")
        until(lambda: client.predict(FAMILY, ROW).model_id == f"{FAMILY}_v2")
        registry.rollback(FAMILY)
        until(lambda: client.predict(FAMILY, ROW).model_id == f"{FAMILY}_v1")
        archived = next((service.storage / "archive").rglob("*_v2_*.onnx"))
        change(archived)
        index = service.storage / "metadata" / "registry.json"
        move_by_hand(service, index)
        until(lambda: failures(service))
        assert words in failures(service)[0]["reason"]
        assert client.predict(FAMILY, ROW).model_id == f"{FAMILY}_v1"


def move_by_hand(service: Service, index: Path) -> None:
    """Put the archived build into production as a hand would: files moved, index rebuilt."""
    folder = next((service.storage / "archive").rglob("*_v2_*.json")).parent
    target = service.storage / "production" / folder.relative_to(service.storage / "archive")
    target.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        file.rename(target / file.name)
    document = json.loads(next(target.glob("*_v2_*.json")).read_text())
    document["environment"] = "production"
    path = next(target.glob("*_v2_*.json"))
    path.chmod(0o600)
    path.write_text(json.dumps(document))
    ModelRegistry(str(service.storage)).rebuild()
    assert index.exists()


def test_nothing_is_reported_to_anybody(tmp_path: Path) -> None:
    """The daemon and its libraries leave nothing in the user's home, such as a device's number."""
    home = tmp_path / "home"
    home.mkdir()
    service = Service(tmp_path)
    service.environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    registry = ModelRegistry(str(service.storage))
    registry.save_model(train(trees=5), model_info(), environment="production")
    with service, service.client() as client:
        assert client.predict(FAMILY, ROW).output
        time.sleep(0.5)
        assert service.stop() == 0
    assert list(home.rglob("*")) == []
