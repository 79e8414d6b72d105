"""Listening sockets that stay well when descriptors are used up.

libzmq goes on trying to accept a connection that it has no descriptor for, at the cost of a whole
core. To unbind would end the connections that are open, too. So the listening descriptor is made
here: connections that libzmq cannot accept are accepted here, with a descriptor kept back for that,
and closed at once.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket as sockets
from typing import NamedTuple

import structlog
import zmq
from zmq.utils.monitor import recv_monitor_message

from tickserve_server.child import OWNER_ONLY, bind
from tickserve_server.errors import EndpointInUse

log = structlog.get_logger(__name__)

HANDSHAKE_MS = 5_000
"""A connection that says nothing is closed after that, and its descriptor is free again."""

RESERVE = 8
BACKLOG = 512
MOST_EVENTS = 100
MOST_TURNED_AWAY = 2_000
FULL_S = 5.0
MOST_DESCRIPTORS = 65_536


class _Door(NamedTuple):
    socket: zmq.Socket[bytes]
    endpoint: str
    monitor: zmq.Socket[bytes]
    listening: sockets.socket


class Doors:
    """The listening sockets of a process; to be looked after every now and then."""

    def __init__(self) -> None:
        self._doors: list[_Door] = []
        self._reserve = _taken(RESERVE)
        self._full_until = self._now = 0.0
        self.turned_away = 0

    def open(
        self, socket: zmq.Socket[bytes], endpoint: str, *, name: str, mode: int = OWNER_ONLY
    ) -> None:
        """Bind a socket. Raises EndpointInUse with the reason in words."""
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        listening = _listening(endpoint, name=name)
        if listening is None:
            bind(socket, endpoint, name=name, mode=mode)
            return
        socket.ipv6 = listening.family == sockets.AF_INET6
        # libzmq closes the descriptor that it is given, when it closes the socket.
        socket.setsockopt(zmq.USE_FD, os.dup(listening.fileno()))
        bind(socket, endpoint, name=name, mode=mode)
        monitor = socket.get_monitor_socket(zmq.EVENT_ACCEPT_FAILED)
        self._doors.append(_Door(socket, endpoint, monitor, listening))

    def shut(self, socket: zmq.Socket[bytes]) -> None:
        """Look after a socket no more; before it is closed."""
        for door in [each for each in self._doors if each.socket is socket]:
            door.socket.disable_monitor()
            door.monitor.close()
            door.listening.close()
            self._doors.remove(door)

    @property
    def is_full(self) -> bool:
        """Whether a connection was turned away a moment ago."""
        return self._now < self._full_until

    def service(self, now: float) -> None:
        """Turn away who could not be let in; `now` is monotonic seconds."""
        self._now = now
        for door in self._doors:
            count = self._turn_away(door) if _has_failed(door) else 0
            self.turned_away += count
            if count:
                self._full_until = now + FULL_S
                limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
                log.error("connections_turned_away", endpoint=door.endpoint, n=count, limit=limit)

    def close(self) -> None:
        """Look after nothing any more; before the sockets are closed."""
        for door in tuple(self._doors):
            self.shut(door.socket)
        _free(self._reserve)

    def _turn_away(self, door: _Door) -> int:
        """Accept and close the connections that wait; return how many."""
        count = 0
        _free(self._reserve)
        with contextlib.suppress(OSError):
            while count < MOST_TURNED_AWAY:
                caller, _ = door.listening.accept()
                caller.close()
                count += 1
        self._reserve = _taken(RESERVE)
        return count


def raise_limit() -> None:
    """Let this process open as many files as it may, at most `MOST_DESCRIPTORS`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _listening(endpoint: str, *, name: str) -> sockets.socket | None:
    """Return a socket that listens at a TCP address; None for what libzmq alone can read."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    if not (endpoint.startswith("tcp://") and port.isdigit()):
        return None
    wanted = None if host == "*" else host.strip("[]")
    try:
        found = sockets.getaddrinfo(
            wanted, int(port), type=sockets.SOCK_STREAM, flags=sockets.AI_PASSIVE
        )
    except OSError:
        return None
    family, kind, protocol, _, address = found[0]
    made = sockets.socket(family, kind, protocol)
    try:
        made.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        reason = error.strerror or str(error)
        raise EndpointInUse(name=name, endpoint=endpoint, reason=reason) from error
    made.setblocking(False)
    return made


def _has_failed(door: _Door) -> bool:
    """Whether the door's monitor tells of a connection that could not be accepted.

    Such events may come faster than they are read, so only some are.
    """
    count = 0
    while count < MOST_EVENTS and door.monitor.poll(0):
        recv_monitor_message(door.monitor)
        count += 1
    return count > 0


def _taken(count: int) -> list[int]:
    """Return so many descriptors, or as many as there are."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        found.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        while len(found) < count:
            found.append(os.dup(found[0]))
    return found


def _free(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
