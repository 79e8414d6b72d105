"""The ledger's database: versions, claims, corruption, restarts."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa

from tests.recording import BUILD, Recorder, outcome
from tickserve_client.messages import Hello, Label
from tickserve_registry.drift import make_reference
from tickserve_server.errors import LedgerUnusable
from tickserve_server.parcel import Packer, Record
from tickserve_server.recorder import schema
from tickserve_server.recorder.database import Database
from tickserve_server.recorder.ledger import Ledger
from tickserve_server.recorder.live import Profile
from tickserve_server.recorder.reader import LedgerReader
from tickserve_server.recorder.verification import verify

MONDAY = 1_742_774_400_000
DAY = 86_400_000


def test_a_restart_reads_no_history(ledger_url: str) -> None:
    """Figures, quality, inputs and counts are those of before; even without the trades."""
    sample = np.random.default_rng(1).normal(size=(500, 2)).astype(np.float32)
    profile = Profile("weekdays", make_reference(sample, ["a", "b"]))
    with Recorder(ledger_url, profile=profile) as first:
        first.tell(Hello(bot="hand", run="r1", starting_equity=3_000.0))
        ids = first.predict([0.9, 0.2, 0.4], inputs=sample[:3])
        first.tell(*(Label(prediction_id=i, value=1, at=MONDAY) for i in ids))
        for day in range(4):
            at = MONDAY + day * DAY
            first.tell(outcome(str(day), pnl=day - 1.5, closed_at=at, opened_at=None))
        now, before = first.now, first.block()
        first.ledger.begin()
        for row in list(first.ledger.all(schema.outcomes)):
            first.ledger.delete(schema.outcomes, [(row["bot"], row["run"], row["trade"])])
        first.ledger.commit()
    with Recorder(ledger_url, profile=profile) as second:
        after = second.block(as_of=now)
    assert after == before
    assert (before["n_trades"], before["quality"]["n"]) == (4, 3)
    assert before["inputs"]["a"]["n"] == 3


def test_another_calendar_makes_the_record_anew(ledger_url: str) -> None:
    """What was stored under one convention is not shown under another."""
    with Recorder(ledger_url, calendar="24x7") as first:
        for day in (0, 5, 8):
            at = MONDAY + day * DAY
            first.tell(outcome(str(day), pnl=day + 1.0, closed_at=at, opened_at=None))
        assert first.block()["n_days"] == 9
    with Recorder(ledger_url, calendar="weekdays") as second:
        assert second.block()["n_days"] == 7


def test_a_second_recorder_is_refused(ledger_url: str) -> None:
    """Until the first has gone."""
    with Recorder(ledger_url), pytest.raises(LedgerUnusable, match="another recorder"):
        Ledger(ledger_url)
    Ledger(ledger_url).close()


def test_a_ledger_of_a_newer_release_is_refused(ledger_url: str) -> None:
    """It is left alone, and the versions are named."""
    with Recorder(ledger_url) as recorder:
        recorder.ledger.begin()
        recorder.ledger.put(schema.schema_version, [{"version": schema.VERSION + 1}])
        recorder.ledger.delete(schema.schema_version, [(schema.VERSION,)])
        recorder.ledger.commit()
    with pytest.raises(LedgerUnusable, match=f"version {schema.VERSION + 1}"):
        Ledger(ledger_url)
    reader = LedgerReader(Database(ledger_url))
    with pytest.raises(LedgerUnusable, match=f"version {schema.VERSION + 1}"):
        reader.require_version()
    reader.close()


def test_a_url_that_is_none_is_named() -> None:
    """Wrong syntax, another database, a server that is not there; no password is shown."""
    for url, words in (
        ("nonsense", "no database URL"),
        ("mysql://localhost/x", "mysql is not supported"),
        ("postgresql+psycopg://me:secret@127.0.0.1:1/none", "connection"),
    ):
        with pytest.raises(LedgerUnusable, match=words) as refused:
            Ledger(url)
        assert "secret" not in str(refused.value)


def test_a_corrupt_ledger_is_set_aside(tmp_path: Path) -> None:
    """It is moved away whole, reported, and a new one begun; nothing is overwritten."""
    file = tmp_path / "ledger.sqlite3"
    with Recorder(f"sqlite:///{file}") as recorder:
        recorder.tell(*(outcome(str(number)) for number in range(500)))
    content = bytearray(file.read_bytes())
    content[8_192:40_960] = b"\x5a" * 32_768
    file.write_bytes(content)
    ledger = Ledger(f"sqlite:///{file}")
    assert ledger.set_aside is not None
    assert ledger.set_aside.problem
    assert ledger.set_aside.file.read_bytes() == content
    assert ledger.set_aside.file.name.startswith("ledger.corrupt-")
    ledger.close()
    again = Ledger(f"sqlite:///{file}")
    assert again.set_aside is None
    again.close()


def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path) -> None:
    """As a disk may leave it: zeros, or something else's content."""
    file = tmp_path / "ledger.sqlite3"
    Path(f"{file}.lock").touch()
    for content in (b"\x00" * 10_000, b"not a database at all, but longer than a header" * 100):
        file.write_bytes(content)
        ledger = Ledger(f"sqlite:///{file}")
        assert ledger.set_aside is not None
        assert ledger.set_aside.file.read_bytes() == content
        ledger.close()


