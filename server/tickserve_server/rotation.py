"""A file of lines that is renamed when it is full, and opened anew when somebody moved it."""

from __future__ import annotations

import logging.handlers
import os
from pathlib import Path

ROTATE_BYTES = 16 * 1024 * 1024
ROTATED_FILES = 5


class RotatingFile(logging.handlers.RotatingFileHandler):
    """Takes whole lines; raises OSError where they cannot be written.

    A file that another program has renamed or removed is made anew with the next line.
    """

    def __init__(self, file: str) -> None:
        super().__init__(
            file, maxBytes=ROTATE_BYTES, backupCount=ROTATED_FILES, encoding="utf-8", delay=True
        )

    def write_line(self, line: str) -> None:
        """Append a line; raise OSError."""
        if self._was_moved():
            self.close()
        self.emit(logging.makeLogRecord({"msg": line}))

    def _was_moved(self) -> bool:
        if self.stream is None:
            return False
        try:
            there = Path(self.baseFilename).stat()
        except FileNotFoundError:
            return True
        ours = os.fstat(self.stream.fileno())
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Raise what went wrong instead of printing it."""
        del record
        raise  # noqa: PLE0704 - called while the exception is being handled
