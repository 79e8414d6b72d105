"""Clients in a closed loop: each has one request under way, in processes of their own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple

import zmq

PROCESSES = 2
"""Enough to keep a server busy on two cores without starving it."""


class Result(NamedTuple):
    """What all clients saw: replies in `seconds`, durations in nanoseconds, odd replies."""

    replies: int
    seconds: float
    durations: list[int]
    wrong: int

    @property
    def rate(self) -> float:
        """Replies a second."""
        return self.replies / self.seconds


class Load:
    """`clients` connections to one endpoint, started once and run as often as asked.

    Each asks `body` and takes a reply that holds `expect` for right.
    """

    def __init__(self, endpoint: str, body: Sequence[bytes], *, clients: int, expect: bytes):
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        count = min(PROCESSES, clients)
        for index in range(count):
            ours, theirs = context.Pipe()
            share = clients // count + (index < clients % count)
            arguments = (theirs, endpoint, list(body), share, expect)
            process = context.Process(target=_client, args=arguments, daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, seconds: float) -> Result:
        """Let all clients ask for some seconds."""
        for pipe in self._pipes:
            pipe.send(seconds)
        parts: list[Result] = [pipe.recv() for pipe in self._pipes]
        return Result(
            sum(part.replies for part in parts),
            max(part.seconds for part in parts),
            [duration for part in parts for duration in part.durations],
            sum(part.wrong for part in parts),
        )

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join()


def _client(
    pipe: Connection, endpoint: str, body: list[bytes], clients: int, expect: bytes
) -> None:
    with zmq.Context() as context:
        sockets = []
        poller = zmq.Poller()
        for _ in range(clients):
            socket = context.socket(zmq.DEALER)
            socket.linger = 0
            socket.connect(endpoint)
            poller.register(socket, zmq.POLLIN)
            sockets.append(socket)
        while (seconds := pipe.recv()) is not None:
            pipe.send(_drive(sockets, poller, body, seconds, expect))
        for socket in sockets:
            socket.close()


def _drive(
    sockets: list[zmq.Socket[bytes]],
    poller: zmq.Poller,
    body: list[bytes],
    seconds: float,
    expect: bytes,
) -> Result:
    now = time.perf_counter_ns
    sent: dict[zmq.Socket[bytes], int] = {}
    for socket in sockets:
        sent[socket] = now()
        socket.send_multipart(body)
    durations: list[int] = []
    wrong = 0
    started = time.perf_counter()
    end = started + seconds
    waiting = len(sockets)
    while waiting:
        ready = poller.poll(10_000)
        assert ready, f"no reply within 10 s, {waiting} are waited for"
        go_on = time.perf_counter() < end
        for socket, _ in ready:
            reply = socket.recv_multipart()
            durations.append(now() - sent[socket])
            wrong += expect not in reply[0]
            if go_on:
                sent[socket] = now()
                socket.send_multipart(body)
            else:
                waiting -= 1
    return Result(len(durations), time.perf_counter() - started, durations, wrong)
