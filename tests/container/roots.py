"""Roots of the image: how they are made, entered and asked, as the Dockerfile has it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

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
