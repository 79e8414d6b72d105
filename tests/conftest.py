"""Fixtures that every test may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ledgers import DIALECTS, PostgreSQL, postgresql


def pytest_addoption(parser: pytest.Parser) -> None:
    """Have the faults take their long forms: minutes instead of seconds."""
    parser.addoption("--long", action="store_true", help="long forms of the fault tests")


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether a test is to take its long form."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session")
def project_root() -> Path:
    """Return the top folder of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    """Run a PostgreSQL server for all tests that ask for one."""
    with postgresql(tmp_path_factory.mktemp("pg")) as server:
        yield server


@pytest.fixture(params=DIALECTS)
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database, on each of the databases that a ledger may lie in."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    server: PostgreSQL = request.getfixturevalue("postgresql_server")
    return server.database()
