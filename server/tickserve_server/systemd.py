"""The notify protocol of systemd: readiness, state in words, and signs of life (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

MICROSECONDS = 1_000_000
FEEDS = 4
"""Signs of life within one watchdog period; one that is late must not be fatal."""


class Notifier:
    """Tells the service manager; does nothing where none has asked.

    Takes its variables out of the environment, so that child processes do not speak for the
    service.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        period = environment.pop("WATCHDOG_USEC", "0")
        pid = environment.pop("WATCHDOG_PID", str(os.getpid()))
        watched = self._address and period.isdigit() and pid == str(os.getpid())
        self._feed_s = int(period) / MICROSECONDS / FEEDS if watched else 0.0
        self._fed_at = 0.0

    def ready(self, status: str) -> None:
        """The service answers now."""
        self._tell(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        """Say in words how it is."""
        self._tell(f"STATUS={text}")

    def reloading(self) -> None:
        """A reload has begun; ready() ends it."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service is about to end."""
        self._tell("STOPPING=1")

    def feed(self, now: float) -> None:
        """Give a sign of life where the watchdog is on and it is time; `now` is monotonic."""
        if self._feed_s and now - self._fed_at >= self._feed_s:
            self._fed_at = now
            self._tell("WATCHDOG=1")

    def _tell(self, message: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.settimeout(1.0)
            told.sendto(message.encode(), self._address)
