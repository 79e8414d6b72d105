"""Looks over a set-up before or while the daemon runs: what is wrong with it, and what to do."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
import zmq

from tickserve_client.messages import Status, StatusReport
from tickserve_registry.errors import RegistryError
from tickserve_registry.halts import HaltFile
from tickserve_registry.layout import Layout
from tickserve_registry.reader import BuildReader
from tickserve_registry.transaction import Transactions
from tickserve_server.access.key_folder import KeyFolder
from tickserve_server.cli.asking import ask
from tickserve_server.errors import DaemonError
from tickserve_server.recorder import schema
from tickserve_server.recorder.database import Database
from tickserve_server.runtime import Runtime
from tickserve_server.settings import Endpoints, Settings

Level = Literal["ok", "warning", "fault"]

LITTLE_SPACE = 1 << 30
NO_SPACE = 64 << 20
FEW_DESCRIPTORS = 4096
FEW_WATCHES = 16
FEW_BYTES = 512 << 20
LONGEST_SOCKET = 100
CLOCK_SLACK_S = 60.0
UNSYNCHRONISED = 5
"""TIME_ERROR of adjtimex(2)."""

NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "fuse.sshfs", "9p")
ANSWER_S = 1.0


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one look has found; `remedy` says what to do where it is not ok."""

    check: str
    level: Level
    text: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Make every check. None changes anything, and none is kept from by another's fault."""
    report = _report(settings)
    for name, look in CHECKS.items():
        try:
            for level, text, remedy in look(settings, report):
                yield Finding(check=name, level=level, text=text, remedy=remedy)
        except Exception as error:  # noqa: BLE001 - a check that fails is a finding, too
            text = f"could not be checked: {type(error).__name__}: {error}"
            yield Finding(check=name, level="warning", text=text, remedy="mend this first")


Found = Iterator[tuple[Level, str, str]]
Report = Mapping[str, Any] | None
"""What the serving process tells of itself; None where no daemon runs on this storage."""


def _report(settings: Settings) -> Report:
    try:
        endpoint = Runtime(settings.storage_root).admin_serving
        reply: StatusReport = ask(endpoint, Status(), ANSWER_S, StatusReport)
    except DaemonError:
        return None
    return reply.report


def _daemon(_: Settings, report: Report) -> Found:
    if report is None:
        yield "ok", "no daemon runs on this storage", ""
        return
    yield "ok", f"process {report['pid']} serves {len(report['models'])} models", ""
    for reason in report["degraded"]:
        yield "fault", reason, "see tickserve status and the log"


