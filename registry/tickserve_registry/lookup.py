"""Which builds go by a name: a family, a model_id or a build."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from tickserve_registry.catalog import Entry
from tickserve_registry.errors import ModelNotFound
from tickserve_registry.layout import Environment
from tickserve_registry.naming import parse_family, parse_version


def find(
    entries: Sequence[Entry], name: str, *, version: Any = None, environment: str | None = None
) -> Entry:
    """Return the newest build that goes by the name. Raises ModelNotFound."""
    found = called(entries, name, version=version, environment=environment)
    if not found:
        known = {each for entry in entries for each in (entry.family, entry.model_id)}
        nearest = difflib.get_close_matches(normalised(name), known)
        raise ModelNotFound(name=normalised(name), nearest=nearest)
    return max(found, key=lambda entry: (entry.version, entry.date))


def find_first(entries: Sequence[Entry], name: str, environment: Environment) -> Entry:
    """Return the newest build of the name in an environment, else in any.

    So a family's name means the candidate where it is promoted, the champion where archived.
    """
    there = called(entries, name, environment=environment)
    return find(entries, name, environment=environment if there else None)


def versions(entries: Sequence[Entry], name: str) -> list[Entry]:
    """Return the newest build of each version that goes by the name. Raises ModelNotFound."""
    find(entries, name)
    found = sorted(called(entries, name), key=lambda each: (each.version, each.date))
    return list({each.version: each for each in found}.values())


def next_version(entries: Sequence[Entry], family: str) -> str:
    """Return the model_id of a family's next version. Raises NameRefused."""
    name = parse_family(family)
    taken = [each.version for each in entries if each.family == name.family]
    return f"{name.family}_v{max(taken, default=0) + 1}"


def called(
    entries: Sequence[Entry], name: str, *, version: Any = None, environment: str | None = None
) -> list[Entry]:
    """Return every build that goes by the name; none where there is none."""
    wanted = normalised(name)
    number = None if version is None else parse_version(version)
    return [
        entry
        for entry in entries
        if wanted in (entry.build, entry.model_id, entry.family)
        and number in (None, entry.version)
        and environment in (None, entry.environment)
    ]


def normalised(name: str) -> str:
    """Return a name as the index has it: in lower case, without a file's suffix."""
    return str(name).lower().removesuffix(".model")
