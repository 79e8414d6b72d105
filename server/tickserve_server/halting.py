"""The halts that stand now, for a process that must not wait for a file."""

from __future__ import annotations

from pathlib import Path

import structlog

from tickserve_registry.catalog import Entry
from tickserve_registry.errors import HaltsUnreadable
from tickserve_registry.halts import ALL_MODELS, Halt, HaltFile, Halts
from tickserve_registry.layout import Layout
from tickserve_registry.metadata import utc_now
from tickserve_server.watch import FileWatch

log = structlog.get_logger(__name__)


class StandingHalts:
    """Reads halts.json at once and whenever it changes; `current` is replaced whole.

    A file that cannot be read leaves what stood before; at the start everything is halted then,
    since nobody can tell what was.
    """

    def __init__(self, root: Path) -> None:
        self._file = HaltFile(Layout(root))
        self.problem: str | None = None
        self._watch = FileWatch([self._file.path], self.refresh)
        self.current = Halts()
        if not self.refresh():
            self.current = Halts([_all_of(self._file.path)])

    def start(self) -> None:
        """Follow the file from now on."""
        self._watch.start()

    def stop(self) -> None:
        """Follow it no more."""
        self._watch.stop()

    def of(self, entry: Entry) -> Halt | None:
        """Return the halt that a build is under, if any."""
        return self.current.of(entry)

    def refresh(self) -> bool:
        """Read the file; return whether it can be read."""
        try:
            found = self._file.read()
        except HaltsUnreadable as error:
            if self.problem is None:
                log.error("halts_unreadable", reason=str(error))
            self.problem = str(error)
            return False
        self.problem = None
        if found.standing != self.current.standing:
            names = [halt.model for halt in found.standing]
            log.warning("halts_changed", halted=names)
        self.current = found
        return True


def _all_of(path: Path) -> Halt:
    return Halt(
        model=ALL_MODELS, reason=f"{path.name} cannot be read", by="tickserve", at=utc_now()
    )
