"""The daemon's configuration: one frozen object, read in one place, unknown keys refused.

Precedence: command-line flags over `TICKSERVE_*` environment variables over the TOML file over
the defaults. `TICKSERVE_RECORDER__WRITEBACK_SECONDS=5` sets `[recorder] writeback_seconds`; a
list is written as JSON.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from tickserve_registry.errors import SigningKeyUnusable
from tickserve_registry.signing import Signers
from tickserve_server.errors import SettingsError

ENVIRONMENT_PREFIX = "TICKSERVE_"
NESTING = "__"
MEBIBYTE = 1024 * 1024
SHORTEST_TOKEN = 16
UNKNOWN = re.compile(r"unknown field `(?P<key>[^`]*)`(?: - at `\$\.?(?P<path>[^`]*)`)?")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table of the configuration file."""


class Endpoints(Section, frozen=True, kw_only=True):
    """Where the daemon listens: tcp on loopback, or ipc."""

    predict: str = "tcp://127.0.0.1:5555"
    feedback: str = "tcp://127.0.0.1:5556"
    events: str = "tcp://127.0.0.1:5557"


class SecuritySettings(Section, frozen=True, kw_only=True):
    """Whether bots need keys, where those lie, and who may connect over ipc."""

    curve: bool = False
    keys: str = ""
    ipc_mode: str = "0600"

    @property
    def ipc_permissions(self) -> int:
        """The permissions of ipc sockets as a number."""
        return int(self.ipc_mode, 8)


class LedgerSettings(Section, frozen=True, kw_only=True):
    """Where feedback is kept; an empty url means SQLite inside the storage root."""

    url: str = ""


class RegistrySettings(Section, frozen=True, kw_only=True):
    """What may be loaded: pickles, which can run code, sizes, and by whom it must be signed."""

    allow_pickle: bool = False
    trusted_types: tuple[str, ...] = ()
    require_signed: bool = False
    signers: tuple[str, ...] = ()
    max_artefact_bytes: int = 1 << 30


class ServingSettings(Section, frozen=True, kw_only=True):
    """The serving process: reload timing, limits and what it refuses."""

    debounce_ms: int = 20
    poll_seconds: float = 2.0
    retry_seconds: float = 5.0
    max_message_bytes: int = MEBIBYTE
    max_tensor_bytes: int = 64 * MEBIBYTE
    max_rows: int = 1_000
    max_tensor_rows: int = 100_000
    max_models: int = 256
    rows_on_loop: int = 256
    jobs_per_client: int = 4
    max_jobs: int = 64
    queue_length: int = 10_000
    spin_us: int = 0
    stale_after_bars: float = 0.0
    failure_limit: int = 10
    run_seconds: float = 5.0
    record_backlog: int = 200_000
    record_backlog_bytes: int = 256 * MEBIBYTE
    drain_seconds: float = 5.0


class RecorderSettings(Section, frozen=True, kw_only=True):
    """The recorder process: periods in seconds, capital where a bot states none."""

    writeback_seconds: float = 60.0
    metric_log_seconds: float = 60.0
    metric_log_file: str | None = None
    default_capital: float = 10_000.0
    history_days: int = 90
    max_message_bytes: int = MEBIBYTE
    max_items: int = 5_000
    calendars: dict[str, Literal["24x7", "weekdays"]] = {}


class RetentionSettings(Section, frozen=True, kw_only=True):
    """How long the ledger keeps what the live figures no longer need; 0 days is forever."""

    predictions_days: float = 0.0
    events_days: float = 0.0
    snapshots_days: float = 0.0
    export: bool = True
    export_folder: str = ""
    check_seconds: float = 3600.0


