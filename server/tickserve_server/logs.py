"""Structured logs of the daemon: one event a line, JSON for machines, text on a terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

from tickserve_server.settings import LoggingSettings

PERIOD_S = 10.0
MOST_ALIKE = 5
MOST_KINDS = 1_000

Fields = MutableMapping[str, Any]


class Repetition:
    """Lets at most `MOST_ALIKE` events alike through in `PERIOD_S`; the next tells of the others.

    Events are alike whose name and texts are the same; numbers and lists may differ. The first
    one let through after others were held back says how many in `suppressed`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[tuple[str, ...], tuple[float, int]] = {}

    def __call__(self, _logger: object, _method: str, fields: Fields) -> Fields:
        """Return the event, or raise DropEvent."""
        kind = tuple(f"{name}={each}" for name, each in fields.items() if isinstance(each, str))
        now = self._clock()
        since, count = self._kinds.get(kind, (now, 0))
        if now - since >= PERIOD_S:
            suppressed = count - MOST_ALIKE
            since, count = now, 0
            if suppressed > 0:
                fields["suppressed"] = suppressed
        if len(self._kinds) >= MOST_KINDS and kind not in self._kinds:
            self._kinds.clear()
        self._kinds[kind] = (since, count + 1)
        if count >= MOST_ALIKE:
            raise structlog.DropEvent
        return fields


def configure_logging(settings: LoggingSettings, *, process: str) -> None:
    """Send every event of this process to stderr, stamped with UTC time and process name."""
    as_text = settings.form == "text" or (settings.form == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if as_text else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            Repetition(),
            _named(process),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.level.upper()]
        ),
        # One write a line, so that lines of several processes do not run into each other.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _named(process: str) -> structlog.typing.Processor:
    """Return what adds the process's name, on whatever thread an event occurs."""

    def add(_logger: object, _method: str, fields: Fields) -> Fields:
        return {**fields, "process": process}

    return add
