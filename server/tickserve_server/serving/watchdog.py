"""Ends runs that never return: a model is data, and data can hold an endless loop."""

from __future__ import annotations

import os
import threading
import time

import structlog

from tickserve_server.serving.loop import ServingLoop
from tickserve_server.serving.model import LiveModel
from tickserve_server.serving.responder import Responder

log = structlog.get_logger(__name__)

LOOK_S = 0.25
JOB_FACTOR = 3.0
"""A job, which may hold 100,000 rows, has that many times the time of a run on the loop."""

GIVE_UP_S = 10.0
EXIT_CODE = 70
"""EX_SOFTWARE of sysexits.h."""


class Watchdog:
    """Terminates what runs longer than `run_seconds`; its model is then put into quarantine.

    A run that does not even end when told to ends the process, which the supervisor starts anew.
    """

    def __init__(self, loop: ServingLoop, responder: Responder, *, run_seconds: float) -> None:
        self._loop = loop
        self._responder = responder
        self._run_s = run_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._turns = -1
        self._turned_at = 0.0

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopping.set()

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_S):
            for model in self._overdue():
                self._end(model)

    def _overdue(self) -> list[LiveModel]:
        """Return the models whose runs take too long, on the loop or in a job."""
        now = time.monotonic()
        if self._loop.turns != self._turns:
            self._turns, self._turned_at = self._loop.turns, now
        asking = self._responder.asking
        on_loop = asking is not None and now - self._turned_at > self._run_s
        begun_before = now - JOB_FACTOR * self._run_s
        return [
            model
            for model in self._responder.table.models.values()
            if (on_loop and model is asking) or model.is_overdue(begun_before)
        ]

    def _end(self, model: LiveModel) -> None:
        """Terminate a model's runs, and the process where that does not help."""
        log.error("run_overdue", build=model.build)
        deadline = time.monotonic() + GIVE_UP_S
        model.terminate(True)
        while model in self._overdue():
            if time.monotonic() > deadline:
                log.critical("run_endless", build=model.build)
                os._exit(EXIT_CODE)
            time.sleep(LOOK_S / 10)
        model.terminate(False)
