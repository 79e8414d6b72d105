"""The ledger: one connection that writes, group commits, and what is read back at start."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from tickserve_client.messages import Equity, Hello, Label, Outcome
from tickserve_server.errors import LedgerUnusable
from tickserve_server.parcel import Summary, open_parcel
from tickserve_server.recorder import schema

BUSY_S = 30.0
OVERLAPPING = 8
"""Parcels whose ranges of ids may overlap: those of threads that finish at the same time."""

PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY")

Row = sa.Row[Any]


class Ledger:
    """Owns the connection; every method runs inside the transaction that begin() opens.

    Not thread-safe: the recorder's loop alone uses it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine = _engine(url)
        try:
            self._connection = self._engine.connect()
            with self._connection.begin():
                schema.tables.create_all(self._connection)
                self._require_version()
        except sa.exc.DBAPIError as error:
            raise LedgerUnusable(url=url, reason=str(error.orig)) from error
        self._transaction: sa.RootTransaction | None = None

    def begin(self) -> None:
        """Open the transaction of this turn."""
        self._transaction = self._connection.begin()

    def commit(self) -> None:
        """Make everything since begin() durable, or raise; then nothing of it is stored."""
        assert self._transaction is not None  # noqa: S101 - begin() comes first
        self._transaction.commit()

    def rollback(self) -> None:
        """Undo everything since begin()."""
        if self._transaction is not None and self._transaction.is_active:
            self._transaction.rollback()

    def reopen(self) -> None:
        """Drop the connection with its open transaction and take a fresh one.

        After a failed commit or fsync the old connection's state is not to be trusted.
        """
        self._connection.invalidate()
        self._connection.close()
        self._connection = self._engine.connect()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
        self._engine.dispose()

    def add_run(self, hello: Hello, *, account: str, at: int) -> bool:
        """Register a run unless it is known; return whether it was new."""
        return self._insert_new(
            schema.runs,
            {
                "bot": hello.bot,
                "run": hello.run,
                "account": account,
                "mode": hello.mode,
                "currency": hello.currency,
                "starting_equity": hello.starting_equity,
                "received_at": at,
            },
        )

    def run(self, bot: str, run: str) -> Row | None:
        """Return a registered run."""
        table = schema.runs
        return self._one(sa.select(table).where(table.c.bot == bot, table.c.run == run))

    def runs(self) -> list[Row]:
        """Return all runs, in the order in which they registered."""
        return self._all(sa.select(schema.runs).order_by(schema.runs.c.received_at))

    def add_parcel(self, sender: str, sequence: int, summary: Summary, body: bytes) -> bool:
        """Store a parcel of predictions unless it is known; return whether it was new."""
        return self._insert_new(
            schema.prediction_parcels,
            {
                "sender": sender,
                "sequence": sequence,
                "first_id": summary.first_id,
                "last_id": summary.last_id,
                "records": summary.records,
                "rows": msgspec.json.encode(summary.rows).decode(),
                "body": body,
            },
        )

    def build_of(self, prediction_id: str) -> str | None:
        """Return the build that made a prediction; row i of a batch is `<base>:<i>`.

        Ids grow with time, so a prediction lies in one of the last parcels that begin before it.
        """
        table, base = schema.prediction_parcels, prediction_id.partition(":")[0]
        before = sa.select(table.c.body, table.c.last_id).where(table.c.first_id <= base)
        for row in self._all(before.order_by(table.c.first_id.desc()).limit(OVERLAPPING)):
            if base <= row.last_id:
                for record in open_parcel(row.body):
                    if record.prediction_id == base:
                        return record.build
        return None

    def prediction_counts(self) -> Counter[str]:
        """Return how many predicted rows are recorded for each build."""
        counts: Counter[str] = Counter()
        for row in self._all(sa.select(schema.prediction_parcels.c.rows)):
            counts.update(msgspec.json.decode(row.rows, type=dict[str, int]))
        return counts

    def outcome(self, bot: str, run: str, trade: str) -> Row | None:
        """Return the newest revision of a trade."""
        table = schema.outcomes
        key = (table.c.bot == bot, table.c.run == run, table.c.trade == trade)
        return self._one(sa.select(table).where(*key))

    def put_outcome(
        self, outcome: Outcome, *, build: str | None, closed_at: int | None, content: str, at: int
    ) -> None:
        """Make this the newest revision of its trade, and keep it among the revisions."""
        key = {"bot": outcome.bot, "run": outcome.run, "trade": outcome.trade}
        table = schema.outcomes
        row = {
            **key,
            "seq": outcome.seq,
            "status": outcome.status,
            "final": outcome.final,
            "build": build,
            "prediction_id": outcome.prediction_id,
            "pnl": outcome.pnl,
            "currency": outcome.currency,
            "closed_at": closed_at,
            "content": content,
            "received_at": at,
        }
        same = [table.c[name] == value for name, value in key.items()]
        self._connection.execute(sa.delete(table).where(*same))
        self._connection.execute(sa.insert(table), [row])
        self.keep_revision(outcome, content=content, at=at)

    def keep_revision(self, outcome: Outcome, *, content: str, at: int) -> None:
        """Keep a revision as history, whether or not it is the newest."""
        self._insert_new(
            schema.outcome_revisions,
            {
                "bot": outcome.bot,
                "run": outcome.run,
                "trade": outcome.trade,
                "seq": outcome.seq,
                "content": content,
                "received_at": at,
            },
        )

    def waiting(self) -> list[Row]:
        """Return the outcomes that wait for their prediction."""
        table = schema.outcomes
        known = table.c.prediction_id.is_not(None)
        return self._all(sa.select(table).where(table.c.build.is_(None), known))

    def attribute(self, row: Row, *, build: str) -> None:
        """Join a parked outcome to the build of its prediction."""
        table = schema.outcomes
        key = (table.c.bot == row.bot, table.c.run == row.run, table.c.trade == row.trade)
        self._connection.execute(sa.update(table).where(*key).values(build=build))

    def counted(self) -> list[Row]:
        """Return every final closed trade that a build is known for, in close order."""
        table = schema.outcomes
        return self._all(
            sa.select(table)
            .where(table.c.final, table.c.status == "closed", table.c.build.is_not(None))
            .order_by(table.c.closed_at)
        )

    def count_parked(self) -> int:
        """Return how many outcomes wait for their prediction."""
        table = schema.outcomes
        row = self._one(sa.select(sa.func.count().label("n")).where(table.c.build.is_(None)))
        return 0 if row is None else int(row.n)

    def add_label(self, label: Label, *, when: int, at: int) -> str:
        """Store a label; return recorded, duplicate or conflict."""
        table = schema.labels
        known = self._one(sa.select(table).where(table.c.prediction_id == label.prediction_id))
        if known is not None:
            return "duplicate" if known.value == label.value else "conflict"
        row = {
            "prediction_id": label.prediction_id,
            "value": label.value,
            "at": when,
            "received_at": at,
        }
        self._connection.execute(sa.insert(table), [row])
        return "recorded"

    def add_equity(self, snapshot: Equity, *, when: int) -> bool:
        """Store a snapshot of equity; return whether it was new."""
        return self._insert_new(
            schema.equity,
            {
                "bot": snapshot.bot,
                "run": snapshot.run,
                "at": when,
                "equity": snapshot.equity,
                "currency": snapshot.currency,
            },
        )

    def add_event(self, topic: str, body: dict[str, Any], *, at: int) -> None:
        """Store an event."""
        row = {"at": at, "topic": topic, "body": msgspec.json.encode(body).decode()}
        self._connection.execute(sa.insert(schema.events), [row])

    def _insert_new(self, table: sa.Table, row: dict[str, Any]) -> bool:
        result = self._connection.execute(_insert_ignoring(self._url, table), [row])
        return result.rowcount > 0

    def _one(self, query: sa.Select[Any]) -> Row | None:
        return self._connection.execute(query).first()

    def _all(self, query: sa.Select[Any]) -> list[Row]:
        return list(self._connection.execute(query).all())

    def _require_version(self) -> None:
        table = schema.schema_version
        found = self._one(sa.select(table.c.version))
        if found is None:
            self._connection.execute(sa.insert(table), [{"version": schema.VERSION}])
        elif found.version != schema.VERSION:
            reason = f"has schema {found.version}, this release reads {schema.VERSION}"
            raise LedgerUnusable(url=self._url, reason=reason)


def _engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
        if backend == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {"timeout": BUSY_S} if backend == "sqlite" else {}
        engine = sa.create_engine(url, connect_args=options)
    except (sa.exc.ArgumentError, ModuleNotFoundError, OSError) as error:
        raise LedgerUnusable(url=url, reason=str(error)) from error
    if backend == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_immediate)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Durable commits, and transactions that this module begins itself."""
    connection.isolation_level = None
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: sa.Connection) -> None:
    """Take the write lock at once, so that a transaction never fails half-way for it."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _insert_ignoring(url: str, table: sa.Table) -> Any:
    insert = postgresql.insert if url.startswith("postgresql") else sqlite.insert
    return insert(table).on_conflict_do_nothing()
