"""The ledger: the one connection that writes, and every statement of a turn.

A turn is one transaction: read what its items are about with few statements, decide in memory,
write with few statements. Rows are dictionaries by column name.
"""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
import structlog

from tickserve_server.errors import LedgerUnusable
from tickserve_server.recorder import schema
from tickserve_server.recorder.database import Database, guarded
from tickserve_server.recorder.migrations import migrate

log = structlog.get_logger(__name__)

MOST_KEYS = 2_000
"""Keys in one statement; databases bound the number of its parameters."""

OVERLAPPING = 8
"""Parcels whose ranges of ids may overlap: those of threads that finish at the same time."""

Row = dict[str, Any]
Key = tuple[Any, ...]


class LogInDoubt(Exception):
    """A commit has failed, and its remains in the write-ahead log are not yet settled."""


class SetAside(NamedTuple):
    """A corrupt ledger that was moved away: where to, and what was wrong with it."""

    file: Path
    problem: str


class Ledger:
    """Owns the connection; every method runs inside the transaction that begin() opens.

    Not thread-safe: the recorder's loop alone uses it. Raises LedgerUnusable where the database
    cannot be opened, is another recorder's, or is of a newer release.
    """

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.database.claim()
        self.set_aside: SetAside | None = None
        found = self.database.set_aside_if_corrupt()
        if found is not None:
            self.set_aside = SetAside(*found)
            log.error("ledger_set_aside", file=str(found[0]), reason=found[1])
        self._engine = self.database.writer()
        self._statements = _Statements(self.database)
        self._transaction: sa.RootTransaction | None = None
        self._is_in_doubt = False
        self.identity = ""
        self.position = 0
        with contextlib.ExitStack() as undone:
            undone.callback(self.database.release)
            undone.callback(self._engine.dispose)
            self._connection = guarded(self.database.shown, self._connect)
            undone.callback(self._connection.close)
            self.position = guarded(self.database.shown, self._prepare)
            undone.pop_all()

    def begin(self) -> None:
        """Open the transaction of this turn."""
        self._transaction = self._connection.begin()

    def commit(self) -> None:
        """Make everything since begin() durable, or raise; then nothing of it is stored."""
        assert self._transaction is not None  # noqa: S101 - begin() comes first
        self._is_in_doubt = True
        self._transaction.commit()
        self._is_in_doubt = False

    def rollback(self) -> None:
        """Undo everything since begin()."""
        if self._transaction is not None and self._transaction.is_active:
            self._transaction.rollback()

    def reopen(self) -> None:
        """Drop the connection with its open transaction and take a fresh one.

        After a failed commit the old connection's state is not to be trusted, and neither is the
        write-ahead log: what the system failed to sync it may show as if it were on the disk. It is
        therefore written into the database, and synced there, before anything else is stored.
        Raises LogInDoubt while that is not possible.
        """
        self._transaction = None
        if not self._connection.closed:
            self._connection.invalidate()
            self._connection.close()
        self._connection = self._connect()
        if self._is_in_doubt and self.database.file is not None and self.empty_log():
            raise LogInDoubt("what a failed commit left behind cannot be written to the database")
        self._is_in_doubt = False

    def empty_log(self) -> int:
        """Move the write-ahead log into the database; return the bytes left in it.

        Outside of a transaction. A reader that holds an old state prevents it.
        """
        raw: Any = self._connection.connection.dbapi_connection
        with contextlib.suppress(sqlite3.Error):
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return self.database.wal_bytes()

    def close(self) -> None:
        """Close the connection and give the ledger up."""
        self._connection.close()
        self._engine.dispose()
        self.database.release()

    def next_position(self) -> int:
        """Return the number of the next row in the order of storing."""
        self.position += 1
        return self.position

    def find(self, table: sa.Table, keys: Iterable[Key]) -> dict[Key, Row]:
        """Return the rows of a table by their primary keys."""
        columns = [column.name for column in table.primary_key]
        query = self._statements.find[table.name]
        found: dict[Key, Row] = {}
        for prefix, last in _by_prefix(keys).items():
            for row in self._among(query, last, dict(zip(columns, prefix, strict=False))):
                found[tuple(row[name] for name in columns)] = row
        return found

    def put(self, table: sa.Table, rows: Sequence[Row]) -> None:
        """Insert rows, or replace those with their keys."""
        if rows:
            self._connection.execute(self._statements.put[table.name], rows)

    def add(self, table: sa.Table, rows: Sequence[Row]) -> None:
        """Insert rows unless there are some with their keys."""
        if rows:
            self._connection.execute(self._statements.add[table.name], rows)

    def add_new(self, table: sa.Table, row: Row) -> bool:
        """Insert a row unless there is one with its key; return whether it was new."""
        added = self._connection.execute(self._statements.add_counted[table.name], row)
        return bool(added.rowcount == 1)

    def all(self, table: sa.Table) -> Iterator[Row]:
        """Return every row of a table."""
        for row in self._connection.execute(sa.select(table)).mappings():
            yield dict(row)

    def used_predictions(self, ids: Iterable[str]) -> set[str]:
        """Return which predictions some trade already follows."""
        return {row["prediction_id"] for row in self._among(self._statements.used, ids)}

    def run_currency(self, bot: str, run: str) -> str | None:
        """Return the currency in which a run's trades were reported."""
        query = self._statements.currency
        found = self._connection.execute(query, {"bot": bot, "run": run}).first()
        return None if found is None else str(found.currency)

    def builds_of_run(self, bot: str, run: str) -> list[str]:
        """Return the builds that a run has traded."""
        query = self._statements.builds_of_run
        rows = self._connection.execute(query, {"bot": bot, "run": run})
        return [str(row.build) for row in rows]

    def parcels_around(self, prediction_id: str) -> list[Key]:
        """Return the keys of the parcels in whose range a prediction's id lies.

        Ids grow with time, so it is one of the last parcels that begin before it.
        """
        found = self._connection.execute(self._statements.around, {"id": prediction_id})
        return [(row.sender, row.sequence) for row in found if prediction_id <= row.last_id]

    def parked(self, table: sa.Table, bases: Iterable[str] | None = None) -> list[Row]:
        """Return outcomes or labels that wait for their prediction, all or those of some ids."""
        query = self._statements.parked[table.name]
        rows = [dict(row) for row in self._connection.execute(query).mappings()]
        wanted = None if bases is None else set(bases)
        return [r for r in rows if wanted is None or base_of(r["prediction_id"]) in wanted]

    def labels_since(self, build: str, position: int) -> list[Row]:
        """Return a build's labels beyond a position."""
        parameters = {"build": build, "position": position}
        rows = self._connection.execute(self._statements.labels_since, parameters).mappings()
        return [dict(row) for row in rows]

    def delete(self, table: sa.Table, keys: Sequence[Key]) -> None:
        """Delete rows by their primary keys."""
        columns = [column.name for column in table.primary_key]
        rows = [dict(zip(columns, key, strict=True)) for key in keys]
        if rows:
            self._connection.execute(self._statements.delete[table.name], rows)

    def delete_before(self, table: sa.Table, column: str, limit: int) -> int:
        """Delete the rows whose time lies before a limit; return how many."""
        return int(
            self._connection.execute(sa.delete(table).where(table.c[column] < limit)).rowcount
        )

    def _connect(self) -> sa.Connection:
        connection = self._engine.connect()
        if self.database.dialect == "postgresql":
            with contextlib.ExitStack() as undone, connection.begin():
                undone.callback(connection.close)
                self.database.claim_with(connection)
                undone.pop_all()
        return connection

    def _prepare(self) -> int:
        """Bring the tables up to date; return the highest position."""
        self._back_up_before_migration()
        with self._connection.begin():
            try:
                found, present = migrate(self._connection)
            except ValueError as error:
                raise LedgerUnusable(url=self.database.shown, reason=str(error)) from error
            if found not in {0, present}:
                log.info("ledger_migrated", since=found, to=present)
            self.identity = self._identify()
            tops = (schema.outcomes.c.position, schema.labels.c.position)
            highest = [
                self._connection.execute(sa.select(sa.func.max(top))).scalar() for top in tops
            ]
            return max(each or 0 for each in highest)

    def _identify(self) -> str:
        """Return what tells this ledger from any other, such as one that was set aside."""
        table = schema.identity
        known = self._connection.execute(sa.select(table.c.id)).scalar()
        if known is None:
            known = uuid.uuid4().hex
            self._connection.execute(sa.insert(table), [{"id": known}])
        return str(known)

    def _back_up_before_migration(self) -> None:
        """Keep a copy of an SQLite file as the older release left it."""
        from tickserve_server.recorder.migrations import version_of

        file = self.database.file
        with self._connection.begin():
            version = version_of(self._connection)
        if file is None or version in {0, schema.VERSION}:
            return
        copy = file.with_name(f"{file.stem}.version-{version}{file.suffix}")
        if not copy.exists():
            raw: Any = self._connection.connection.dbapi_connection
            raw.execute("VACUUM INTO ?", (str(copy),))

    def _among(
        self, query: Any, values: Iterable[Any], parameters: Row | None = None
    ) -> Iterator[Row]:
        rest = iter(values)
        while chunk := list(islice(rest, MOST_KEYS)):
            found = self._connection.execute(query, {"among": chunk, **(parameters or {})})
            for row in found.mappings():
                yield dict(row)


