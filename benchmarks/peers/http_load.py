"""HTTP/1.1 clients in a closed loop, as bare as the ZeroMQ ones: sockets and bytes made before."""

from __future__ import annotations

import selectors
import socket as sockets
import time

from benchmarks.load import Plan, Result

READ_BYTES = 65_536
HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length:"


def connect(endpoint: str, count: int) -> list[sockets.socket]:
    """Open that many keep-alive connections to host:port."""
    host, port = endpoint.split(":")
    made = []
    for _ in range(count):
        socket = sockets.create_connection((host, int(port)), timeout=10)
        socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        made.append(socket)
    return made


def drive(connections: list[sockets.socket], plan: Plan, seconds: float) -> Result:
    """Let each connection ask again as soon as it is answered."""
    now = time.perf_counter_ns
    (body,) = plan.body
    sent: dict[sockets.socket, int] = {}
    durations: list[int] = []
    wrong = 0
    with selectors.DefaultSelector() as selector:
        for socket in connections:
            selector.register(socket, selectors.EVENT_READ, socket)
            sent[socket] = now()
            socket.sendall(body)
        started = time.perf_counter()
        waiting = len(connections)
        while waiting:
            ready = selector.select(10)
            assert ready, "no reply within 10 s"
            go_on = time.perf_counter() < started + seconds
            for key, _ in ready:
                socket = key.data
                reply = receive(socket)
                durations.append(now() - sent[socket])
                wrong += plan.expect not in reply
                if go_on:
                    sent[socket] = now()
                    socket.sendall(body)
                else:
                    waiting -= 1
    return Result(len(durations), time.perf_counter() - started, durations, wrong)


def receive(socket: sockets.socket) -> bytes:
    """Receive one whole response, which states its Content-Length."""
    received = socket.recv(READ_BYTES)
    while HEAD_END not in received:
        received += socket.recv(READ_BYTES)
    head, _, body = received.partition(HEAD_END)
    line = next(each for each in head.lower().split(b"\r\n") if each.startswith(LENGTH))
    missing = int(line[len(LENGTH) :]) - len(body)
    while missing > 0:
        part = socket.recv(READ_BYTES)
        received += part
        missing -= len(part)
    return received


def post(path: str, document: bytes) -> bytes:
    """Return the bytes of a request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Accept: application/json\r\nContent-Length: {len(document)}\r\n\r\n"
    )
    return head.encode() + document
