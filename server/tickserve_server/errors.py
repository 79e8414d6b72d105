"""The daemon's error tree; each error's text is the one line that an operator reads.

DaemonError
├── SettingsError       a setting is unknown, of the wrong type or not allowed
├── EndpointInUse       another process listens where this one was told to
├── StorageUnusable     the storage root cannot be read or written
├── RegistryMissing     a command looks for a registry where there is none
├── AlreadyRunning      another daemon owns this storage root
├── ChildFailed         a child process ended before it was ready
├── LedgerUnusable      its database cannot be opened, or is another recorder's
├── KeysUnreadable      the folder of keys holds none, or cannot be read
├── KeyRefused          a key that cannot be made or revoked
├── LedgerMissing       a command looks for a ledger where there is none
├── ExtraMissing        a package that an extra brings is not installed
└── NotAnswering        no daemon answers where a command looked for one
"""

from __future__ import annotations

from pathlib import Path


class DaemonError(Exception):
    """Base of everything that stops the daemon or a command on purpose."""


class SettingsError(DaemonError):
    """A setting that cannot be used; says where it came from."""

    def __init__(self, *, source: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")
        self.source = source
        self.problem = problem


class EndpointInUse(DaemonError):
    """Another process listens at the endpoint, or it cannot be bound."""

    def __init__(self, *, name: str, endpoint: str, reason: str) -> None:
        super().__init__(
            f"cannot listen at {endpoint} ({name}): {reason}; stop the other process or choose "
            f"another endpoint with --{name}"
        )
        self.name = name
        self.endpoint = endpoint
        self.reason = reason


class StorageUnusable(DaemonError):
    """The storage root cannot be used."""

    def __init__(self, *, root: Path, reason: str) -> None:
        super().__init__(
            f"storage root {root}: {reason}; mend it (tickserve verify tells more) or choose "
            "another with --storage"
        )
        self.root = root
        self.reason = reason


class RegistryMissing(DaemonError):
    """There is no registry in the folder."""

    def __init__(self, *, root: Path) -> None:
        super().__init__(
            f"there is no registry in {root}; name another folder with --storage, or save a "
            "model to make one"
        )
        self.root = root


class AlreadyRunning(DaemonError):
    """Another daemon holds the lock of this storage root."""

    def __init__(self, *, root: Path, pid: str) -> None:
        super().__init__(
            f"another tickserve daemon (pid {pid}) already serves {root}; "
            "stop it first, or serve another storage root"
        )
        self.root = root
        self.pid = pid


class ChildFailed(DaemonError):
    """A child process ended, or stayed silent, before it was ready."""

    def __init__(self, *, name: str, reason: str) -> None:
        super().__init__(f"the {name} process did not start: {reason}")
        self.name = name
        self.reason = reason


class NotAnswering(DaemonError):
    """No daemon answers where a command looked for one."""

    def __init__(self, *, endpoint: str, reason: str) -> None:
        super().__init__(f"no daemon answers at {endpoint}: {reason}")
        self.endpoint = endpoint
        self.reason = reason


class LedgerUnusable(DaemonError):
    """The ledger's database cannot be opened, or is of another release."""

    def __init__(self, *, url: str, reason: str) -> None:
        super().__init__(f"ledger {url}: {reason}; check --ledger, the path and its permissions")
        self.url = url
        self.reason = reason


class KeysUnreadable(DaemonError):
    """A file of keys is missing or cannot be read."""

    def __init__(self, *, path: Path, reason: str) -> None:
        super().__init__(f"keys {path}: {reason}; make one with: tickserve keys new NAME")
        self.path = path
        self.reason = reason


class KeyRefused(DaemonError):
    """A key cannot be made or revoked."""

    def __init__(self, *, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        self.problem = problem


class LedgerMissing(DaemonError):
    """There is no ledger where a command looks for one."""

    def __init__(self, *, file: Path) -> None:
        super().__init__(
            f"there is no ledger at {file}; name another with --ledger or --storage, or run "
            "tickserve serve to make one"
        )
        self.file = file


class ExtraMissing(DaemonError):
    """A package that an extra brings is not installed."""

    def __init__(self, *, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'tickserve[{extra}]'")
        self.package = package
        self.extra = extra
