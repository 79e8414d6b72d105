"""Looks at a few files again and again, and tells when one has been replaced."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from tickserve_registry.store import Fingerprint, fingerprint_of, is_settled

log = structlog.get_logger(__name__)

PERIOD_S = 0.02
"""An order such as a halt holds within a tenth of a second, also where files report no events."""


class FileWatch:
    """A thread that calls `changed` after any of the files has become another, or has gone.

    A file that young that its next replacement might not show is read again.
    """

    def __init__(
        self, files: Sequence[Path], changed: Callable[[], object], *, period: float = PERIOD_S
    ) -> None:
        self._files = files
        self._changed = changed
        self._period = period
        self._seen = self._look()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="file-watch", daemon=True)

    def start(self) -> None:
        """Look from now on; what has changed since the construction is told."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._period):
            seen = self._look()
            if seen == self._seen:
                continue
            try:
                self._changed()
            except Exception:
                log.exception("watched_file_failed")
            self._seen = seen

    def _look(self) -> tuple[Fingerprint | None, ...]:
        """Return what the files look like; nothing of one that was replaced a moment ago."""
        found = (fingerprint_of(file) for file in self._files)
        return tuple(each if each is None or is_settled(each) else _FRESH for each in found)


_FRESH: Fingerprint = (0, 0, 0)
