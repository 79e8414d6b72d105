"""Structured logs of the daemon: one event a line, JSON for machines, text on a terminal."""

from __future__ import annotations

import logging
import sys

import structlog

from tickserve_server.settings import LoggingSettings


def configure_logging(settings: LoggingSettings, *, process: str) -> None:
    """Send every event of this process to stderr, stamped with UTC time and process name."""
    as_text = settings.form == "text" or (settings.form == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if as_text else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