class OpsSettings(Section, frozen=True, kw_only=True):
    """Where metrics are served over HTTP; an empty address is nowhere."""

    listen: str = ""
    token_file: str = ""

    def token(self) -> str | None:
        """Return the token in its file, None where there is to be none. Raises SettingsError."""
        if not self.token_file:
            return None
        source = "ops.token_file"
        try:
            token = Path(self.token_file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(source=source, problem=f"{self.token_file}: {error}") from error
        if len(token) < SHORTEST_TOKEN:
            problem = f"{self.token_file} holds a token of less than {SHORTEST_TOKEN} characters"
            raise SettingsError(source=source, problem=problem)
        return token


class SupervisorSettings(Section, frozen=True, kw_only=True):
    """When a process that lives but gives no sign of life is killed and started anew."""

    stuck_seconds: float = 15.0


class LoggingSettings(Section, frozen=True, kw_only=True):
    """Log level, form and folder; `auto` is text on a terminal and JSON elsewhere.

    Without a folder everything goes to standard error.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    form: Literal["auto", "json", "text"] = "auto"
    folder: str = ""


class Settings(Section, frozen=True, kw_only=True):
    """Everything the daemon can be told."""

    storage: str = "./model_storage"
    endpoints: Endpoints = Endpoints()
    security: SecuritySettings = SecuritySettings()
    ledger: LedgerSettings = LedgerSettings()
    registry: RegistrySettings = RegistrySettings()
    serving: ServingSettings = ServingSettings()
    recorder: RecorderSettings = RecorderSettings()
    retention: RetentionSettings = RetentionSettings()
    ops: OpsSettings = OpsSettings()
    supervisor: SupervisorSettings = SupervisorSettings()
    logging: LoggingSettings = LoggingSettings()

    @property
    def storage_root(self) -> Path:
        """The storage root as an absolute path."""
        return Path(self.storage).expanduser().absolute()

    @property
    def ledger_url(self) -> str:
        """The ledger's database URL, with the default filled in."""
        default = f"sqlite:///{self.storage_root / 'ledger' / 'ledger.sqlite3'}"
        return self.ledger.url or default

    @property
    def keys_folder(self) -> Path:
        """Where keys lie, with the default filled in."""
        chosen = self.security.keys
        return Path(chosen).expanduser().absolute() if chosen else self.storage_root / "keys"

    @property
    def export_folder(self) -> Path:
        """Where retention exports to, with the default filled in."""
        chosen = self.retention.export_folder
        default = self.storage_root / "ledger" / "exports"
        return Path(chosen).expanduser().absolute() if chosen else default


def load_settings(
    *,
    file: Path | None,
    environment: Mapping[str, str],
    flags: Mapping[str, Any],
) -> Settings:
    """Merge the four sources and check the result.

    `flags` maps dotted keys (`endpoints.predict`) to values; None means not given.
    Raises SettingsError that names the source and the key.
    """
    tree: dict[str, Any] = {}
    if file is not None:
        tree = _read_file(file)
        _convert(tree, source=str(file), strict=True)
    for key, value in environment.items():
        if key.startswith(ENVIRONMENT_PREFIX):
            path = key.removeprefix(ENVIRONMENT_PREFIX).lower().split(NESTING)
            source = f"environment variable {key}"
            _assign(tree, path, _listed(value, source=source), source=source)
            _convert(tree, source=f"environment variable {key}", strict=False)
    for dotted, value in flags.items():
        if value is not None:
            _assign(tree, dotted.split("."), value, source=f"--{dotted}")
    settings = _convert(tree, source="command line", strict=False)
    _require_endpoints(settings.endpoints, curve=settings.security.curve)
    _require_signers(settings.registry)
    _require_permissions(settings.security.ipc_mode)
    _require_ops_address(settings.ops)
    settings.ops.token()
    return settings


def dump_settings(settings: Settings) -> bytes:
    """Return the settings as JSON, for a child process."""
    return msgspec.json.encode(settings)


def read_settings(path: Path) -> Settings:
    """Read what dump_settings wrote."""
    return msgspec.json.decode(path.read_bytes(), type=Settings)


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            source=str(file), problem=f"cannot be read ({error.strerror})"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(source=str(file), problem=f"is not valid TOML: {error}") from error


def _listed(value: str, *, source: str) -> Any:
    """Return a variable's text, or the list that it writes as JSON."""
    if not value.startswith("["):
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        problem = f"{value!r} begins like a list and is none in JSON: {error}"
        raise SettingsError(source=source, problem=problem) from error


def _assign(tree: dict[str, Any], path: list[str], value: Any, *, source: str) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise SettingsError(source=source, problem=f"{name!r} is not a section")
    tree[path[-1]] = value


def _convert(tree: dict[str, Any], *, source: str, strict: bool) -> Settings:
    try:
        return msgspec.convert(tree, Settings, strict=strict)
    except msgspec.ValidationError as error:
        raise SettingsError(source=source, problem=f"{error}{_hint(str(error))}") from error


def _hint(problem: str) -> str:
    """Return what there is in place of an unknown key: those alike, else all of its section."""
    found = UNKNOWN.search(problem)
    if found is None:
        return ""
    section: Any = Settings()
    for name in filter(None, (found["path"] or "").split(".")):
        section = getattr(section, name, section)
    known = section.__struct_fields__
    alike = difflib.get_close_matches(found["key"], known)
    return f"; did you mean {', '.join(alike)}?" if alike else f"; known: {', '.join(known)}"


def _require_signers(settings: RegistrySettings) -> None:
    try:
        signers = Signers(settings.signers)
    except SigningKeyUnusable as error:
        raise SettingsError(source="registry.signers", problem=str(error)) from error
    if settings.require_signed and not signers:
        problem = "is true, and registry.signers allows nobody: nothing could be loaded"
        raise SettingsError(source="registry.require_signed", problem=problem)


def _require_permissions(mode: str) -> None:
    if re.fullmatch("0?[0-7]{3}", mode) is None:
        problem = f"{mode!r} are no permissions such as 0600 or 0660"
        raise SettingsError(source="security.ipc_mode", problem=problem)


def _require_endpoints(endpoints: Endpoints, *, curve: bool) -> None:
    for name in Endpoints.__struct_fields__:
        endpoint: str = getattr(endpoints, name)
        transport, _, address = endpoint.partition("://")
        if transport == "ipc" and address:
            continue
        host, _, port = address.rpartition(":")
        if transport != "tcp" or not port.isdigit():
            raise SettingsError(
                source=f"endpoints.{name}",
                problem=f"{endpoint!r} is not tcp://127.0.0.1:PORT or ipc://PATH",
            )
        if not (curve or _is_loopback(host)):
            raise SettingsError(
                source=f"endpoints.{name}",
                problem=f"{endpoint!r} listens beyond loopback, where anyone could trade on it "
                "or feed it; use 127.0.0.1 or ipc, or ask bots for keys: security.curve",
            )


def _require_ops_address(settings: OpsSettings) -> None:
    """Refuse what is not HOST:PORT, and an address beyond loopback without a token."""
    host, _, port = settings.listen.rpartition(":")
    if settings.listen and not (host and port.isdigit()):
        problem = f"{settings.listen!r} is not HOST:PORT, such as 127.0.0.1:9464"
        raise SettingsError(source="ops.listen", problem=problem)
    if settings.listen and not (settings.token_file or _is_loopback(host)):
        problem = (
            f"{settings.listen!r} listens beyond loopback, where anyone could read it; use "
            "127.0.0.1, or ask for a token: ops.token_file"
        )
        raise SettingsError(source="ops.listen", problem=problem)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
