"""Which builds the registry has, and what the live figures must know of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import structlog

from tickserve_registry.drift import reference_of
from tickserve_registry.errors import RegistryError
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.naming import parse_build
from tickserve_registry.trading_calendar import TRADING_DAYS, Calendar, default_calendar
from tickserve_server.recorder.live import Profile

log = structlog.get_logger(__name__)


class Builds:
    """Reads the registry's index again only when its file is another."""

    def __init__(
        self, registry: ModelRegistry, index: Path, *, calendars: dict[str, Calendar]
    ) -> None:
        self._registry = registry
        self._index = index
        self._calendars = calendars
        self._known: frozenset[str] = frozenset()
        self._seen: tuple[int, ...] | None = None
        self._profiles: dict[str, Profile] = {}

    def knows(self, build: str) -> bool:
        """Whether the registry has a build; one that cannot be read has those it had."""
        if build not in self._known:
            self._refresh()
        return build in self._known

    def profile(self, build: str) -> Profile:
        """Return what is to be known of a build, by its metadata or else by its name."""
        found = self._profiles.get(build)
        if found is None:
            found = self._profiles[build] = self._read(build)
        return found

    def _refresh(self) -> None:
        try:
            status = self._index.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen != self._seen:
                self._known = frozenset(entry.build for entry in self._registry.entries())
                self._seen = seen
        except (RegistryError, OSError) as error:
            log.warning("registry_unreadable", reason=str(error))

    def _read(self, build: str) -> Profile:
        document: dict[str, Any] = {}
        try:
            document = self._registry.metadata(build).document
        except (RegistryError, OSError) as error:
            log.warning("metadata_unreadable", build=build, reason=str(error))
        name, _ = parse_build(build)
        stated: Any = document.get("calendar")
        calendar: Calendar = (
            stated
            if stated in TRADING_DAYS
            else self._calendars.get(name.market) or default_calendar(name.market)
        )
        return Profile(calendar, reference_of(document))
