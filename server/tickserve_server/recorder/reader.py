"""Reads the ledger beside its writer: connections of its own, which cannot write."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

import sqlalchemy as sa

from tickserve_registry.track_record import ClosedTrade, TrackRecord
from tickserve_server.errors import LedgerUnusable
from tickserve_server.recorder import schema
from tickserve_server.recorder.database import Database
from tickserve_server.recorder.live import Run
from tickserve_server.recorder.marked_equity import MarkedEquity
from tickserve_server.recorder.migrations import version_of

FETCHED = 2_000

outcomes, runs, labels = schema.outcomes, schema.runs, schema.labels

COUNTED = sa.and_(outcomes.c.final, outcomes.c.status == "closed", outcomes.c.build.is_not(None))
"""The trades that enter the figures."""

WITH_RUN = outcomes.outerjoin(
    runs, sa.and_(runs.c.bot == outcomes.c.bot, runs.c.run == outcomes.c.run)
)


class TradeFilter(NamedTuple):
    """Which trades to list; None takes any. Times are ms since the epoch, by closing time."""

    model: str | None = None
    bot: str | None = None
    since: int | None = None
    until: int | None = None
    parked: bool = False


class LedgerReader:
    """Short reads, each in a transaction that sees one state of the ledger."""

    def __init__(self, database: Database) -> None:
        self._engine = database.reader()
        self._database = database

    @property
    def shown(self) -> str:
        """The database's URL without its password."""
        return self._database.shown

    def require_version(self) -> None:
        """Raise LedgerUnusable for tables that this release cannot read."""
        with self._engine.connect() as connection:
            found = version_of(connection)
        if found != schema.VERSION:
            reason = f"its tables are of version {found}, this release reads {schema.VERSION}"
            remedy = "; tickserve serve brings an older one up to date"
            raise LedgerUnusable(url=self.shown, reason=reason + remedy)

    def integrity(self) -> list[str]:
        """Return what SQLite finds wrong with its file; PostgreSQL checks its own pages."""
        if self._database.dialect != "sqlite":
            return []
        with self._engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
        return [f"the database: {each}" for each in found if each != "ok"]

    def replay(self, build: str, track: TrackRecord) -> int:
        """Fill an empty track record with all trades of a build; return the position reached."""
        query = (
            sa.select(*TRADE_COLUMNS)
            .select_from(WITH_RUN)
            .where(COUNTED, outcomes.c.build == build)
            .order_by(outcomes.c.closed_at)
        )
        with self._engine.connect() as connection:
            position = connection.execute(sa.select(sa.func.max(outcomes.c.position))).scalar()
            found = connection.execution_options(yield_per=FETCHED).execute(query)
            for _, together in groupby(found.mappings(), key=lambda row: row["closed_at"]):
                trades = [closed_trade(row) for row in together]
                for trade in sorted(trades, key=lambda each: each.place):
                    track.add(trade)
        return int(position or 0)

    def marked_equity(self, run: Run) -> MarkedEquity:
        """Return a run's marked equity, made of all its snapshots."""
        table, marked = schema.equity, MarkedEquity()
        query = (
            sa.select(table.c.at, table.c.equity)
            .where(table.c.bot == run[0], table.c.run == run[1])
            .order_by(table.c.at)
        )
        with self._engine.connect() as connection:
            for row in connection.execution_options(yield_per=FETCHED).execute(query):
                marked.add(row.at, row.equity)
        return marked

    def runs_of(self, build: str) -> tuple[list[Run], int]:
        """Return the runs that traded a build and nothing else, and how many traded others too."""
        table, other = schema.run_builds, schema.run_builds.alias("other")
        shares = sa.exists().where(
            other.c.bot == table.c.bot, other.c.run == table.c.run, other.c.build != build
        )
        query = sa.select(table.c.bot, table.c.run, shares.label("shares")).where(
            table.c.build == build
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [(row.bot, row.run) for row in rows if not row.shares], sum(r.shares for r in rows)

    def parked(self) -> dict[str, int]:
        """Return how many outcomes and labels wait for their prediction."""
        return {each.name: self.count(each, each.c.build.is_(None)) for each in (outcomes, labels)}

    def count(self, table: sa.Table, *conditions: sa.ColumnElement[bool]) -> int:
        """Return how many rows of a table meet conditions."""
        query = sa.select(sa.func.count()).select_from(table).where(*conditions)
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar() or 0)

    def trades(self, chosen: TradeFilter, *, limit: int | None) -> Iterator[dict[str, Any]]:
        """Return trades, the newest closed first, as dictionaries."""
        query = (
            sa.select(outcomes, runs.c.account)
            .select_from(WITH_RUN)
            .where(*_conditions(chosen))
            .order_by(outcomes.c.closed_at.desc(), outcomes.c.position.desc())
            .limit(limit)
        )
        yield from self.rows(query)

    def rows(self, query: sa.Select[Any]) -> Iterator[dict[str, Any]]:
        """Return the rows of a query as dictionaries, a part at a time."""
        with self._engine.connect() as connection:
            found = connection.execution_options(yield_per=FETCHED).execute(query)
            for row in found.mappings():
                yield dict(row)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


TRADE_COLUMNS = (
    outcomes.c.bot,
    outcomes.c.run,
    outcomes.c.trade,
    outcomes.c.closed_at,
    outcomes.c.pnl,
    sa.func.coalesce(outcomes.c.currency, runs.c.currency).label("currency"),
    sa.func.coalesce(runs.c.account, "").label("account"),
)


def closed_trade(row: Any) -> ClosedTrade:
    """Return the trade of a row of an outcome, with the account of its run."""
    return ClosedTrade(
        closed_at=row["closed_at"],
        pnl=row["pnl"],
        key=(row["bot"], row["run"], row["trade"]),
        account=(row["bot"], row["account"]),
        currency=row["currency"],
    )


def _conditions(chosen: TradeFilter) -> list[sa.ColumnElement[bool]]:
    table = outcomes.c
    conditions: list[sa.ColumnElement[bool]] = []
    if chosen.model is not None:
        prefix = chosen.model.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%")
        is_part = table.build.like(f"{prefix}\\_%", escape="\\")
        conditions.append(sa.or_(table.build == chosen.model, is_part))
    if chosen.bot is not None:
        conditions.append(table.bot == chosen.bot)
    if chosen.since is not None:
        conditions.append(table.closed_at >= chosen.since)
    if chosen.until is not None:
        conditions.append(table.closed_at < chosen.until)
    if chosen.parked:
        conditions.append(table.build.is_(None))
    return conditions
