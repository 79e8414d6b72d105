"""A bot of the kill storm: journals what it means to say, says it until it is acknowledged."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import zmq

LOST = 0.2
"""Share of acknowledgements that a bot acts upon as if they had never come."""

ANSWER_MS = 400
TOGETHER = 20
AGAIN = 0.3
"""Share of what is said that revises an old trade."""

HALF = 0.5
START_MS = 1_742_774_400_000
MINUTE_MS = 60_000
STORED = {"recorded", "duplicate", "parked"}


class Told(NamedTuple):
    """What a journal tells of a trade: its seq and pnl."""

    seq: int
    pnl: float


class Journal:
    """What a bot meant to say and what was acknowledged, one line each; survives its end."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.meant: dict[tuple[str, int], dict[str, Any]] = {}
        self.acknowledged: set[tuple[str, int]] = set()
        for line in self._lines():
            if "ack" in line:
                self.acknowledged.add((line["ack"][0], line["ack"][1]))
            else:
                self.meant[line["trade"], line["seq"]] = line

    def write(self, line: dict[str, Any]) -> None:
        """Append a line; a part of one that a kill leaves behind is not read."""
        with self._file.open("a") as file:
            file.write("\n" + json.dumps(line))

    def newest(self, keys: Iterator[tuple[str, int]]) -> dict[str, Told]:
        """Return the newest revision of each trade among some."""
        found: dict[str, Told] = {}
        for trade, seq in sorted(keys, key=lambda key: key[1]):
            found[trade] = Told(seq, self.meant[trade, seq]["pnl"])
        return found

    def _lines(self) -> Iterator[dict[str, Any]]:
        if self._file.exists():
            for line in self._file.read_text().split("\n"):
                try:
                    yield json.loads(line)
                except ValueError:
                    continue


class Bot:
    """Reports trades until told to finish, then until everything is acknowledged."""

    def __init__(self, endpoint: str, name: str, build: str, folder: Path, seed: int) -> None:
        self._name = name
        self._build = build
        self._random = random.Random(seed)  # noqa: S311 - trades, no secrets
        self._finish = folder / "finish"
        self._file = folder / f"{name}.journal"
        self.journal = Journal(self._file)
        self._trades = len({trade for trade, _ in self.journal.meant})
        self._sent = 0
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(endpoint)

    def run(self) -> None:
        """Say what was meant and not acknowledged, then new things, until all is done."""
        while True:
            open_ = [v for k, v in self.journal.meant.items() if k not in self.journal.acknowledged]
            if self._finish.exists():
                if not open_:
                    return
            else:
                open_ += self._new()
            for start in range(0, len(open_), TOGETHER):
                self._say(open_[start : start + TOGETHER])

    def _new(self) -> list[dict[str, Any]]:
        """Return new trades and revisions of old ones, noted before they are said."""
        said = []
        for _ in range(self._random.randrange(1, 8)):
            old = self._random.random() < AGAIN and self._trades
            number = self._random.randrange(self._trades) if old else self._trades
            self._trades += not old
            seq = 1 + max((s for t, s in self.journal.meant if t == str(number)), default=0)
            said.append(self._outcome(number, seq))
            self.journal.meant[str(number), seq] = said[-1]
            self.journal.write(said[-1])
        return said

    def _outcome(self, number: int, seq: int) -> dict[str, Any]:
        closed = START_MS + number * MINUTE_MS + self._random.randrange(120) * MINUTE_MS
        return {
            "op": "outcome",
            "bot": self._name,
            "run": "storm",
            "trade": str(number),
            "seq": seq,
            "status": "closed",
            "final": True,
            "build": self._build,
            "pnl": round(self._random.gauss(0.1, 5.0), 2),
            "currency": "USD",
            "opened_at": START_MS - MINUTE_MS,
            "closed_at": closed,
        }

    def _say(self, items: list[dict[str, Any]]) -> None:
        """Send one by one or together; note what was stored, but for what gets lost."""
        together = self._random.random() < HALF
        told = [items] if together else [[each] for each in items]
        waiting: dict[int, list[dict[str, Any]]] = {}
        for part in told:
            self._sent += 1
            waiting[self._sent] = part
            message = {"op": "batch", "items": part} if together else part[0]
            self._socket.send(json.dumps(message | {"id": self._sent}).encode())
        while waiting and self._socket.poll(ANSWER_MS):
            reply = json.loads(self._socket.recv())
            part = waiting.pop(reply.get("id"), [])
            if reply["op"] == "ack" and self._random.random() >= LOST:
                for item, result in zip(part, reply.get("results", [reply]), strict=bool(part)):
                    self._note(item, result["status"])

    def _note(self, item: dict[str, Any], status: str) -> None:
        if status in STORED:
            self.journal.acknowledged.add((item["trade"], item["seq"]))
            self.journal.write({"ack": [item["trade"], item["seq"]]})


def main() -> None:
    """Run a bot until the folder holds a file `finish` and everything is acknowledged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int)
    for name in ("bot", "endpoint", "build", "folder"):
        parser.add_argument(f"--{name}")
    chosen = parser.parse_args()
    Bot(chosen.endpoint, chosen.bot, chosen.build, Path(chosen.folder), chosen.seed).run()


if __name__ == "__main__":
    main()
