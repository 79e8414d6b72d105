"""The image: its build steps run in an empty Debian root, and the daemon runs in what they make."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.image

SUITE = "bookworm"
SOURCES = (
    "pyproject.toml",
    "constraints.txt",
    "README.md",
    "LICENSE",
    "registry",
    "clients",
    "server",
)
USER = "10001:10001"
LARGEST_MIB = 800
APT = Path("/etc/apt")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

INSIDE = """
set -eu
root=$1; data=$2; shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
chmod 1777 "$root/tmp"
mount -t tmpfs tmpfs "$root/dev"
for each in null zero random urandom; do
  touch "$root/dev/$each"; mount --bind "/dev/$each" "$root/dev/$each"
done
mount --bind "$data" "$root/data"
exec chroot --userspec=10001:10001 "$root" env -i "$@"
"""
"""Enter a root, in a mount namespace, as the image is run: read-only but for /data and /tmp."""


def run(command: Sequence[str | Path], **environment: str) -> str:
    """Run a command that must succeed; return what it printed."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def instructions(project_root: Path) -> list[str]:
    """Return the instructions of the Dockerfile, continuations joined."""
    text = (project_root / "config" / "container" / "Dockerfile").read_text()
    joined = text.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line and not line.startswith("#")]


def environment(project_root: Path) -> list[str]:
    """Return the variables that the image sets."""
    (line,) = (each for each in instructions(project_root) if each.startswith("ENV "))
    return line.removeprefix("ENV ").split()


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
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


def prepare(root: Path, project_root: Path) -> None:
    """Give a root the build script and this machine's way to its packages."""
    shutil.copy(project_root / "config" / "container" / "build.sh", root)
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    for name in ("sources.list", "sources.list.d", "apt.conf.d", "trusted.gpg.d"):
        if (APT / name).exists():
            run(["cp", "-a", "--remove-destination", APT / name, root / "etc" / "apt"])


def build(root: Path, *step: str, **variables: str) -> None:
    """Run a step of the build script inside a root."""
    settings = [f"{name}={value}" for name, value in variables.items()]
    run(["chroot", root, "env", "-i", f"PATH={PATH}", "HOME=/root", *settings, "/build.sh", *step])


def inside(image: Path, data: Path, project_root: Path, script: str) -> str:
    """Run a shell script inside the image, as it is run; return what it printed."""
    enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", INSIDE, "sh"]
    variables = environment(project_root)
    return run([*enter, image, data, *variables, "sh", "-euc", script])


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