def test_somebodys_file_is_left_alone(tmp_path: Path) -> None:
    """What is no database, and no recorder's file, is refused and not moved."""
    file = tmp_path / "notes.txt"
    file.write_text("buy low, sell high")
    with pytest.raises(LedgerUnusable, match="no SQLite database"):
        Ledger(f"sqlite:///{file}")
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]


def test_verification_finds_what_was_changed_by_hand(ledger_url: str) -> None:
    """A trade that somebody edits in the database no longer agrees with the figures."""
    with Recorder(ledger_url) as recorder:
        recorder.predict([0.5])
        recorder.tell(outcome(pnl=5.0))
        profile = Profile("24x7", None)

        def problems() -> list[str]:
            found = verify(recorder.reader, profile=lambda _: profile, default_capital=1e4)
            assert found.counts["outcomes"] == 1
            return found.problems

        assert problems() == []
        recorder.ledger.begin()
        (row,) = recorder.ledger.all(schema.outcomes)
        recorder.ledger.put(schema.outcomes, [row | {"pnl": 6.0}])
        (parcel,) = recorder.ledger.all(schema.prediction_parcels)
        recorder.ledger.put(schema.prediction_parcels, [parcel | {"body": b"\xc1"}])
        recorder.ledger.commit()
        found = problems()
    assert any("net_pnl is stored as 5.0, all trades give 6.0" in each for each in found)
    assert any("cannot be read as 1 records" in each for each in found)


VERSION_2 = """
CREATE TABLE schema_version (version INTEGER NOT NULL, PRIMARY KEY (version));
CREATE TABLE runs (bot VARCHAR NOT NULL, run VARCHAR NOT NULL, account VARCHAR NOT NULL,
    mode VARCHAR, currency VARCHAR, starting_equity FLOAT, received_at BIGINT NOT NULL,
    PRIMARY KEY (bot, run));
CREATE TABLE prediction_parcels (sender VARCHAR NOT NULL, sequence BIGINT NOT NULL,
    first_id VARCHAR NOT NULL, last_id VARCHAR NOT NULL, records INTEGER NOT NULL,
    rows TEXT NOT NULL, body BINARY NOT NULL, PRIMARY KEY (sender, sequence));
CREATE INDEX ix_prediction_parcels_first_id ON prediction_parcels (first_id);
CREATE TABLE outcomes (bot VARCHAR NOT NULL, run VARCHAR NOT NULL, trade VARCHAR NOT NULL,
    seq BIGINT NOT NULL, status VARCHAR NOT NULL, final BOOLEAN NOT NULL, build VARCHAR,
    prediction_id VARCHAR, pnl FLOAT, currency VARCHAR, closed_at BIGINT, content TEXT NOT NULL,
    received_at BIGINT NOT NULL, PRIMARY KEY (bot, run, trade));
CREATE INDEX ix_outcomes_build ON outcomes (build);
CREATE INDEX ix_outcomes_prediction_id ON outcomes (prediction_id);
CREATE TABLE outcome_revisions (bot VARCHAR NOT NULL, run VARCHAR NOT NULL,
    trade VARCHAR NOT NULL, seq BIGINT NOT NULL, content TEXT NOT NULL,
    received_at BIGINT NOT NULL, PRIMARY KEY (bot, run, trade, seq));
CREATE TABLE labels (prediction_id VARCHAR NOT NULL, value FLOAT NOT NULL, at BIGINT NOT NULL,
    received_at BIGINT NOT NULL, PRIMARY KEY (prediction_id));
CREATE TABLE equity (bot VARCHAR NOT NULL, run VARCHAR NOT NULL, at BIGINT NOT NULL,
    equity FLOAT NOT NULL, currency VARCHAR, PRIMARY KEY (bot, run, at));
CREATE TABLE events (id SERIAL_KEY, at BIGINT NOT NULL, topic VARCHAR NOT NULL,
    body TEXT NOT NULL);
"""


