"""Eight processes change one registry at once: nothing is lost, everything is in the trail once."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import random
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.models import sum_model
from tickserve_registry.errors import ModelNotFound, NothingToRestore, TransitionRefused
from tickserve_registry.lifecycle import PromotionRecord
from tickserve_registry.model_registry import ModelRegistry

PROCESSES = 8
SECONDS = 20.0
FAMILIES = ("eurusd_1h_net_trend", "eurusd_1h_net_breakout")

Acts = list[tuple[str, str]]


class Worker:
    """One process: saves builds of its own versions, moves anybody's, writes its own figures."""

    def __init__(self, root: str, number: int) -> None:
        self._registry = ModelRegistry(root)
        self._random = random.Random(number)  # noqa: S311 - a test's dice
        self._versions = itertools.count(1 + number, PROCESSES)
        self._model = sum_model()
        self.acts: Acts = []
        self.written: dict[str, int] = {}

    def act(self) -> None:
        """Do one thing, and note it if it was done."""
        acts = (self._save, self._promote, self._archive, self._rollback, self._write, self._write)
        chosen = self._random.choice(acts)
        with contextlib.suppress(TransitionRefused, ModelNotFound, NothingToRestore, IndexError):
            chosen()

    def _save(self) -> None:
        family = self._random.choice(FAMILIES)
        info = {"model_id": f"{family}_v{next(self._versions)}", "features": ["a", "b"]}
        build = Path(self._registry.save_model(self._model, info)[0]).stem
        self.acts.append(("save", build))
        self.written[build] = 0

    def _promote(self) -> None:
        build = self._random.choice(self._registry.entries()).build
        keep = self._random.random() < 0.2
        self._note("promote", self._registry.promote_model(build, keep=keep))

    def _archive(self) -> None:
        build = self._random.choice(self._registry.entries()).build
        self._note("archive", self._registry.archive_model(build))

    def _rollback(self) -> None:
        record = self._registry.rollback(self._random.choice(FAMILIES))
        kept = record.origin == record.target
        self.acts += [] if kept else [("rollback", record.build)]
        self.acts += [("archive", build) for build in record.archived]

    def _write(self) -> None:
        build = self._random.choice(list(self.written))
        self.written[build] += 1
        self._registry.record_live_performance(build, {"n_trades": self.written[build]})

    def _note(self, action: str, record: PromotionRecord) -> None:
        self.acts += [(action, record.build)]
        self.acts += [("archive", build) for build in record.archived]


def work(root: str, number: int, start: Any, told: Connection) -> None:
    """Work for the time given, then tell what was done."""
    worker = Worker(root, number)
    start.wait()
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        worker.act()
    told.send((worker.acts, worker.written))


def test_eight_processes_lose_nothing(tmp_path: Path) -> None:
    """No lost update, a clean verify, every lifecycle change in the audit trail exactly once."""
    context = multiprocessing.get_context("spawn")
    root = str(tmp_path / "storage")
    registry = ModelRegistry(root)
    start = context.Barrier(PROCESSES)
    pipes = [context.Pipe(duplex=False) for _ in range(PROCESSES)]
    workers = [
        context.Process(target=work, args=(root, number, start, told))
        for number, (_, told) in enumerate(pipes)
    ]
    for worker in workers:
        worker.start()
    reports = [hearing.recv() if hearing.poll(SECONDS + 60) else None for hearing, _ in pipes]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    done: Counter[tuple[str, str]] = Counter()
    written: dict[str, int] = {}
    for report in reports:
        assert report is not None
        done.update(report[0])
        written |= report[1]
    assert registry.verify().problems == ()
    assert {entry.build for entry in registry.entries()} == written.keys()
    assert Counter((c.action, c.build) for c in registry.history()) == done
    assert min(done_of(done).values()) >= 20, done_of(done)
    for build, count in written.items():
        performance = registry.metadata(build).document.get("performance") or {}
        assert (performance.get("live") or {}).get("n_trades", 0) == count


def done_of(done: Counter[tuple[str, str]]) -> Counter[str]:
    """Return how often each action was done."""
    counts: Counter[str] = Counter()
    for (action, _), count in done.items():
        counts[action] += count
    return counts
