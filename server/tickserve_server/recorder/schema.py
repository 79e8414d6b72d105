"""Tables of the ledger, for SQLAlchemy Core on any of its databases."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

VERSION = 2

tables = MetaData()

schema_version = Table("schema_version", tables, Column("version", Integer, primary_key=True))

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
    Column("body", LargeBinary, nullable=False),
)

# The newest revision of each trade; `content` is the message whole, as JSON.
outcomes = Table(
    "outcomes",
    tables,
    Column("bot", String, primary_key=True),
    Column("run", String, primary_key=True),
    Column("trade", String, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("status", String, nullable=False),
    Column("final", Boolean, nullable=False),
    Column("build", String, index=True),
    Column("prediction_id", String, index=True),
    Column("pnl", Float),
    Column("currency", String),
    Column("closed_at", BigInteger),
    Column("content", Text, nullable=False),
    Column("received_at", BigInteger, nullable=False),
)

# Everything that was ever accepted for a trade, older revisions included.
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

labels = Table(
    "labels",
    tables,
    Column("prediction_id", String, primary_key=True),
    Column("value", Float, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
)

equity = Table(
    "equity",
    tables,
    Column("bot", String, primary_key=True),
    Column("run", String, primary_key=True),
    Column("at", BigInteger, primary_key=True),
    Column("equity", Float, nullable=False),
    Column("currency", String),
)

events = Table(
    "events",
    tables,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("topic", String, nullable=False),
    Column("body", Text, nullable=False),
)
