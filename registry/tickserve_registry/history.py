"""history.jsonl: the append-only audit trail of every lifecycle change."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any

import msgspec

from tickserve_registry.metadata import utc_now
from tickserve_registry.store import append_line


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what to which build, when, from where to where, and why."""

    at: str
    who: str
    action: str
    build: str
    origin: str | None = msgspec.field(default=None, name="from")
    target: str = msgspec.field(name="to")
    digest: str
    reason: str | None = None


def new_change(
    *, action: str, build: str, origin: str | None, target: str, digest: str, reason: str | None
) -> Change:
    """Return a change by this user, now."""
    return Change(
        at=utc_now(),
        who=_user(),
        action=action,
        build=build,
        origin=origin,
        target=target,
        digest=digest,
        reason=reason,
    )


def record(path: Path, change: Change) -> None:
    """Append a change durably."""
    append_line(path, msgspec.json.encode(change))


def read_history(path: Path) -> list[Change]:
    """Return every change, oldest first; a torn line is passed over."""
    if not path.exists():
        return []
    changes = []
    for line in path.read_bytes().splitlines():
        change = _parse(line)
        if change is not None:
            changes.append(change)
    return changes


def _parse(line: bytes) -> Any:
    try:
        return msgspec.json.decode(line, type=Change)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
