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


class Plan(NamedTuple):
    """What a process of clients does: `clients` connections, and 0 or seconds between two asks."""

    endpoint: str
    body: list[bytes]
    clients: int
    expect: bytes
    pace_s: float


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

    An endpoint with a scheme is ZeroMQ's, host:port alone is HTTP's.

    Each asks `body` and takes a reply that holds `expect` for right; with a pace it asks again
    after that many seconds, without one at once.
    """

    def __init__(
        self,
        endpoint: str,
        body: Sequence[bytes],
        *,
        clients: int,
        expect: bytes,
        pace_s: float = 0.0,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        count = min(PROCESSES, clients)
        for index in range(count):
            ours, theirs = context.Pipe()
            share = clients // count + (index < clients % count)
            plan = Plan(endpoint, list(body), share, expect, pace_s)
            process = context.Process(target=_client, args=(theirs, plan), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, seconds: float) -> Result:
        """Let all clients ask for some seconds."""
        self.begin(seconds)
        return self.end()

    def begin(self, seconds: float) -> None:
        """Let all clients ask for some seconds, without waiting for them."""
        for pipe in self._pipes:
            pipe.send(seconds)

    def end(self) -> Result:
        """Wait for what begin() has started."""
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


def _client(pipe: Connection, plan: Plan) -> None:
    if "://" in plan.endpoint:
        _zeromq_client(pipe, plan)
        return
    from benchmarks.peers import http_load

    connections = http_load.connect(plan.endpoint, plan.clients)
    while (seconds := pipe.recv()) is not None:
        pipe.send(http_load.drive(connections, plan, seconds))
    for connection in connections:
        connection.close()


def _zeromq_client(pipe: Connection, plan: Plan) -> None:
    with zmq.Context() as context:
        sockets = []
        for _ in range(plan.clients):
            socket = context.socket(zmq.DEALER)
            socket.linger = 0
            socket.connect(plan.endpoint)
            sockets.append(socket)
        drive = _walk if plan.pace_s else _drive
        while (seconds := pipe.recv()) is not None:
            pipe.send(drive(sockets, plan, seconds))
        for socket in sockets:
            socket.close()


def _drive(sockets: list[zmq.Socket[bytes]], plan: Plan, seconds: float) -> Result:
    """Let each client ask again as soon as it is answered."""
    now = time.perf_counter_ns
    body, expect = plan.body, plan.expect
    poller = zmq.Poller()
    sent: dict[zmq.Socket[bytes], int] = {}
    for socket in sockets:
        poller.register(socket, zmq.POLLIN)
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


def _walk(sockets: list[zmq.Socket[bytes]], plan: Plan, seconds: float) -> Result:
    """Let each client ask in its turn, so that all have asked once in `pace_s`."""
    durations: list[int] = []
    wrong = 0
    started = time.perf_counter()
    due = started
    step = plan.pace_s / len(sockets)
    while due < started + seconds:
        for socket in sockets:
            time.sleep(max(0.0, due - time.perf_counter()))
            sent = time.perf_counter_ns()
            socket.send_multipart(plan.body)
            assert socket.poll(10_000), "no reply within 10 s"
            reply = socket.recv_multipart()
            durations.append(time.perf_counter_ns() - sent)
            wrong += plan.expect not in reply[0]
            due += step
    return Result(len(durations), time.perf_counter() - started, durations, wrong)
