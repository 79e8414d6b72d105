"""The database under the ledger: opened for one writer or for readers, checked and claimed."""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from tickserve_server.errors import LedgerUnusable

WRITER_WAIT_S = 0.2
"""A lock of somebody else's is waited for that long; then bots are told to send again."""

READER_WAIT_S = 5.0
PATIENCE = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 5_000,
}
"""How soon a PostgreSQL server that no longer answers counts as away."""

DURABLY = "-c synchronous_commit=on -c lock_timeout=200 -c statement_timeout=30000"
"""Whatever the server's own defaults are: a commit that returns is on its disk."""

PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "temp_store=MEMORY",
    "cache_size=-65536",
    "journal_size_limit=67108864",
)
ADVISORY_LOCK = 0x7469636B73657276
"""`tickserv`: the lock of a PostgreSQL database's one recorder."""

MAGIC = b"SQLite format 3\x00"
PARTS = ("", "-wal", "-shm")


class Database:
    """One ledger's database, by its SQLAlchemy URL.

    Raises LedgerUnusable for a URL that names none, or a driver that is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            self._url = sa.make_url(url)
            self.dialect = self._url.get_backend_name()
        except sa.exc.ArgumentError as error:
            raise LedgerUnusable(url=url, reason=f"{url!r} is no database URL") from error
        self.shown = self._url.render_as_string(hide_password=True)
        if self.dialect not in {"sqlite", "postgresql"}:
            reason = f"{self.dialect} is not supported; use sqlite or postgresql+psycopg"
            raise LedgerUnusable(url=self.shown, reason=reason)
        self._lock: IO[str] | None = None
        self._log = None if self.file is None else Path(f"{self.file}-wal")

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database."""
        is_file = self.dialect == "sqlite" and self._url.database not in {None, "", ":memory:"}
        return Path(str(self._url.database)) if is_file else None

    def writer(self) -> sa.Engine:
        """Return the engine of the one connection that writes."""
        if self.file is not None:
            engine = self._engine("sqlite://", creator=self._open_to_write)
            sa.event.listen(engine, "begin", _begin_immediate)
            return engine
        return self._engine(self._url, connect_args={**PATIENCE, "options": DURABLY})

    def reader(self) -> sa.Engine:
        """Return an engine whose connections cannot write."""
        if self.file is not None:
            engine = self._engine("sqlite://", creator=self._open_to_read)
            sa.event.listen(engine, "begin", _begin)
            return engine
        options = {**PATIENCE, "options": "-c default_transaction_read_only=on"}
        return self._engine(self._url, connect_args=options, isolation_level="REPEATABLE READ")

    def insert(self, table: sa.Table) -> Any:
        """Return an INSERT that can say what happens on a conflict."""
        return (postgresql.insert if self.dialect == "postgresql" else sqlite.insert)(table)

    def claim(self) -> None:
        """Become the one recorder of an SQLite file; the claim dies with the process.

        Raises LedgerUnusable where another process has it.
        """
        if self.file is None:
            return
        self._require_ours(self.file)
        try:
            _make_folder(self.file.parent)
            self._lock = Path(f"{self.file}.lock").open("a+")  # noqa: SIM115 - held until the end
        except OSError as error:
            reason = f"{error.filename}: {error.strerror}"
            raise LedgerUnusable(url=self.shown, reason=reason) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            raise LedgerUnusable(url=self.shown, reason=TAKEN) from error

    def _require_ours(self, file: Path) -> None:
        """Refuse somebody's file that is no database and never was: it is not ours to move away."""
        if Path(f"{file}.lock").exists() or not file.is_file():
            return
        with file.open("rb") as content:
            head = content.read(len(MAGIC))
        if head and head != MAGIC and any(head):
            raise LedgerUnusable(url=self.shown, reason="the file is no SQLite database")

    def claim_with(self, connection: sa.Connection) -> None:
        """Become the one recorder of a PostgreSQL database for as long as the connection lasts."""
        if self.dialect != "postgresql":
            return
        taken = connection.execute(sa.select(sa.func.pg_try_advisory_lock(ADVISORY_LOCK)))
        if not taken.scalar():
            raise LedgerUnusable(url=self.shown, reason=TAKEN)

    def set_aside_if_corrupt(self) -> tuple[Path, str] | None:
        """Move a file away that cannot be read whole; return its new path and what is wrong."""
        if self.file is None or not self.file.exists():
            return None
        problem = damage(self.file)
        return None if problem is None else (set_aside(self.file), problem)

    def release(self) -> None:
        """Give the claim up."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def wal_bytes(self) -> int:
        """Return the size of the write-ahead log of an SQLite file, else 0."""
        try:
            return 0 if self._log is None else self._log.stat().st_size
        except OSError:
            return 0

    def _engine(self, url: str | sa.URL, **options: Any) -> sa.Engine:
        try:
            return sa.create_engine(url, pool_pre_ping=False, **options)
        except ModuleNotFoundError as error:
            reason = f"{error.name} is not installed; run: pip install 'tickserve[postgresql]'"
            raise LedgerUnusable(url=self.shown, reason=reason) from error

    def _open_to_write(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            str(self.file), timeout=WRITER_WAIT_S, isolation_level=None, check_same_thread=False
        )
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _open_to_read(self) -> sqlite3.Connection:
        connection = _read_only(Path(str(self.file)))
        connection.isolation_level = None
        return connection


TAKEN = "another recorder writes to it; stop that daemon first, or name another ledger"


def damage(file: Path) -> str | None:
    """Return what is wrong with an SQLite file, None when it can be read whole."""
    try:
        connection = _read_only(file)
        try:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            connection.close()
    except sqlite3.OperationalError:
        return None  # locked, or not to be opened: whatever it is, the content is not at fault
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if found == "ok" else str(found)


def set_aside(file: Path) -> Path:
    """Rename a database with its log; return where it is now."""
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    target = file.with_name(f"{file.stem}.corrupt-{stamp}{file.suffix}")
    for part in PARTS:
        source = Path(f"{file}{part}")
        if source.exists():
            source.rename(f"{target}{part}")
    return target


def guarded(url: str, action: Callable[[], Any]) -> Any:
    """Run an action of start-up; a database's error becomes LedgerUnusable."""
    try:
        return action()
    except sa.exc.DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        raise LedgerUnusable(url=url, reason=reason) from error


def _make_folder(folder: Path) -> None:
    """Create a folder that a power cut cannot take away again."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    parent = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _read_only(file: Path) -> sqlite3.Connection:
    uri = f"file:{quote(str(file))}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=READER_WAIT_S, check_same_thread=False)


def _begin_immediate(connection: sa.Connection) -> None:
    """Take the write lock at once, so that a transaction never fails half-way for it."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")
