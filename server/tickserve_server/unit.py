"""The files with which systemd runs the daemon: for the whole machine, or for one user."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

SERVICE = "tickserve.service"
CONFIG = Path("/etc/tickserve/tickserve.toml")
STATE = Path("/var/lib/tickserve")
WATCHDOG_S = 30
"""Longer than the supervisor waits before it kills a stuck process itself."""

MADE_BY = "# Made by `tickserve install-service`, which replaces files with this line alone.\n"

HARDENING = """\
# What the daemon needs no right to. `systemd-analyze security tickserve` tells what is left.
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
PrivateIPC=yes
DevicePolicy=closed
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
KeyringMode=private
UMask=0007
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources @obsolete
SystemCallFilter=setpriority prlimit64 sched_setaffinity sched_setscheduler
SystemCallErrorNumber=EPERM
# Loopback alone. With keys (security.curve) and bots elsewhere, name their networks here.
IPAddressDeny=any
IPAddressAllow=localhost
"""

LIMITS = """\
# A client that never ends a message makes ZeroMQ keep all of it: memory has a limit.
MemoryHigh=1500M
MemoryMax=2G
TasksMax=256
LimitNOFILE=65536
LimitCORE=0
"""


class File(NamedTuple):
    """A file to be written; one that `is_yours` is left as it is where it is there."""

    path: Path
    text: str
    is_yours: bool = False


def system_files(program: Path) -> list[File]:
    """Return the files of the service of the machine, which runs as the user `tickserve`."""
    etc = Path("/etc")
    return [
        File(etc / "systemd" / "system" / SERVICE, _system_unit(program)),
        File(etc / "sysusers.d" / "tickserve.conf", SYSUSERS),
        File(etc / "tmpfiles.d" / "tickserve.conf", TMPFILES),
        File(CONFIG, SETTINGS, is_yours=True),
    ]


def user_files(program: Path, *, home: Path, config: Path | None, storage: Path) -> list[File]:
    """Return the file of the service of one user."""
    unit = home / ".config" / "systemd" / "user" / SERVICE
    return [File(unit, _user_unit(program, config=config, storage=storage))]


SETTINGS = """\
# Only what differs from the defaults; the README's link to the configuration lists them all.
storage = "model_storage"
"""
SYSUSERS = MADE_BY + f'u tickserve - "tickserve daemon" {STATE} /usr/sbin/nologin\n'
TMPFILES = f"""\
{MADE_BY}d /etc/tickserve 0750 root tickserve -
d {STATE} 2750 tickserve tickserve -
"""


def _system_unit(program: Path) -> str:
    return f"""\
{MADE_BY}# Settings: {CONFIG}; all have defaults.

[Unit]
Description=tickserve, predictions of trading models over ZeroMQ
After=network.target

[Service]
{_process(f"{program} serve --config {CONFIG}")}
User=tickserve
Group=tickserve
# Models and ledger lie in {STATE}/model_storage: `storage` of the settings is relative.
StateDirectory=tickserve
StateDirectoryMode=2750
ConfigurationDirectory=tickserve
ConfigurationDirectoryMode=0750
WorkingDirectory=%S/tickserve
# Sockets between the daemon's processes.
RuntimeDirectory=tickserve
RuntimeDirectoryMode=0700
Environment=XDG_RUNTIME_DIR=%t/tickserve

{LIMITS}
{HARDENING}
[Install]
WantedBy=multi-user.target
"""


def _user_unit(program: Path, *, config: Path | None, storage: Path) -> str:
    settings = "" if config is None else f" --config {_quoted(config)}"
    command = f"{_quoted(program)} serve --storage {_quoted(storage)}{settings}"
    return f"""\
{MADE_BY}
[Unit]
Description=tickserve, predictions of trading models over ZeroMQ

[Service]
{_process(command)}
NoNewPrivileges=yes
UMask=0077

{LIMITS}
[Install]
WantedBy=default.target
"""


def _process(command: str) -> str:
    """Return what both services have in common."""
    return f"""\
# Ready once every production model has reproduced its golden rows. The watchdog is fed while both
# processes show that they get on.
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
WatchdogSec={WATCHDOG_S}
TimeoutStartSec=120
# SIGTERM goes to the supervisor alone, which drains its two processes and then leaves.
KillMode=mixed
TimeoutStopSec=15
Restart=on-failure
RestartSec=1"""


def _quoted(path: Path) -> str:
    """Return a path as systemd reads it on a command line."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if any(each in text for each in ' \\"') else text
