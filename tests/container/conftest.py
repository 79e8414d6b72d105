"""The image's root, made once for all tests that ask for it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.roots import SOURCES, SUITE, build, prepare, run


@pytest.fixture(scope="session")
def wheels(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fetch what the build installs, so that a root without a network's settings can."""
    folder = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip"]
    run([*pip, "wheel", "-q", "--no-deps", "-w", str(folder), str(project_root)])
    run(
        [
            *pip, "download", "-q", "-d", str(folder), "--find-links", str(folder),
            "--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp",
            "-c", str(project_root / "constraints.txt"),
            "tickserve[server,postgresql]", "hatchling", "editables",
        ]
    )  # fmt: skip
    for own in folder.glob("tickserve-*.whl"):
        own.unlink()
    return folder


@pytest.fixture(scope="session")
def image(
    project_root: Path, wheels: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Make the image's root as the Dockerfile does: one root builds, the other is kept."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        pytest.skip("needs root and debootstrap (apt-get install debootstrap)")
    folder = tmp_path_factory.mktemp("image")
    base, kept = folder / "base", folder / "kept"
    run(["debootstrap", "--variant=minbase", SUITE, base])
    prepare(base, project_root)
    run(["cp", "-a", base, kept])
    source = base / "source"
    source.mkdir()
    for name in SOURCES:
        run(["cp", "-a", project_root / name, source])
    run(["cp", "-a", wheels, base / "wheels"])
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"}
    build(base, "python", "/source", **offline)
    build(base, "slim")
    build(kept, "root")
    (kept / "build.sh").unlink()
    run(["cp", "-a", base / "opt" / "tickserve", kept / "opt"])
    run(["rm", "-rf", base])
    yield kept
    run(["rm", "-rf", kept])
