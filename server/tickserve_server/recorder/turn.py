"""One turn's view of the ledger: rows read together, changed in memory, and written together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from tickserve_client.messages import Equity, Hello, Label, Outcome
from tickserve_server.recorder import schema
from tickserve_server.recorder.ledger import Key, Ledger

Row = dict[str, Any]

REVISION = ("bot", "run", "trade", "seq", "content", "received_at")


class Turn:
    """What the items of a turn are about. An item sees what those before it have changed."""

    def __init__(
        self, ledger: Ledger, items: Sequence[Hello | Outcome | Label | Equity], *, now: int
    ) -> None:
        self.now = now
        self._ledger = ledger
        self._rows: dict[str, dict[Key, Row | None]] = {}
        self._changed: dict[str, dict[Key, Row]] = {}
        self._revisions: list[Row] = []
        self._used: set[str] = set()
        self._read(items)

    def get(self, table: sa.Table, key: Key) -> Row | None:
        """Return a row by its primary key; one that no item is about is read now."""
        rows = self._rows.setdefault(table.name, {})
        if key not in rows:
            rows[key] = self._ledger.find(table, [key]).get(key)
        return rows[key]

    def put(self, table: sa.Table, row: Row) -> None:
        """Insert or replace a row."""
        key = tuple(row[column.name] for column in table.primary_key)
        self._rows.setdefault(table.name, {})[key] = row
        self._changed.setdefault(table.name, {})[key] = row

    def keep(self, row: Row) -> None:
        """Keep a revision of an outcome that is not the newest."""
        self._revisions.append({name: row[name] for name in REVISION})

    def is_first_of_prediction(self, row: Row) -> bool:
        """Whether no trade but this one follows the same prediction; asked once for each."""
        prediction = row["prediction_id"]
        if prediction is None or prediction in self._used:
            return False
        self._used.add(prediction)
        return True

    def read_used(self, predictions: set[str]) -> None:
        """Read which of these predictions some trade already follows."""
        self._used |= self._ledger.used_predictions(predictions)

    def write(self) -> None:
        """Write what has changed."""
        tables = schema.tables.tables
        for name, rows in self._changed.items():
            self._ledger.put(tables[name], list(rows.values()))
        self._ledger.add(schema.outcome_revisions, self._revisions)

    def _read(self, items: Sequence[Hello | Outcome | Label | Equity]) -> None:
        outcomes = [item for item in items if isinstance(item, Outcome)]
        labels = [item for item in items if isinstance(item, Label)]
        self._load(schema.outcomes, {(each.bot, each.run, each.trade) for each in outcomes})
        self._load(schema.labels, {(each.prediction_id,) for each in labels})
        self.read_used({o.prediction_id for o in outcomes if o.prediction_id is not None})

    def _load(self, table: sa.Table, keys: set[Key]) -> None:
        found = self._ledger.find(table, keys)
        self._rows[table.name] = {key: found.get(key) for key in keys}