def base_of(prediction_id: str) -> str:
    """Return the id of the request; row i of a batch is `<base>:<i>`."""
    return prediction_id.partition(":")[0]


class _Statements:
    """Statements that are built once, since that costs more than to run them."""

    def __init__(self, database: Database) -> None:
        tables = schema.tables.tables
        outcomes, parcels, labels = schema.outcomes, schema.prediction_parcels, schema.labels
        waiting = (outcomes, labels)
        self.find = {name: _find(table) for name, table in tables.items()}
        self.put = {name: _put(database, table) for name, table in tables.items()}
        self.add = {
            name: database.insert(table).on_conflict_do_nothing() for name, table in tables.items()
        }
        self.add_counted = {
            name: statement.execution_options(preserve_rowcount=True)
            for name, statement in self.add.items()
        }
        self.parked = {
            table.name: sa.select(table).where(
                table.c.build.is_(None), table.c.prediction_id.is_not(None)
            )
            for table in waiting
        }
        self.used = (
            sa.select(outcomes.c.prediction_id)
            .where(_among(outcomes.c.prediction_id))
            .where(outcomes.c.build.is_not(None))
            .distinct()
        )
        self.currency = (
            sa.select(outcomes.c.currency)
            .where(outcomes.c.bot == sa.bindparam("bot"), outcomes.c.run == sa.bindparam("run"))
            .where(outcomes.c.currency.is_not(None))
            .limit(1)
        )
        self.builds_of_run = sa.select(schema.run_builds.c.build).where(
            schema.run_builds.c.bot == sa.bindparam("bot"),
            schema.run_builds.c.run == sa.bindparam("run"),
        )
        self.around = (
            sa.select(parcels.c.sender, parcels.c.sequence, parcels.c.last_id)
            .where(parcels.c.first_id <= sa.bindparam("id"))
            .order_by(parcels.c.first_id.desc())
            .limit(OVERLAPPING)
        )
        self.labels_since = sa.select(labels.c.value, labels.c.output, labels.c.position).where(
            labels.c.build == sa.bindparam("build"), labels.c.position > sa.bindparam("position")
        )
        self.delete = {name: _delete(table) for name, table in tables.items()}


def _by_prefix(keys: Iterable[Key]) -> dict[Key, list[Any]]:
    """Group keys by all but their last part: an index is searched for one group at a time."""
    groups: dict[Key, list[Any]] = {}
    for key in keys:
        groups.setdefault(key[:-1], []).append(key[-1])
    return groups


def _find(table: sa.Table) -> sa.Select[Any]:
    *prefix, last = table.primary_key
    same = [column == sa.bindparam(column.name) for column in prefix]
    return sa.select(table).where(*same, _among(last))


def _delete(table: sa.Table) -> sa.Delete:
    return sa.delete(table).where(*(key == sa.bindparam(key.name) for key in table.primary_key))


def _among(column: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    values: sa.BindParameter[Any] = sa.bindparam("among", expanding=True)
    return column.in_(values)


def _put(database: Database, table: sa.Table) -> Any:
    insert = database.insert(table)
    keys = [column.name for column in table.primary_key]
    others = {c.name: insert.excluded[c.name] for c in table.columns if c.name not in keys}
    if not others:
        return insert.on_conflict_do_nothing()
    return insert.on_conflict_do_update(index_elements=keys, set_=others)
