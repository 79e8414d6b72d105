"""Promoting v2 while the bots trade, and measuring the change from a client's side."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from tickserve_bots.demo.traders import TREND
from tickserve_client import Client, ClientError
from tickserve_registry.model_registry import ModelRegistry

OLD, NEW = f"{TREND}_v1", f"{TREND}_v2"
BEFORE_S = 0.2
AFTER_S = 0.5
LONGEST_S = 10.0
PAUSE_S = 0.0005


class Change(NamedTuple):
    """What a client saw: replies by the old and the new version, others, failures, and times.

    `reload_ms` is from the promotion's return to the first reply by the new version.
    """

    old_replies: int
    new_replies: int
    other_replies: int
    old_after_new: int
    failed: int
    promote_ms: float
    reload_ms: float


class Prober:
    """Asks the family without pause, in a thread, and notes who answers when."""

    def __init__(self, endpoint: str, features: dict[str, float]) -> None:
        self._endpoint = endpoint
        self._features = features
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prober")
        self.seen: list[tuple[float, str]] = []
        self.failed = 0

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Stop asking."""
        self._stop.set()
        self._thread.join()

    def first(self, model_id: str) -> float | None:
        """Return when a model first answered."""
        return next((at for at, name in self.seen if name == model_id), None)

    def _run(self) -> None:
        with Client(self._endpoint) as client:
            while not self._stop.is_set():
                try:
                    reply = client.predict(TREND, self._features, log=False)
                    self.seen.append((time.perf_counter(), reply.model_id))
                except ClientError:
                    self.failed += 1
                time.sleep(PAUSE_S)


def promote_watched(registry: ModelRegistry, endpoint: str, features: dict[str, float]) -> Change:
    """Promote v2 under a prober's eyes; waits until v2 answers, at most `LONGEST_S`."""
    prober = Prober(endpoint, features)
    prober.start()
    try:
        time.sleep(BEFORE_S)
        began = time.perf_counter()
        registry.promote_model(NEW, reason="demo: challenger takes over")
        promoted = time.perf_counter()
        while prober.first(NEW) is None and time.perf_counter() - promoted < LONGEST_S:
            time.sleep(PAUSE_S)
        time.sleep(AFTER_S)
    finally:
        prober.stop()
    first_new = prober.first(NEW)
    names = [name for _, name in prober.seen]
    switched = names.index(NEW) if first_new is not None else len(names)
    return Change(
        old_replies=names.count(OLD),
        new_replies=names.count(NEW),
        other_replies=len(names) - names.count(OLD) - names.count(NEW),
        old_after_new=names[switched:].count(OLD),
        failed=prober.failed,
        promote_ms=(promoted - began) * 1000,
        reload_ms=((first_new or float("inf")) - promoted) * 1000,
    )
