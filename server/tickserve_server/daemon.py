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

from tickserve_server.child import Termination
from tickserve_server.errors import ChildFailed, StorageUnusable
from tickserve_server.runtime import Runtime
from tickserve_server.settings import Settings, dump_settings

log = structlog.get_logger(__name__)

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 9.0
"""For both children together; one deadline across all steps."""

FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 10.0
STEADY_AFTER_S = 30.0
TICK_S = 0.05


class Child:
    """One child process: its lifeline, and how long to wait before it is started again."""

    def __init__(self, name: str, settings_file: Path) -> None:
        self.name = name
        self._settings_file = settings_file
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: socket.socket | None = None
        self._backoff = FIRST_BACKOFF_S
        self._started = 0.0
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
        self._lifeline = ours
        self._started = time.monotonic()

    def await_ready(self, *, interrupted: Callable[[], bool]) -> dict[str, Any]:
        """Wait until the process answers; raise ChildFailed with its own reason.

        Returns what the process told of itself, nothing when interrupted.
        """
        assert self._lifeline is not None  # noqa: S101 - start() comes first
        buffer, deadline = b"", time.monotonic() + START_TIMEOUT_S
        self._lifeline.settimeout(TICK_S)
        while time.monotonic() < deadline and not interrupted():
            try:
                received = self._lifeline.recv(65536)
            except TimeoutError:
                continue
            buffer += received
            if buffer.endswith(b"\n"):
                message: dict[str, Any] = msgspec.json.decode(buffer)
                if message["ready"]:
                    return message
                raise ChildFailed(name=self.name, reason=message["reason"])
            if not received:
                raise ChildFailed(name=self.name, reason="it ended; its log says why")
        if interrupted():
            return {}
        raise ChildFailed(name=self.name, reason=f"not ready within {START_TIMEOUT_S:g} s")

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
    commits them and writes the live figures back.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._runtime = Runtime(settings.storage_root)
        self._recorder = Child("recorder", self._runtime.settings_file)
        self._serving = Child("serving", self._runtime.settings_file)

    def run(self) -> int:
        """Start, say ready, supervise until SIGTERM or SIGINT, stop; return the exit code.

        Raises DaemonError when the service cannot start.
        """
        _require_storage(self._settings.storage_root)
        self._runtime.prepare()
        lock = self._runtime.lock()
        termination = Termination()
        self._runtime.settings_file.write_bytes(dump_settings(self._settings))
        try:
            self._start(termination)
            while not termination.requested:
                time.sleep(TICK_S)
                self._recorder.revive()
                self._serving.revive()
        finally:
            code = self._stop()
            lock.close()
        return code

    def _start(self, termination: Termination) -> None:
        began = time.monotonic()
        for child in (self._recorder, self._serving):
            child.start()
        facts: dict[str, Any] = {}
        for child in (self._recorder, self._serving):
            facts |= child.await_ready(interrupted=lambda: termination.requested)
        log.info(
            "ready",
            storage=str(self._settings.storage_root),
            predict=self._settings.endpoints.predict,
            feedback=self._settings.endpoints.feedback,
            events=self._settings.endpoints.events,
            models=facts.get("models", []),
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
