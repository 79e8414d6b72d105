"""Structured logs of the daemon: one event a line, JSON for machines, text on a terminal."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import structlog

from tickserve_server.rotation import RotatingFile
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
    on_terminal = sys.stderr.isatty() and not settings.folder
    as_text = settings.form == "text" or (settings.form == "auto" and on_terminal)
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
        logger_factory=structlog.WriteLoggerFactory(_opened(settings, process=process)),
        cache_logger_on_first_use=True,
    )


class _LogFile:
    """What structlog writes to, in place of standard error."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = RotatingFile(str(file))

    def write(self, text: str) -> None:
        """Write a line; one that cannot be written is lost, as nobody could be told of it."""
        with contextlib.suppress(OSError):
            self._file.write_line(text.rstrip("\n"))

    def flush(self) -> None:
        """Do nothing: each line is written at once."""


def _opened(settings: LoggingSettings, *, process: str) -> Any:
    """Return where lines go. One write each, so that those of several processes stay whole."""
    return _LogFile(Path(settings.folder) / f"{process}.log") if settings.folder else sys.stderr


def _named(process: str) -> structlog.typing.Processor:
    """Return what adds the process's name, on whatever thread an event occurs."""

    def add(_logger: object, _method: str, fields: Fields) -> Fields:
        return {**fields, "process": process}

    return add