def test_a_ledger_of_version_2_is_brought_up_to_date(ledger_url: str) -> None:
    """Its trades, labels, equity and predictions give the figures; its tables are the new ones."""
    database = Database(ledger_url)
    is_sqlite = database.dialect == "sqlite"
    _fill_version_2(database, is_sqlite=is_sqlite)
    with Recorder(ledger_url) as recorder:
        block = recorder.block()
        assert (block["n_trades"], block["net_pnl"]) == (2, 30.0)
        assert (block["starting_equity"], block["serving"]["predictions"]) == (5_000.0, 1)
        assert block["quality"]["n"] == 1
        assert recorder.book.marked_drawdown([("b", "r")]) == pytest.approx(0.5)
        assert recorder.status(outcome("3", bot="b", run="r", seq=1, pnl=-1.0)) == "recorded"
        assert recorder.block()["n_trades"] == 3
        (revision,) = recorder.reader.rows(schema.outcome_revisions.select())
        assert revision["seq"] == 1
        migrated = _columns(database)
    if database.file is not None:
        copy = database.file.with_name("ledger.version-2.sqlite3")
        with sqlite3.connect(copy) as old:
            assert old.execute("SELECT version FROM schema_version").fetchone() == (2,)
        old.close()
    assert migrated == {
        (table.name, column.name)
        for table in schema.tables.sorted_tables
        for column in table.columns
    }


def _fill_version_2(database: Database, *, is_sqlite: bool) -> None:
    packer = Packer()
    packer.add(
        Record("p1", BUILD, "0" * 16, MONDAY, None, 5, 1, np.float32(0.8).tobytes(), None, b"")
    )
    summary, body = packer.take()
    key = "INTEGER PRIMARY KEY" if is_sqlite else "SERIAL PRIMARY KEY"
    script = VERSION_2.replace("SERIAL_KEY", key)
    script = script if is_sqlite else script.replace("BINARY", "BYTEA")
    closed: list[Any] = ["closed", True, BUILD, None]
    engine = database.writer()
    with engine.connect() as connection, connection.begin():
        for statement in filter(str.strip, script.split(";")):
            connection.exec_driver_sql(statement)
        for table, *rows in (
            ("schema_version", [2]),
            ("runs", ["b", "r", "", "demo", "USD", 5_000.0, 1]),
            (
                "outcomes",
                ["b", "r", "1", 2, *closed, 10.0, "USD", MONDAY, "{}", 2],
                ["b", "r", "2", 1, *closed, 20.0, "USD", MONDAY + DAY, "{}", 1],
            ),
            ("outcome_revisions", ["b", "r", "1", 1, "{}", 1], ["b", "r", "1", 2, "{}", 2]),
            ("labels", ["p1", 1.0, MONDAY, 1]),
            ("equity", ["b", "r", 1, 10.0, "USD"], ["b", "r", 2, 5.0, "USD"]),
            ("prediction_parcels", ["s", 1, "p1", "p1", 1, _json(summary.rows), body]),
        ):
            for row in rows:
                names = {f"v{place}": value for place, value in enumerate(row)}
                places = ", ".join(f":{name}" for name in names)
                insert = f"INSERT INTO {table} VALUES ({places})"  # noqa: S608 - names of ours
                connection.execute(sa.text(insert), names)
    engine.dispose()


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _columns(database: Database) -> set[tuple[str, str]]:
    engine = database.reader()
    with engine.connect() as connection:
        inspector = sa.inspect(connection)
        found = {
            (table, column["name"])
            for table in inspector.get_table_names()
            for column in inspector.get_columns(table)
        }
    engine.dispose()
    return found
