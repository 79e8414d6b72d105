"""Batches in parts, worked on by the thread that asks and, in quiet times, by others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tickserve_server.serving.contract import Array
from tickserve_server.serving.priority import yield_to_the_loop

SMALLEST_PART = 256
LARGEST_PART = 2_048
"""Rows; a thread that is held up holds up no more than that."""


class Parts:
    """Runs a batch part by part, on as many as `threads` cores.

    The asking thread takes part after part until none is left. Helpers take some away from it
    while `is_quiet` says that no bot waits for single rows: a woken thread may wait milliseconds
    for a core that a batch keeps busy, so with rows to answer a batch gets one core alone.
    """

    def __init__(self, threads: int, *, is_quiet: Callable[[], bool]) -> None:
        self._helpers = threads - 1
        self._is_quiet = is_quiet
        self._pool = ThreadPoolExecutor(
            max(1, self._helpers), "part", initializer=yield_to_the_loop
        )

    def run(self, function: Callable[[Array], Array], batch: Array) -> Array:
        """Return function(batch), which must treat each row by itself."""
        size = min(LARGEST_PART, max(SMALLEST_PART, -(-len(batch) // (self._helpers + 1))))
        starts = deque(range(0, len(batch), size))
        if len(starts) == 1:
            return function(batch)
        done: dict[int, Array] = {}

        def work(go_on: Callable[[], bool]) -> None:
            while go_on():
                try:
                    start = starts.popleft()
                except IndexError:
                    return
                done[start] = function(batch[start : start + size])

        count = self._helpers if self._is_quiet() else 0
        helpers = [self._pool.submit(work, self._is_quiet) for _ in range(count)]
        work(lambda: True)
        for helper in helpers:
            if not helper.cancel():
                helper.result()
        return np.concatenate([done[start] for start in sorted(done)])

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
