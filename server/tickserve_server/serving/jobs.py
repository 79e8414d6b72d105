"""Requests that would hold the loop, run on threads of lower priority, within bounds."""

from __future__ import annotations

import contextlib
import os
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor

from tickserve_server.serving.answer import Answer, Job
from tickserve_server.serving.priority import yield_to_the_loop
from tickserve_server.serving.refusal import Refusal

RETRY_AFTER_MS = 50


class JobPool:
    """Takes jobs from the loop and gives back their answers; `fd` is readable when there are any.

    At most `per_client` jobs of one client and `most` altogether are under way; what exceeds
    that is answered `busy` at once.
    """

    def __init__(self, *, per_client: int, most: int, threads: int) -> None:
        self._per_client = per_client
        self._most = most
        self._pool = ThreadPoolExecutor(threads, "job", initializer=yield_to_the_loop)
        self._clients: Counter[bytes] = Counter()
        self._finished: deque[tuple[list[bytes], Answer]] = deque()
        self.under_way = 0
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def submit(self, envelope: list[bytes], job: Job) -> Answer | None:
        """Start the job, or return the answer that declines it."""
        client = envelope[0]
        under_way = self._clients[client]
        if under_way >= self._per_client or self.under_way >= self._most:
            return job.decline(_busy(under_way, self.under_way))
        self._clients[client] += 1
        self.under_way += 1
        self._pool.submit(self._run, envelope, job)
        return None

    def finished(self) -> list[tuple[list[bytes], Answer]]:
        """Return the answers that have come since the last call, with their envelopes."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)
        answers = []
        while self._finished:
            envelope, answer = self._finished.popleft()
            self._forget(envelope[0])
            answers.append((envelope, answer))
        return answers

    def close(self) -> None:
        """End the threads; jobs that wait are not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        os.close(self.fd)

    def _run(self, envelope: list[bytes], job: Job) -> None:
        self._finished.append((envelope, job.run()))
        os.eventfd_write(self.fd, 1)

    def _forget(self, client: bytes) -> None:
        self.under_way -= 1
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]


def _busy(of_client: int, altogether: int) -> Refusal:
    return Refusal(
        "busy",
        f"{of_client} large requests of this client and {altogether} altogether are under way; "
        "wait for an answer",
        of_client=of_client,
        altogether=altogether,
        retry_after_ms=RETRY_AFTER_MS,
    )
