"""A PostgreSQL ledger that goes away under feedback, and what start-up says where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import zmq

from benchmarks.daemon import Service, model_info, train
from tests.ledgers import PostgreSQL
from tickserve_registry.model_registry import ModelRegistry
from tickserve_server.recorder import schema

FAMILY = "eurusd_1h_xgb_bench"
ROW = {f"f{place}": 0.1 for place in range(5)}
MONDAY = 1_742_860_800_000
RECOVERED_S = 5.0
SETTING = "LEDGER__URL"


class Database:
    """One database of the server, which can be taken away and given back."""

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        self.url = url
        self._name = str(parsed.database)
        self._server = sa.create_engine(
            parsed.set(database="postgres"), isolation_level="AUTOCOMMIT"
        )

    def take_away(self) -> None:
        """Cut all connections and take no new ones."""
        with self._server.connect() as connection:
            connection.exec_driver_sql(f"ALTER DATABASE {self._name} ALLOW_CONNECTIONS false")
            cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %(name)s"
            connection.exec_driver_sql(cut, {"name": self._name})

    def give_back(self) -> None:
        """Take connections again."""
        with self._server.connect() as connection:
            connection.exec_driver_sql(f"ALTER DATABASE {self._name} ALLOW_CONNECTIONS true")

    def trades(self) -> dict[str, float]:
        """Return what is stored."""
        engine = sa.create_engine(self.url)
        with engine.connect() as connection:
            rows = connection.execute(sa.select(schema.outcomes.c.trade, schema.outcomes.c.pnl))
            found = {row.trade: row.pnl for row in rows}
        engine.dispose()
        return found

    def close(self) -> None:
        """Close the connections."""
        self._server.dispose()


@pytest.fixture
def database(postgresql_server: PostgreSQL) -> Iterator[Database]:
    """An empty database."""
    made = Database(postgresql_server.database())
    yield made
    made.close()


@pytest.fixture
def service(tmp_path: Path, database: Database) -> Iterator[Service]:
    """A daemon with one model whose ledger lies there."""
    made = Service(tmp_path, writeback_seconds=0.5, settings={SETTING: database.url})
    registry = ModelRegistry(str(made.storage))
    registry.save_model(train(trees=5), model_info(), environment="production")
    with made:
        yield made


def report(service: Service, trade: int) -> str:
    """Report a trade; return what became of it."""
    (entry,) = ModelRegistry(service.storage).production()
    message: dict[str, Any] = {
        "op": "outcome",
        "bot": "hand",
        "run": "r1",
        "trade": str(trade),
        "seq": 1,
        "status": "closed",
        "final": True,
        "build": entry.build,
        "pnl": float(trade),
        "opened_at": MONDAY,
        "closed_at": MONDAY + trade,
    }
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.rcvtimeo = 10_000
        socket.connect(service.endpoints.feedback)
        socket.send(json.dumps(message).encode())
        status: str = json.loads(socket.recv())["status"]
        return status


def test_a_database_that_goes_away_comes_back(service: Service, database: Database) -> None:
    """Predictions go on, feedback is told to come again, and recovers by itself."""
    assert report(service, 1) == "recorded"
    recorder = service.child("recorder")
    database.take_away()
    with service.client(timeout=2.0) as client:
        for _ in range(50):
            client.predict(FAMILY, ROW)
        assert {report(service, 2) for _ in range(3)} == {"retry"}
        client.predict(FAMILY, ROW)
    database.give_back()
    deadline = time.monotonic() + RECOVERED_S
    while report(service, 2) == "retry":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert report(service, 3) == "recorded"
    assert service.child("recorder") == recorder
    assert service.stop() == 0
    assert database.trades() == {"1": 1.0, "2": 2.0, "3": 3.0}
    live = ModelRegistry(service.storage).metadata(FAMILY).document["performance"]["live"]
    assert (live["n_trades"], live["net_pnl"]) == (3, 6.0)
    assert live["serving"]["predictions"] == 51


def test_a_killed_recorder_finds_its_figures(service: Service, database: Database) -> None:
    """The server drops the dead one's claim; nothing is lost and nothing counted twice."""
    for trade in range(1, 6):
        assert report(service, trade) == "recorded"
        os.kill(service.child("recorder"), 9)
        deadline = time.monotonic() + 20
        while report(service, trade) != "duplicate":
            assert time.monotonic() < deadline
    assert service.stop() == 0
    assert sum(database.trades().values()) == 15.0
    live = ModelRegistry(service.storage).metadata(FAMILY).document["performance"]["live"]
    assert (live["n_trades"], live["net_pnl"]) == (5, 15.0)


def test_a_second_daemon_on_the_same_database_is_refused(
    service: Service, database: Database, tmp_path: Path
) -> None:
    """Another storage root, the same ledger: one line, exit code 1."""
    assert service.pid
    other = Service(tmp_path / "other")
    other.storage.mkdir(parents=True)
    code, line = _ended(other, database.url)
    assert code == 1
    assert "another recorder writes to it" in line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"database": "none"}, 'database "none" does not exist'),
        ({"query": {"host": "/nowhere"}}, "No such file or directory"),
    ],
)
def test_a_database_that_is_not_there_is_one_line(
    database: Database, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    """The reason is the server's, and the daemon ends."""
    url = sa.make_url(database.url).set(**change)
    service = Service(tmp_path)
    service.storage.mkdir()
    code, line = _ended(service, url.render_as_string(hide_password=False))
    assert code == 1
    assert words in line


def _ended(service: Service, url: str) -> tuple[int, str]:
    """Start a daemon that cannot run; return its exit code and its last line of error."""
    command = [*service.command(), "--ledger", url]
    assert command[0] == sys.executable
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in run.stderr
    return run.returncode, run.stderr.strip().splitlines()[-1]