def _storage(settings: Settings, _: Report) -> Found:
    root = settings.storage_root
    if not root.exists():
        parent = next(each for each in root.parents if each.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            yield "ok", f"{root} will be made", ""
        else:
            remedy = f"make {root}, writable by this user, or choose another with --storage"
            yield "fault", f"{root} is not there, and {parent} may not be written", remedy
        return
    if not root.is_dir():
        yield "fault", f"{root} is no folder", "choose another with --storage"
        return
    closed = [each for each in (root, *_folders(root)) if not os.access(each, os.R_OK | os.W_OK)]
    if closed:
        remedy = f"chown or chmod it for the user that runs the daemon: {closed[0]}"
        yield "fault", f"{closed[0]} may not be read and written by this user", remedy
    else:
        yield "ok", f"{root} may be read and written", ""
    yield from _space(root)
    kind = _file_system(root)
    if kind.startswith(NETWORK_FILE_SYSTEMS):
        text = f"{root} lies on {kind}: changes are seen by polling"
        yield "warning", text, f"a promotion takes up to {settings.serving.poll_seconds:g} s"


def _folders(root: Path) -> Iterator[Path]:
    return (root / name for name in ("metadata", "production", "ledger") if (root / name).exists())


def _space(folder: Path) -> Found:
    free = shutil.disk_usage(folder).free
    shown = f"{free / (1 << 30):.1f} GiB are free below {folder}"
    if free < NO_SPACE:
        yield "fault", shown, "make room: feedback is refused when the disk is full"
    elif free < LITTLE_SPACE:
        yield "warning", shown, "make room, or see [retention] in the settings"
    else:
        yield "ok", shown, ""


def _file_system(path: Path) -> str:
    """Return the type of the file system that a path lies on, as /proc/mounts has it."""
    best = ("", "")
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, place, kind, *_ = line.split()
        if path.resolve().is_relative_to(place) and len(place) >= len(best[0]):
            best = (place, kind)
    return best[1]


def _registry(settings: Settings, _: Report) -> Found:
    root = settings.storage_root
    if not (root / "metadata").is_dir():
        yield "ok", "there are no models yet", ""
        return
    layout = Layout(root)
    transactions, reader = Transactions(layout), BuildReader(layout)
    try:
        entries = transactions.catalog().models
    except RegistryError as error:
        yield "fault", str(error), "run: tickserve rebuild"
        return
    production = [entry for entry in entries if entry.environment == "production"]
    bad = []
    for entry in production:
        try:
            reader.with_artefact(entry.build, served=True)
        except (RegistryError, OSError) as error:
            bad.append(f"{entry.build}: {error}")
    for each in bad:
        yield "fault", each, "restore the file from a backup, or: tickserve rollback FAMILY"
    if not production:
        text = f"none of {len(entries)} models is in production"
        yield "warning", text, "promote one: tickserve promote MODEL"
    elif not bad:
        yield "ok", f"{len(production)} production models have their digests", ""
    if transactions.pending() is not None:
        yield "warning", "a change was cut short by a crash", "the next change settles it"
    for halt in HaltFile(layout).read().standing:
        yield "warning", f"{halt.model} is halted: {halt.reason}", "lift it: tickserve resume"


def _ledger(settings: Settings, _: Report) -> Found:
    database = Database(settings.ledger_url)
    if database.dialect == "postgresql" and find_spec("psycopg") is None:
        yield "fault", "psycopg is not installed", "run: pip install 'tickserve[postgresql]'"
        return
    file = database.file
    root = settings.storage_root
    if file is not None and file.is_relative_to(root) and root.is_file():
        return  # what is wrong with the storage is said already
    if file is not None and not file.exists():
        parent = next(each for each in file.parents if each.exists())
        if os.access(parent, os.W_OK | os.X_OK) and parent.is_dir():
            yield "ok", f"{database.shown} will be made", ""
        else:
            yield "fault", f"{file} cannot be made in {parent}", "see ledger.url in the settings"
        return
    try:
        with database.reader().connect() as connection:
            version = connection.execute(sa.select(schema.schema_version.c.version)).scalar()
    except sa.exc.DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        yield "fault", f"{database.shown}: {reason}", _ledger_remedy(database)
        return
    if version != schema.VERSION:
        text = f"{database.shown} is of version {version}, this release's is {schema.VERSION}"
        newer = version is not None and version > schema.VERSION
        yield ("fault" if newer else "ok"), text, "install the newer release" if newer else ""
        return
    yield "ok", f"{database.shown} can be read, version {version}", ""
    if file is not None and not os.access(file, os.W_OK):
        yield "fault", f"{file} may not be written by this user", f"chown or chmod {file}"
    if file is not None:
        yield from _space(file.parent)


def _ledger_remedy(database: Database) -> str:
    if database.dialect == "postgresql":
        return "see whether the server runs, and the URL in ledger.url"
    return "the daemon sets a corrupt file aside and begins a new one; restore it from a backup"


def _ports(settings: Settings, report: Report) -> Found:
    for name in Endpoints.__struct_fields__:
        yield from _port(name, getattr(settings.endpoints, name), running=report is not None)
    if settings.ops.listen:
        yield from _port("ops", f"tcp://{settings.ops.listen}", running=report is not None)


def _port(name: str, endpoint: str, *, running: bool) -> Found:
    transport, _, address = endpoint.partition("://")
    if transport == "ipc":
        if len(address) > LONGEST_SOCKET:
            yield "fault", f"{endpoint} ({name}) is too long for a socket", "choose a shorter path"
        elif not os.access(Path(address).parent, os.W_OK):
            remedy = "make the folder, writable by the daemon's user"
            yield "fault", f"{endpoint} ({name}) cannot be made", remedy
        else:
            yield "ok", f"{endpoint} ({name}) can be made", ""
        return
    with zmq.Context() as context, context.socket(zmq.ROUTER) as probe:
        try:
            probe.bind(endpoint)
        except zmq.ZMQError as error:
            if running and error.errno == zmq.EADDRINUSE:
                yield "ok", f"{endpoint} ({name}) is taken, as it should be", ""
            else:
                remedy = f"stop the program that listens there, or choose another with --{name}"
                yield "fault", f"{endpoint} ({name}): {error.strerror}", remedy
        else:
            if running:
                text = f"nobody listens at {endpoint} ({name}), though a daemon runs"
                yield "fault", text, "it was started with other settings: name them with --config"
            else:
                yield "ok", f"{endpoint} ({name}) is free", ""


def _clock(settings: Settings, _: Report) -> Found:
    ahead = [file for file in _recent(settings.storage_root) if _age(file) < -CLOCK_SLACK_S]
    if ahead:
        text = f"{ahead[0]} was written {-_age(ahead[0]):.0f} s from now: the clock was set back"
        yield "fault", text, "set the clock right: trades after now are refused"
    found = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    if found == UNSYNCHRONISED:
        remedy = "run a time service, such as systemd-timesyncd or chrony"
        yield "warning", "the clock is not known to be synchronised", remedy
    elif not ahead:
        yield "ok", "the clock is synchronised", ""


def _recent(root: Path) -> Iterator[Path]:
    layout = Layout(root)
    candidates = (layout.catalog, layout.history, root / "ledger" / "ledger.sqlite3")
    return (file for file in candidates if file.exists())


def _age(file: Path) -> float:
    return time.time() - file.stat().st_mtime


def _limits(settings: Settings, _: Report) -> Found:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FEW_DESCRIPTORS:
        text = f"{hard} open files are allowed; each connection takes one"
        yield "warning", text, "raise it: LimitNOFILE= of the unit, or ulimit -n"
    else:
        yield "ok", "enough open files are allowed", ""
    watches = Path("/proc/sys/fs/inotify/max_user_instances")
    if watches.exists() and int(watches.read_text(encoding="ascii")) < FEW_WATCHES:
        remedy = "raise the sysctl fs.inotify.max_user_instances; polling sees changes until then"
        yield "warning", "few programs may watch files", remedy
    allowed = _memory_limit()
    if allowed is not None and allowed < FEW_BYTES:
        text = f"{allowed >> 20} MiB of memory are allowed; both processes take 350 MiB at least"
        yield "fault", text, "raise MemoryMax= of the unit, or the container's limit"
    folder = Runtime(settings.storage_root).folder
    if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
        yield "fault", f"{folder} belongs to somebody else", "remove it, or set XDG_RUNTIME_DIR"


def _memory_limit() -> int | None:
    """Return the memory that this control group or process may take, None without a limit."""
    own = Path("/sys/fs/cgroup/memory.max")
    text = own.read_text(encoding="ascii").strip() if own.exists() else "max"
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    limits = [int(text)] if text.isdigit() else []
    limits += [] if soft == resource.RLIM_INFINITY else [soft]
    return min(limits, default=None)


def _keys(settings: Settings, _: Report) -> Found:
    folder = KeyFolder(settings.keys_folder)
    if not settings.security.curve:
        yield "ok", "bots need no keys; endpoints are on loopback alone", ""
        return
    if not folder.server_file.exists():
        remedy = "make the first: tickserve keys new NAME"
        yield "fault", f"there are no keys in {folder.folder}", remedy
        return
    try:
        folder.ring()
    except DaemonError as error:
        yield "fault", str(error), "restore it from a backup"
        return
    for problem in folder.problems():
        what, _by, remedy = problem.partition("; run: ")
        yield "fault", what, f"run: {remedy}"
    good = [grant for grant in folder.grants() if grant.revoked_at is None]
    if good:
        yield "ok", f"{len(good)} keys are good", ""
    else:
        yield "warning", "every key is revoked", "make one: tickserve keys new NAME"


def _host(settings: Settings, _: Report) -> Found:
    """Whether names that the endpoints use mean something."""
    for name in Endpoints.__struct_fields__:
        host = getattr(settings.endpoints, name).removeprefix("tcp://").rpartition(":")[0]
        if not host or host == "*" or getattr(settings.endpoints, name).startswith("ipc"):
            continue
        try:
            socket.getaddrinfo(host.strip("[]"), None)
        except OSError as error:
            yield "fault", f"{host} ({name}): {error}", "name an address of this machine"


CHECKS: dict[str, Callable[[Settings, Report], Found]] = {
    "daemon": _daemon,
    "storage": _storage,
    "registry": _registry,
    "ledger": _ledger,
    "ports": _ports,
    "names": _host,
    "clock": _clock,
    "limits": _limits,
    "keys": _keys,
}
