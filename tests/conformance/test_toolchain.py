"""What happens where another language is missing: a reason, and no silent gap in CI."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conformance.toolchain import FOLDER, without

BARE = ("bash", "cmp", "cp", "dirname", "env", "id", "tee")  # commands of a machine with no more


def test_a_missing_language_is_skipped_naming_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody without Node reads which command brings it."""
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(
        pytest.skip.Exception, match="Node is missing: run tests/conformance/install"
    ):
        without("node", "Node", noted=tmp_path / "unavailable")


def test_a_missing_language_fails_in_ci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where CI=true nothing is skipped unless the installation was tried for that language."""
    monkeypatch.setenv("CI", "true")
    noted = tmp_path / "unavailable"
    noted.write_text("c: no compiler\n", encoding="utf-8")
    with pytest.raises(pytest.fail.Exception, match="run tests/conformance/install first"):
        without("node", "Node", noted=noted)
    with pytest.raises(pytest.skip.Exception, match="c: no compiler"):
        without("c", "zmq.h", noted=noted)


def test_a_machine_without_package_managers_is_told_and_goes_on(tmp_path: Path) -> None:
    """`install` succeeds, and notes a reason for each language that it could not bring."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in BARE:
        (commands / name).symlink_to(shutil.which(name) or name)
    folder = tmp_path / "tests" / "conformance"
    folder.mkdir(parents=True)
    for name in ("install", "package.json", "package-lock.json"):
        shutil.copy(FOLDER / name, folder)
    run = subprocess.run(
        [str(folder / "install")],
        env={"PATH": str(commands)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    noted = (folder / "unavailable").read_text(encoding="utf-8").splitlines()
    assert run.returncode == 0
    assert [line.partition(":")[0] for line in noted] == ["node", "c"]
    assert set(noted) <= set(run.stderr.splitlines())


def test_node_packages_are_locked_without_an_address() -> None:
    """Each package has its version and digest, and no registry's name is written down."""
    text = (FOLDER / "package-lock.json").read_text(encoding="utf-8")
    packages = json.loads(text)["packages"]
    wanted = json.loads((FOLDER / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert packages.pop("")["dependencies"] == wanted
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert "resolved" not in text
    assert "://" not in text
