"""Tables of the ledger, for SQLAlchemy Core on any of its databases.

Times are milliseconds since the epoch (UTC). `position` numbers what was stored, over all tables,
in the order in which it was committed.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

VERSION = 3
"""Rises with every change of a table; migrations.py has the steps."""

tables = MetaData()

schema_version = Table("schema_version", tables, Column("version", Integer, primary_key=True))

identity = Table("ledger_identity", tables, Column("id", String, primary_key=True))

runs = Table(
    "runs",
    tables,
    Column("bot", String, primary_key=True),
    Column("run", String, primary_key=True),
    Column("account", String, nullable=False),
    Column("mode", String),
    Column("currency", String),
    Column("starting_equity", Float),
    Column("received_at", BigInteger, nullable=False),
)

# Capital belongs to (bot, account): that of the first run that stated any.
accounts = Table(
    "accounts",
    tables,
    Column("bot", String, primary_key=True),
    Column("account", String, primary_key=True),
    Column("starting_equity", Float, nullable=False),
)

# Which builds a run has traded.
run_builds = Table(
    "run_builds",
    tables,
    Column("bot", String, primary_key=True),
    Column("run", String, primary_key=True),
    Column("build", String, primary_key=True, index=True),
)

# Predictions by the parcel (tickserve_server.parcel); `rows` counts them by build, as JSON.
prediction_parcels = Table(
    "prediction_parcels",
    tables,
    Column("sender", String, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("first_id", String, nullable=False, index=True),
    Column("last_id", String, nullable=False),
    Column("records", Integer, nullable=False),
    Column("rows", Text, nullable=False),
    Column("received_at", BigInteger, nullable=False, server_default="0"),
    Column("body", LargeBinary, nullable=False),
    Index("prediction_parcels_by_age", "received_at"),
)

# The newest revision of each trade; `content` is the message whole, as JSON. Without a build it
# is parked. `account` is the run's when the trade was last stored.
outcomes = Table(
    "outcomes",
    tables,
    Column("bot", String, primary_key=True),
    Column("run", String, primary_key=True),
    Column("trade", String, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("status", String, nullable=False),
    Column("final", Boolean, nullable=False),
    Column("build", String),
    Column("prediction_id", String, index=True),
    Column("pnl", Float),
    Column("currency", String),
    Column("closed_at", BigInteger),
    Column("content", Text, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False, server_default="0"),
    Index("outcomes_by_build", "build", "closed_at"),
    Index("outcomes_by_position", "position"),
)

# What was accepted for a trade and is not its newest revision.
outcome_revisions = Table(
    "outcome_revisions",
    tables,
    Column("bot", String, primary_key=True),
    Column("run", String, primary_key=True),
    Column("trade", String, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("content", Text, nullable=False),
    Column("received_at", BigInteger, nullable=False),
)

# Without a build a label is parked; `output` is what its prediction had put out.
labels = Table(
    "labels",
    tables,
    Column("prediction_id", String, primary_key=True),
    Column("value", Float, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("build", String),
    Column("output", Float),
    Column("position", BigInteger, nullable=False, server_default="0"),
    Index("labels_by_build", "build", "position"),
    Index("labels_by_position", "position"),
)

equity = Table(
    "equity",
    tables,
    Column("bot", String, primary_key=True),
    Column("run", String, primary_key=True),
    Column("at", BigInteger, primary_key=True),
    Column("equity", Float, nullable=False),
    Column("currency", String),
    Column("received_at", BigInteger, nullable=False, server_default="0"),
)

# The figures of a build as they stood at the end of an hour (or now), as JSON.
metric_snapshots = Table(
    "metric_snapshots",
    tables,
    Column("build", String, primary_key=True),
    Column("hour", BigInteger, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)

events = Table(
    "events",
    tables,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("topic", String, nullable=False),
    Column("body", Text, nullable=False),
)

# What the live figures are made of, stored with whatever changed it; JSON. An empty track is made
# anew from the outcomes.
live_tracks = Table(
    "live_tracks",
    tables,
    Column("build", String, primary_key=True),
    Column("track", Text),
    Column("answers", Text, nullable=False),
)

live_serving = Table(
    "live_serving",
    tables,
    Column("build", String, primary_key=True),
    Column("state", Text, nullable=False),
)

# `position`: the labels up to there are in the state.
live_quality = Table(
    "live_quality",
    tables,
    Column("build", String, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
)

# Equity as a run marked it to the market; late snapshots make it anew.
live_equity = Table(
    "live_equity",
    tables,
    Column("bot", String, primary_key=True),
    Column("run", String, primary_key=True),
    Column("snapshots", Integer, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("peak", Float, nullable=False),
    Column("drawdown", Float, nullable=False),
)

# What has been exported to files and may be deleted.
exports = Table(
    "exports",
    tables,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("source", String, nullable=False),
    Column("file", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
)
