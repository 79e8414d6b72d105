"""Who was champion before: the order of a family's production builds, from the audit trail."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from tickserve_registry.history import Change

ROLLBACK = "rollback"


def succession(history: Iterable[Change], family: AbstractSet[str]) -> list[str]:
    """Return a family's builds in the order in which they became champions, the latest last.

    A rollback removes those that came after the build it restored, so that a second rollback
    goes further back and never to a build that was rolled back from.
    """
    line: list[str] = []
    for change in history:
        moved = change.build in family and change.target == "production"
        if not moved or change.origin == change.target:
            continue
        if change.action == ROLLBACK and change.build in line:
            del line[line.index(change.build) + 1 :]
            continue
        line = [*(each for each in line if each != change.build), change.build]
    return line


def champion_and_predecessor(
    line: list[str], in_production: AbstractSet[str]
) -> tuple[str | None, str | None]:
    """Return the latest build that is in production, and the one before it.

    With none in production the latest of all is the predecessor: it is what was there before.
    """
    serving = [place for place, build in enumerate(line) if build in in_production]
    if not serving:
        return None, line[-1] if line else None
    place = serving[-1]
    return line[place], line[place - 1] if place else None
