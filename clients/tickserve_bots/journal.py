"""A bot's own logs: closed trades and requests, one JSON line each."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import IO, Any

from tickserve_bots.broker import Trade


class Journal:
    """Appends lines to a file; each is on its way to the disk before the next is written."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = path.open("a", encoding="utf-8", buffering=1)

    def write(self, line: dict[str, Any]) -> None:
        """Append one line."""
        self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def trade_line(trade: Trade, *, bot: str, account: str) -> dict[str, Any]:
    """Return a closed trade as the bot's log holds it."""
    return {"bot": bot, "account": account, **dataclasses.asdict(trade)}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a log; a last line still being written is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
