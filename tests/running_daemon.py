"""A real daemon for a test: started as a process, awaited, ended with SIGTERM."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

START_SECONDS = 60.0
STOP_SECONDS = 30.0


class Endpoints(NamedTuple):
    """Where a daemon listens."""

    predict: str
    feedback: str
    events: str

    def flags(self) -> list[str]:
        """Return the endpoints as flags of `tickserve serve`."""
        return [part for name, value in self._asdict().items() for part in (f"--{name}", value)]


def free_endpoints() -> Endpoints:
    """Return loopback endpoints that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in Endpoints._fields]
        for each in held:
            each.bind(("127.0.0.1", 0))
        return Endpoints(*(f"tcp://127.0.0.1:{each.getsockname()[1]}" for each in held))


@contextlib.contextmanager
def running_daemon(
    arguments: Sequence[str],
    *,
    ping: Sequence[str],
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `tickserve` with `arguments` in `folder` until the block ends.

    `ping` are the arguments of the `tickserve ping` that finds it ready. The end is a SIGTERM,
    after which the exit code must be 0. Its log is `daemon.log` in `folder`.
    """
    command = [sys.executable, "-m", "tickserve_server"]
    surroundings = {**os.environ, "XDG_RUNTIME_DIR": str(folder), **(environment or {})}
    with (folder / "daemon.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *arguments], cwd=folder, env=surroundings, stdout=log, stderr=log
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while (
                subprocess.run(
                    [*command, "ping", *ping],
                    cwd=folder,
                    env=surroundings,
                    capture_output=True,
                    check=False,
                ).returncode
                != 0
            ):
                told = (folder / "daemon.log").read_text(encoding="utf-8")
                assert process.poll() is None, told
                assert time.monotonic() < deadline, told
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=STOP_SECONDS) == 0
        finally:
            process.kill()
            process.wait()
