"""`tickserve install-service`: have systemd run the daemon."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from tickserve_server.cli.output import FAILURE, console, fail
from tickserve_server.cli.service import CONFIG, STORAGE, resolve
from tickserve_server.unit import MADE_BY, File, system_files, user_files

SYSTEM = typer.Option(False, "--system", help="For the machine, as the user tickserve; as root.")
USER = typer.Option(False, "--user", help="For you, while you are logged in.")
DRY_RUN = typer.Option(False, "--dry-run", help="Only show what would be written and run.")
ROOT = typer.Option(Path("/"), "--root", help="Write below this folder: the root of an image.")
RUNNING = Path("/run/systemd/system")
"""There, systemd runs this machine: sd_booted(3)."""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(
        "install-service",
        epilog="Examples: tickserve install-service --user --storage ~/model_storage\n\n"
        "sudo tickserve install-service --system --dry-run",
    )(install_service)


def install_service(  # noqa: PLR0917 - Typer passes options by name
    system: bool = SYSTEM,
    user: bool = USER,
    config: Path | None = CONFIG,
    storage: str | None = STORAGE,
    dry_run: bool = DRY_RUN,
    root: Path = ROOT,
) -> None:
    """Write the unit of the daemon, and have systemd know it; starts nothing.

    A file that somebody else wrote is not replaced.
    """
    if system == user:
        fail("say --system or --user", FAILURE)
    program = Path(sys.executable).parent / "tickserve"
    if system:
        files = system_files(program)
        commands = [["systemd-sysusers"], ["systemd-tmpfiles", "--create", "tickserve.conf"]]
        commands.append(["systemctl", "daemon-reload"])
        start = "systemctl enable --now tickserve"
    else:
        chosen = resolve(config, {"storage": storage}).storage_root
        settings = None if config is None else config.absolute()
        files = user_files(program, home=Path.home(), config=settings, storage=chosen)
        commands = [["systemctl", "--user", "daemon-reload"]]
        start = "systemctl --user enable --now tickserve"
    placed = [file._replace(path=root / file.path.relative_to("/")) for file in files]
    if dry_run:
        _show(placed, commands)
        return
    _write(placed)
    is_live = root == Path("/") and RUNNING.is_dir()
    for command in commands if is_live else ():
        _run(command)
    _say("start it with" if is_live else "where systemd runs, start it with", start)


def _show(files: Sequence[File], commands: Sequence[Sequence[str]]) -> None:
    for file in files:
        kept = " (kept: it is there)" if file.is_yours and file.path.exists() else ""
        _say(f"# {file.path}{kept}")
        console().print(file.text, markup=False, highlight=False, soft_wrap=True)
    for command in commands:
        _say("# then:", " ".join(command))


def _write(files: Sequence[File]) -> None:
    """Write all files or, where one is somebody else's, none."""
    wanted = [file for file in files if not (file.is_yours and file.path.exists())]
    for file in wanted:
        if file.path.exists() and MADE_BY not in file.path.read_text(encoding="utf-8"):
            fail(f"{file.path} was not made by this command; move it away first")
    for file in wanted:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        file.path.write_text(file.text, encoding="utf-8")
        _say(f"wrote {file.path}")


def _run(command: Sequence[str]) -> None:
    program = shutil.which(command[0])
    if program is None:
        fail(f"{command[0]} is not installed")
    done = subprocess.run([program, *command[1:]], check=False, env=dict(os.environ))
    if done.returncode:
        fail(f"{' '.join(command)} failed with {done.returncode}")
    _say("ran", " ".join(command))


def _say(*words: str) -> None:
    console().print(" ".join(words), markup=False, highlight=False, soft_wrap=True)
