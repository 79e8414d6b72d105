"""Brings a ledger of an older release to the present tables, in one transaction.

Each step is written out in SQL that SQLite and PostgreSQL share, and is never changed later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec
import sqlalchemy as sa

from tickserve_server.recorder import schema

Step = Callable[[sa.Connection], None]


def migrate(connection: sa.Connection) -> tuple[int, int]:
    """Bring the tables up to date; return the version found (0 for none) and the present one.

    Raises ValueError for a ledger that only a newer release can read.
    """
    found = version_of(connection)
    if found == 0:
        schema.tables.create_all(connection)
        connection.execute(sa.insert(schema.schema_version), [{"version": schema.VERSION}])
        return found, schema.VERSION
    if found not in {*STEPS, schema.VERSION}:
        raise ValueError(f"it has tables of version {found}, this release knows {schema.VERSION}")
    if connection.dialect.name == "postgresql" and found != schema.VERSION:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    for version in range(found, schema.VERSION):
        STEPS[version](connection)
    connection.execute(sa.update(schema.schema_version).values(version=schema.VERSION))
    return found, schema.VERSION


def version_of(connection: sa.Connection) -> int:
    """Return the version of the tables, 0 where there are none."""
    if not sa.inspect(connection).has_table(schema.schema_version.name):
        return 0
    return int(connection.execute(sa.select(schema.schema_version.c.version)).scalar() or 0)


def _from_2(connection: sa.Connection) -> None:
    """Positions, accounts, parked labels, and what the live figures are made of."""
    for statement in COLUMNS_OF_3:
        connection.exec_driver_sql(statement)
    schema.tables.create_all(connection)
    for statement in CONTENT_OF_3:
        connection.exec_driver_sql(statement)
    counts: Counter[str] = Counter()
    for (rows,) in connection.execute(sa.text("SELECT rows FROM prediction_parcels")):
        counts.update(msgspec.json.decode(rows, type=dict[str, int]))
    states = [
        {"build": build, "state": msgspec.json.encode({"predictions": rows}).decode()}
        for build, rows in counts.items()
    ]
    if states:
        insert = sa.text("INSERT INTO live_serving (build, state) VALUES (:build, :state)")
        connection.execute(insert, states)


COLUMNS_OF_3 = (
    "ALTER TABLE prediction_parcels ADD COLUMN received_at BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE outcomes ADD COLUMN position BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE labels ADD COLUMN build VARCHAR",
    "ALTER TABLE labels ADD COLUMN output FLOAT",
    "ALTER TABLE labels ADD COLUMN position BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE equity ADD COLUMN received_at BIGINT NOT NULL DEFAULT 0",
    "DROP INDEX ix_outcomes_build",
    "CREATE INDEX outcomes_by_build ON outcomes (build, closed_at)",
    "CREATE INDEX outcomes_by_position ON outcomes (position)",
    "CREATE INDEX labels_by_build ON labels (build, position)",
    "CREATE INDEX labels_by_position ON labels (position)",
    "CREATE INDEX prediction_parcels_by_age ON prediction_parcels (received_at)",
)
CONTENT_OF_3 = (
    """UPDATE outcomes SET position = numbered.place FROM (
           SELECT bot, run, trade,
               ROW_NUMBER() OVER (ORDER BY received_at, bot, run, trade) AS place
           FROM outcomes) AS numbered
       WHERE outcomes.bot = numbered.bot AND outcomes.run = numbered.run
         AND outcomes.trade = numbered.trade""",
    """DELETE FROM outcome_revisions WHERE EXISTS (
           SELECT 1 FROM outcomes WHERE outcomes.bot = outcome_revisions.bot
               AND outcomes.run = outcome_revisions.run AND outcomes.trade = outcome_revisions.trade
               AND outcomes.seq = outcome_revisions.seq)""",
    """INSERT INTO accounts (bot, account, starting_equity)
       SELECT bot, account, starting_equity FROM (
           SELECT bot, account, starting_equity,
               ROW_NUMBER() OVER (PARTITION BY bot, account ORDER BY received_at, run) AS place
           FROM runs WHERE starting_equity IS NOT NULL) AS stated
       WHERE place = 1""",
    """INSERT INTO run_builds (bot, run, build)
       SELECT DISTINCT bot, run, build FROM outcomes WHERE build IS NOT NULL""",
    """INSERT INTO live_tracks (build, track, answers)
       SELECT DISTINCT build, CAST(NULL AS TEXT), '{}' FROM outcomes WHERE build IS NOT NULL""",
    """INSERT INTO live_equity (bot, run, snapshots, last_at, peak, drawdown)
       SELECT bot, run, -COUNT(*), MAX(at), 0, 0 FROM equity GROUP BY bot, run""",
)

STEPS: dict[int, Step] = {2: _from_2}
"""From each version to the next."""
