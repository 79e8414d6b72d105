"""The image: its build steps run in an empty Debian root, and the daemon runs in what they make."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.container.roots import SUITE, USER, inside, instructions, run

pytestmark = pytest.mark.image

LARGEST_MIB = 800


def test_the_steps_are_those_of_the_dockerfile(project_root: Path) -> None:
    """What this test runs, the Dockerfile runs, in the same stages, and nothing beside."""
    steps = [
        line for line in instructions(project_root) if line.startswith(("RUN", "COPY", "FROM"))
    ]
    assert steps == [
        f"FROM debian:{SUITE}-slim AS build",
        "COPY config/container/build.sh /build.sh",
        "COPY pyproject.toml constraints.txt README.md LICENSE /source/",
        "COPY registry /source/registry",
        "COPY clients /source/clients",
        "COPY server /source/server",
        "RUN /build.sh python /source && /build.sh slim",
        f"FROM debian:{SUITE}-slim",
        "COPY config/container/build.sh /build.sh",
        "RUN /build.sh root && rm /build.sh",
        "COPY --from=build /opt/tickserve /opt/tickserve",
    ]
    assert f"USER {USER}" in instructions(project_root)


def test_its_daemon_answers_from_inside(image: Path, project_root: Path, tmp_path: Path) -> None:
    """Read-only but for /data, as nobody in particular, with keys, on every address."""
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, *(int(each) for each in USER.split(":")))
    tmp_path.chmod(0o755)
    printed = inside(
        image,
        data,
        project_root,
        """
        id -u
        touch /opt/tickserve/x 2>/dev/null && echo "the root can be written" || true
        tickserve keys new bot --out /data/bot.key.json >/dev/null
        export TICKSERVE_SECURITY__CURVE=true TICKSERVE_ENDPOINTS__PREDICT=tcp://0.0.0.0:5655
        export TICKSERVE_ENDPOINTS__FEEDBACK=tcp://0.0.0.0:5656
        export TICKSERVE_ENDPOINTS__EVENTS=tcp://0.0.0.0:5657
        tickserve serve 2>/data/log & daemon=$!
        for _ in $(seq 100); do tickserve ping >/dev/null 2>&1 && break; sleep 0.2; done
        tickserve ping
        tickserve status >/dev/null && echo sound
        kill $daemon; wait $daemon && echo ended
        """,
    )
    lines = printed.splitlines()
    assert lines[0] == "10001"
    assert lines[1].startswith("tcp://127.0.0.1:5655 is ready")
    assert lines[2:] == ["sound", "ended"]


def test_it_is_no_larger_than_stated(image: Path, project_root: Path) -> None:
    """Its size is bounded, and docs/operations.md states it to within a tenth."""
    size = int(run(["du", "-sm", "--exclude=proc", image]).split()[0])
    assert size < LARGEST_MIB
    text = (project_root / "docs" / "operations.md").read_text()
    stated = int(text.partition(" MiB uncompressed")[0].split()[-1])
    assert abs(stated - size) < 0.1 * size


def test_nothing_in_it_helps_an_intruder(image: Path) -> None:
    """No compiler, no pip, and no file of ours that group or others may write."""
    for name in ("gcc", "pip", "pip3"):
        assert not list(image.glob(f"*/bin/{name}")) + list(image.glob(f"opt/tickserve/bin/{name}"))
    writable = run(["find", image / "opt", "-perm", "/022", "-not", "-type", "l"])
    assert writable == ""
