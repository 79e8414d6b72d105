"""Verification of a ledger: the database whole, and each figure as all trades say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import sqlalchemy as sa

from tickserve_registry.track_record import Account, TrackRecord
from tickserve_server.parcel import open_parcel
from tickserve_server.recorder import schema
from tickserve_server.recorder.live import Profile
from tickserve_server.recorder.reader import LedgerReader

COUNTED = {
    "runs": schema.runs,
    "outcomes": schema.outcomes,
    "older revisions": schema.outcome_revisions,
    "labels": schema.labels,
    "equity snapshots": schema.equity,
    "parcels of predictions": schema.prediction_parcels,
}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a ledger holds, and everything that is wrong with it."""

    ledger: str
    counts: dict[str, int]
    problems: list[str]


def verify(
    reader: LedgerReader, *, profile: Callable[[str], Profile], default_capital: float
) -> Report:
    """Read everything; a build whose record is being made anew has none to be compared."""
    counts = {name: reader.count(table) for name, table in COUNTED.items()}
    problems = [
        *reader.integrity(),
        *_wrong_tracks(reader, profile, default_capital),
        *_unreadable_parcels(reader),
    ]
    return Report(ledger=reader.shown, counts=counts, problems=problems)


def _wrong_tracks(
    reader: LedgerReader, profile: Callable[[str], Profile], default_capital: float
) -> list[str]:
    capital: dict[Account, float] = {
        (row["bot"], row["account"]): row["starting_equity"]
        for row in reader.rows(sa.select(schema.accounts))
    }

    def capital_of(account: Account) -> float:
        return capital.get(account, default_capital)

    problems = []
    for row in list(reader.rows(sa.select(schema.live_tracks))):
        if row["track"] is None:
            continue
        stored = TrackRecord.load(msgspec.json.decode(row["track"]), capital_of).figures()
        anew = TrackRecord(profile(row["build"]).calendar, capital_of)
        reader.replay(row["build"], anew)
        problems += _differences(row["build"], stored, anew.figures())
    return problems


def _differences(build: str, stored: dict[str, Any], anew: dict[str, Any]) -> list[str]:
    return [
        f"{build}: {name} is stored as {stored[name]}, all trades give {value}"
        for name, value in anew.items()
        if stored[name] != value
    ]


def _unreadable_parcels(reader: LedgerReader) -> list[str]:
    problems = []
    for parcel in reader.rows(sa.select(schema.prediction_parcels)):
        try:
            found = len(open_parcel(parcel["body"]))
        except msgspec.MsgspecError as error:
            found, reason = -1, f" ({error})"
        else:
            reason = ""
        if found != parcel["records"]:
            key = f"{parcel['sender']}/{parcel['sequence']}"
            problems.append(f"parcel {key} cannot be read as {parcel['records']} records{reason}")
    return problems
