"""Runs of bots as the ledger has them, remembered: only the recorder changes them."""

from __future__ import annotations

from typing import Any

from tickserve_server.recorder import schema
from tickserve_server.recorder.ledger import Ledger

MOST_REMEMBERED = 20_000
UNREGISTERED: dict[str, Any] = {"account": "", "currency": None}

Row = dict[str, Any]
Run = tuple[str, str]


class Runs:
    """Registered runs, their currencies, the capital of their accounts, and what they trade.

    Every method runs inside the ledger's open transaction; after one that failed, forget().
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.forget()

    def forget(self) -> None:
        """Remember nothing: the ledger may have other content than was thought."""
        self._registered: dict[Run, Row | None] = {}
        self._currencies: dict[Run, str | None] = {}
        self._traded: set[tuple[str, str, str]] = set()

    def find(self, run: Run) -> Row | None:
        """Return a registered run."""
        if run not in self._registered:
            self._make_room()
            self._registered[run] = self._ledger.find(schema.runs, [run]).get(run)
        return self._registered[run]

    def register(self, row: Row) -> None:
        """Store a run."""
        self._ledger.put(schema.runs, [row])
        self._registered[row["bot"], row["run"]] = row

    def open_account(self, bot: str, account: str, capital: float) -> bool:
        """Store the capital of an account unless it has stated some; return whether it was new."""
        row = {"bot": bot, "account": account, "starting_equity": capital}
        return self._ledger.add_new(schema.accounts, row)

    def currency(self, run: Run) -> str | None:
        """Return the currency of a run: as registered, else as its first trade said."""
        registered = self.find(run)
        if registered is not None and registered["currency"]:
            return str(registered["currency"])
        if run not in self._currencies:
            self._currencies[run] = self._ledger.run_currency(*run)
        return self._currencies[run]

    def note_trade(self, run: Run, *, build: str | None, currency: str | None) -> None:
        """Take note of a trade that is being stored; the first states the run's currency."""
        if currency and not self.currency(run):
            self._currencies[run] = currency
        if build is not None and (*run, build) not in self._traded:
            self._make_room()
            self._traded.add((*run, build))
            row = {"bot": run[0], "run": run[1], "build": build}
            self._ledger.add(schema.run_builds, [row])

    def builds(self, run: Run) -> list[str]:
        """Return the builds that a run has traded."""
        return self._ledger.builds_of_run(*run)

    def _make_room(self) -> None:
        if max(len(self._registered), len(self._traded)) > MOST_REMEMBERED:
            self.forget()
