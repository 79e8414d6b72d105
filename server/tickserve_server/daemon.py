"""The supervisor: starts recorder and serving process, restarts one that dies, ends both."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from tickserve_server.child import Signals
from tickserve_server.errors import ChildFailed, StorageUnusable
from tickserve_server.runtime import Runtime
from tickserve_server.settings import Settings, dump_settings
from tickserve_server.systemd import Notifier

log = structlog.get_logger(__name__)

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 9.0
"""For both children together; one deadline across all steps."""

FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 10.0
STEADY_AFTER_S = 30.0
TICK_S = 0.05
SIGN_OF_LIFE_S = 5.0
"""How old each child's last sign of life may be when the service manager is told all is well."""


class Child:
    """One child process: its lifeline, and how long to wait before it is started again."""

    def __init__(self, name: str, settings_file: Path) -> None:
        self.name = name
        self._settings_file = settings_file
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: socket.socket | None = None
        self._backoff = FIRST_BACKOFF_S
        self._started = self._heard = 0.0
        self._told: dict[str, Any] | None = None
        self._unread = b""
        self._restart_at = 0.0
        self.restarts = 0

    def start(self) -> None:
        """Start the process; its command line says which one it is."""
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tickserve_server",
                self.name,
                "--settings",
                str(self._settings_file),
                "--lifeline",
                str(theirs.fileno()),
            ],
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        ours.setblocking(False)
        self._lifeline = ours
        self._told, self._unread = None, b""
        self._started = self._heard = time.monotonic()

    def await_ready(self, *, interrupted: Callable[[], bool]) -> dict[str, Any]:
        """Wait until the process answers; raise ChildFailed with its own reason.

        Returns what the process told of itself, nothing when interrupted.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and not interrupted():
            is_cut = not self.listen()
            if self._told is not None and self._told["ready"]:
                return self._told
            if self._told is not None:
                raise ChildFailed(name=self.name, reason=self._told["reason"])
            if is_cut:
                raise ChildFailed(name=self.name, reason="it ended; its log says why")
            time.sleep(TICK_S)
        if interrupted():
            return {}
        raise ChildFailed(name=self.name, reason=f"not ready within {START_TIMEOUT_S:g} s")

    def listen(self) -> bool:
        """Take what the process has told; return whether it can tell more."""
        is_open = self._lifeline is not None
        while is_open and self._lifeline is not None:
            try:
                received = self._lifeline.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                received = b""
            is_open = bool(received)
            self._unread += received
            self._heard = time.monotonic() if received else self._heard
        *lines, self._unread = self._unread.split(b"\n")
        for message in map(msgspec.json.decode, lines):
            self._told = message if "ready" in message else self._told
        return is_open

    def progresses(self, now: float, *, within: float) -> bool:
        """Whether the process gave a sign of life within so many seconds.

        One that has died counts as progressing: to start it anew, again and again, is the
        supervisor's work, and the other process goes on serving meanwhile.
        """
        if self._process is None or self._process.poll() is not None:
            return True
        return now - self._heard < (within if self._told else START_TIMEOUT_S)

    def hang_up(self) -> None:
        """Have the process look at its files anew."""
        if self._process is not None and self._told and self._process.poll() is None:
            self._process.send_signal(signal.SIGHUP)

    def kill_if_stuck(self, now: float, *, after: float) -> None:
        """Kill a process that lives and does not progress; it is then revived."""
        if not self.progresses(now, within=after) and self._process is not None:
            log.critical("child_stuck", child=self.name, silent_s=round(now - self._heard, 1))
            self._process.kill()
            self._process.wait()

    def revive(self) -> None:
        """Start the process again if it has died and its backoff is over."""
        if self._process is None or self._process.poll() is None:
            return
        now = time.monotonic()
        if not self._restart_at:
            if now - self._started > STEADY_AFTER_S:
                self._backoff = FIRST_BACKOFF_S
            self._restart_at = now + self._backoff
            self._backoff = min(2 * self._backoff, LONGEST_BACKOFF_S)
            log.error("child_died", child=self.name, code=self._process.returncode)
        elif now >= self._restart_at:
            self._restart_at = 0.0
            self.restarts += 1
            self._release()
            self.start()
            log.warning("child_restarted", child=self.name, restarts=self.restarts)

    def stop(self, deadline: float) -> int:
        """Ask the process to end, force it at monotonic `deadline`; return its exit code."""
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error("child_killed", child=self.name)
            process.kill()
            code = process.wait()
        self._release()
        # A process that our SIGTERM met before its handler stood had nothing yet to put in order.
        return 0 if code == -signal.SIGTERM else code

    def _release(self) -> None:
        if self._lifeline is not None:
            self._lifeline.close()
            self._lifeline = None


class Daemon:
    """Runs the service in the foreground.

    Shutdown order: the serving process, which hands its records over, then the recorder, which
    commits them and writes the live figures back. A child that dies is started again; one that
    lives and gives no sign of life is killed first. SIGHUP is passed on.
    """

    def __init__(self, settings: Settings, notifier: Notifier) -> None:
        self._settings = settings
        self._runtime = Runtime(settings.storage_root)
        self._recorder = Child("recorder", self._runtime.settings_file)
        self._serving = Child("serving", self._runtime.settings_file)
        self._children = (self._recorder, self._serving)
        self._notifier = notifier
        self._status = ""

    def run(self) -> int:
        """Start, say ready, supervise until SIGTERM or SIGINT, stop; return the exit code.

        Raises DaemonError when the service cannot start.
        """
        _require_storage(self._settings.storage_root)
        self._runtime.prepare()
        lock = self._runtime.lock()
        signals = Signals()
        self._runtime.settings_file.write_bytes(dump_settings(self._settings))
        try:
            self._start(signals)
            while not signals.end:
                time.sleep(TICK_S)
                self._supervise()
                if signals.take_hangup():
                    if sys.stdin.isatty():  # the terminal was closed
                        break
                    self._reload()
        finally:
            self._notifier.stopping()
            code = self._stop()
            lock.close()
        return code

    def _supervise(self) -> None:
        """Restart what has died, kill what is stuck, and say that all is well if it is."""
        now, stuck_s = time.monotonic(), self._settings.supervisor.stuck_seconds
        for child in self._children:
            child.listen()
            child.kill_if_stuck(now, after=stuck_s)
            child.revive()
        if all(child.progresses(now, within=SIGN_OF_LIFE_S) for child in self._children):
            self._notifier.feed(now)

    def _reload(self) -> None:
        """Have both processes look at storage and log files anew."""
        self._notifier.reloading()
        for child in self._children:
            child.hang_up()
        log.info("reload_requested")
        self._notifier.ready(self._status)

    def _start(self, signals: Signals) -> None:
        began = time.monotonic()
        self._notifier.status("starting")
        for child in self._children:
            child.start()
        facts: dict[str, Any] = {}
        for child in self._children:
            facts |= child.await_ready(interrupted=lambda: signals.end)
        if signals.end:
            return
        models = facts.get("models", [])
        self._status = f"serving at {self._settings.endpoints.predict}"
        self._notifier.ready(self._status)
        log.info(
            "ready",
            storage=str(self._settings.storage_root),
            predict=self._settings.endpoints.predict,
            feedback=self._settings.endpoints.feedback,
            events=self._settings.endpoints.events,
            models=models,
            seconds=round(time.monotonic() - began, 3),
        )

    def _stop(self) -> int:
        deadline = time.monotonic() + STOP_TIMEOUT_S
        codes = [self._serving.stop(deadline), self._recorder.stop(deadline)]
        log.info("stopped", serving=codes[0], recorder=codes[1])
        return 0 if codes == [0, 0] else 1


def _require_storage(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageUnusable(root=root, reason=error.strerror or str(error)) from error
    if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        raise StorageUnusable(root=root, reason="is not writable by this user")
