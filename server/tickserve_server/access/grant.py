"""What one key allows: operations, models and whose feedback."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

Operation = Literal["predict", "feedback", "events"]
OPERATIONS: tuple[Operation, ...] = ("predict", "feedback", "events")
TOPICS = ("model", "halt", "metrics")
FOR_ALL = "heartbeat"
"""The topic that every subscriber may have."""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A key's rights. Without `markets` and `models` it reaches every model.

    `models` are families, so that a grant outlives a promotion. `bots` are the names under which
    feedback may be given; without any it is `name` alone. Times are UTC.
    """

    name: str
    public: str
    operations: tuple[Operation, ...] = OPERATIONS
    markets: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    bots: tuple[str, ...] = ()
    created_at: str = ""
    revoked_at: str | None = None

    def allows(self, operation: Operation) -> bool:
        """Whether the key is good for an operation."""
        return self.revoked_at is None and operation in self.operations

    def covers(self, *, family: str, market: str) -> bool:
        """Whether a model is within reach."""
        return self.is_wide or market in self.markets or family in self.models

    def speaks_for(self, bot: str) -> bool:
        """Whether feedback may be given in a bot's name."""
        return bot in (self.bots or (self.name,))

    @property
    def is_wide(self) -> bool:
        """Whether every model is within reach."""
        return not (self.markets or self.models)

    def topics(self, wanted: str) -> set[str]:
        """Return what a subscription to topics that begin with `wanted` comes to."""
        if self.is_wide:
            return {wanted}
        found = {each for each in self._within_reach() if each.startswith(wanted)}
        if any(wanted.startswith(each) for each in self._within_reach()):
            found.add(wanted)
        return found

    def _within_reach(self) -> Iterable[str]:
        yield FOR_ALL
        for topic in TOPICS:
            yield from (f"{topic}.{market}_" for market in self.markets)
            yield from (f"{topic}.{family}_v" for family in self.models)


NOBODY = Grant(name="", public="", operations=())
"""What a connection has whose key is unknown or revoked."""


class KeyRing:
    """The grants of one moment by public key, never changed; `revision` grows with each change."""

    def __init__(self, grants: Iterable[Grant] = (), *, revision: int = 0) -> None:
        self._by_key = {grant.public: grant for grant in grants}
        self.revision = revision

    def find(self, public: str) -> Grant:
        """Return the grant of a key, revoked or not; NOBODY's for one that is unknown."""
        return self._by_key.get(public, NOBODY)
