"""The ledger as Parquet files: one for each source, readable by pandas and everything else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from tickserve_server.errors import ExtraMissing
from tickserve_server.parcel import open_parcel
from tickserve_server.recorder import schema
from tickserve_server.recorder.reader import LedgerReader

Row = dict[str, Any]
Open = Callable[[Row], Iterable[Row]]

ROWS_OF_A_GROUP = 20_000


class Source(NamedTuple):
    """A table to export: by which time its rows are chosen, and how they are opened."""

    table: sa.Table
    time: str | None
    columns: dict[str, str]
    open: Open


class Exported(NamedTuple):
    """A file that was written, and the keys of the ledger's rows in it."""

    source: str
    file: Path
    rows: int
    keys: list[tuple[Any, ...]]


def _as_it_is(row: Row) -> Iterable[Row]:
    return (row,)


def _predictions(parcel: Row) -> Iterator[Row]:
    """Return one row for each predicted row of a parcel; inputs and outputs are lists."""
    for record in open_parcel(parcel["body"]):
        outputs = np.frombuffer(record.outputs, "<f4").reshape(record.rows, -1)
        inputs = np.frombuffer(record.inputs, "<f4").reshape(record.rows, -1)
        for place in range(record.rows):
            single = record.rows == 1
            yield {
                "prediction_id": record.prediction_id
                if single
                else f"{record.prediction_id}:{place}",
                "build": record.build,
                "digest": record.digest,
                "served_at": record.served_at_ms,
                "bar_time": record.bar_time_ms,
                "server_us": record.server_us,
                "outputs": outputs[place].tolist(),
                "action": record.action,
                "inputs": inputs[place].tolist(),
            }


PREDICTION = {
    "prediction_id": "string",
    "build": "string",
    "digest": "string",
    "served_at": "int64",
    "bar_time": "int64",
    "server_us": "int64",
    "outputs": "float32[]",
    "action": "string",
    "inputs": "float32[]",
}


def _plain(table: sa.Table, time: str | None) -> Source:
    columns = {column.name: KINDS[type(column.type).__name__] for column in table.columns}
    return Source(table, time, columns, _as_it_is)


KINDS = {
    "String": "string",
    "Text": "string",
    "BigInteger": "int64",
    "Integer": "int64",
    "Float": "float64",
    "Boolean": "bool",
}
SOURCES: dict[str, Source] = {
    "runs": _plain(schema.runs, "received_at"),
    "outcomes": _plain(schema.outcomes, "received_at"),
    "outcome_revisions": _plain(schema.outcome_revisions, "received_at"),
    "labels": _plain(schema.labels, "received_at"),
    "equity": _plain(schema.equity, "received_at"),
    "predictions": Source(schema.prediction_parcels, "received_at", PREDICTION, _predictions),
    "metric_snapshots": _plain(schema.metric_snapshots, "at"),
    "events": _plain(schema.events, "at"),
}


def count(reader: LedgerReader, name: str, *, since: int | None, until: int | None) -> int:
    """Return how many rows of the ledger an export of a source reads."""
    source = SOURCES[name]
    return reader.count(source.table, *_between(source, since, until))


def export(
    reader: LedgerReader,
    name: str,
    file: Path,
    *,
    since: int | None = None,
    until: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Exported:
    """Write the rows stored from `since` to before `until` (ms) to a file, whole or not at all.

    `progress` is told of each row of the ledger read. Raises ExtraMissing without pyarrow.
    """
    source = SOURCES[name]
    query = sa.select(source.table).where(*_between(source, since, until))
    keys: list[tuple[Any, ...]] = []
    key_columns = [column.name for column in source.table.primary_key]

    def rows() -> Iterator[Row]:
        for row in reader.rows(query):
            keys.append(tuple(row[column] for column in key_columns))
            progress(1)
            yield from source.open(row)

    written = _write(file, source.columns, rows())
    return Exported(name, file, written, keys)


def _between(source: Source, since: int | None, until: int | None) -> list[sa.ColumnElement[bool]]:
    if source.time is None:
        return []
    column = source.table.c[source.time]
    conditions: list[sa.ColumnElement[bool]] = []
    if since is not None:
        conditions.append(column >= since)
    if until is not None:
        conditions.append(column < until)
    return conditions


def _write(file: Path, columns: dict[str, str], rows: Iterator[Row]) -> int:
    """Write a Parquet file beside its place, sync it and move it there; return its rows."""
    pa, parquet = _pyarrow()
    layout = pa.schema([(name, _type(pa, kind)) for name, kind in columns.items()])
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.unfinished")
    written = 0
    try:
        with unfinished.open("wb") as sink:
            with parquet.ParquetWriter(sink, layout, compression="zstd") as writer:
                for group in _groups(rows):
                    writer.write_table(pa.Table.from_pylist(group, schema=layout))
                    written += len(group)
            sink.flush()
            os.fsync(sink.fileno())
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    return written


def _groups(rows: Iterator[Row]) -> Iterator[Sequence[Row]]:
    group: list[Row] = []
    for row in rows:
        group.append(row)
        if len(group) >= ROWS_OF_A_GROUP:
            yield group
            group = []
    if group:
        yield group


def _type(pa: Any, kind: str) -> Any:
    if kind.endswith("[]"):
        return pa.list_(_type(pa, kind.removesuffix("[]")))
    return getattr(pa, {"bool": "bool_"}.get(kind, kind))()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ExtraMissing(package="pyarrow", extra="server") from error
    return pa, parquet
