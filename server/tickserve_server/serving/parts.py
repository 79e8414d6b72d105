"""Batches in parts, one to a core, on threads of lower priority than the loop's."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tickserve_server.serving.contract import Array

NICENESS = 5
"""Of threads beside the loop: the loop and its input and output come first."""

SMALLEST_PART = 512


class Parts:
    """Runs a batch in as many parts as there are cores, at the same time."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "part", initializer=lower_priority)

    def run(self, function: Callable[[Array], Array], batch: Array) -> Array:
        """Return function(batch), which must treat each row by itself."""
        count = min(self._threads, len(batch) // SMALLEST_PART)
        if count <= 1:
            return function(batch)
        return np.concatenate(list(self._pool.map(function, np.array_split(batch, count))))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def lower_priority() -> None:
    """Lower this thread's priority; Linux keeps one for each thread."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
