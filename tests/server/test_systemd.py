"""Tests of the notify protocol, against a real socket."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tickserve_server.systemd import FEEDS, Notifier


@pytest.fixture(params=["path", "abstract"])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """Return a service manager's socket and its address as the environment has it."""
    name = f"tickserve-test-{os.getpid()}"
    address, shown = (
        (str(tmp_path / "notify"), str(tmp_path / "notify"))
        if request.param == "path"
        else (f"\0{name}", f"@{name}")
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(address)
        made.settimeout(2.0)
        yield made, shown


def received(manager: socket.socket) -> list[bytes]:
    """Return what waits."""
    found = []
    with contextlib.suppress(TimeoutError):
        while True:
            found.append(manager.recv(4096))
    return found


def test_it_tells_what_happens(told: tuple[socket.socket, str]) -> None:
    """Ready with a status, reloading with the time, stopping."""
    manager, address = told
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready("serving")
    assert manager.recv(4096) == b"READY=1\nSTATUS=serving"
    notifier.reloading()
    assert manager.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    notifier.stopping()
    assert manager.recv(4096) == b"STOPPING=1"


def test_the_watchdog_is_fed_several_times_a_period(told: tuple[socket.socket, str]) -> None:
    """However often it is called, and not at all where nobody watches this process."""
    manager, address = told
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "8000000"}
    notifier = Notifier(environment)
    for step in range(81):
        notifier.feed(1_000.0 + step / 10)
    manager.settimeout(0.05)
    assert received(manager) == [b"WATCHDOG=1"] * (FEEDS + 1)
    other = {**environment, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "8000000"}
    Notifier(other | {"WATCHDOG_PID": "1"}).feed(1.0)
    assert received(manager) == []


def test_children_do_not_inherit_it() -> None:
    """The variables are taken out of the environment."""
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "A": "b"}
    Notifier(environment)
    assert environment == {"A": "b"}


def test_without_a_manager_nothing_happens() -> None:
    """A daemon in a terminal tells nobody, and a manager that has gone is no error."""
    for environment in ({}, {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000"}):
        notifier = Notifier(dict(environment))
        notifier.ready("x")
        notifier.feed(1.0)
