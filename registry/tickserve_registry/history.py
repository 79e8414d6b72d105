"""history.jsonl: the append-only audit trail of every lifecycle change."""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from tickserve_registry.metadata import utc_now
from tickserve_registry.store import append_lines

TAIL_BYTES = 1 << 16
"""How far back a repeated append looks for its own lines: far beyond any one transaction."""

HALTS = ("halt", "resume")
"""Actions that move no build; they may name a family, or `*`, in its place."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what to which build, when, from where to where, and why.

    All changes of one transaction share its id; `overruled` lists the rules of the promotion
    policy that a forced promotion did not meet.
    """

    at: str
    who: str
    transaction: str = ""
    action: str
    build: str
    origin: str | None = msgspec.field(default=None, name="from")
    target: str = msgspec.field(name="to")
    digest: str
    reason: str | None = None
    overruled: tuple[str, ...] = ()


def new_change(
    *,
    transaction: str,
    action: str,
    build: str,
    origin: str | None,
    target: str,
    digest: str,
    reason: str | None,
    overruled: Sequence[str] = (),
) -> Change:
    """Return a change by this user, now."""
    return Change(
        at=utc_now(),
        who=_user(),
        transaction=transaction,
        action=action,
        build=build,
        origin=origin,
        target=target,
        digest=digest,
        reason=reason,
        overruled=tuple(overruled),
    )


def record(path: Path, changes: Sequence[Change]) -> None:
    """Append changes durably; those that a run which crashed has appended are not repeated."""
    ids = {each.transaction.encode() for each in changes}
    tail = _tail(path).splitlines()
    known = set(_changes(line for line in tail if any(each in line for each in ids)))
    append_lines(path, [msgspec.json.encode(each) for each in changes if each not in known])


def read_history(path: Path) -> list[Change]:
    """Return every change, oldest first; a line that is no change is passed over."""
    return _changes(path.read_bytes().splitlines()) if path.exists() else []


def whereabouts(changes: Iterable[Change]) -> dict[str, str]:
    """Return the environment that each build went to last."""
    return {each.build: each.target for each in changes if each.action not in HALTS}


def unreadable_lines(path: Path) -> int:
    """Return how many lines are no changes: a hand or a failing disk has been there."""
    if not path.exists():
        return 0
    lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    return len(lines) - len(_changes(lines))


def _tail(path: Path) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read()


def _changes(lines: Iterable[bytes]) -> list[Change]:
    found = (_parse(line) for line in lines)
    return [change for change in found if change is not None]


def _parse(line: bytes) -> Change | None:
    try:
        return msgspec.json.decode(line, type=Change)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
