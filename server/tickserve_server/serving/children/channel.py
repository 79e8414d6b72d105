"""A child process that is asked one thing at a time, over pipes, within a time limit."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import msgspec

LENGTH = struct.Struct(">Q")
READ_BYTES = 1 << 20
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Thread pools map memory for every core of the machine."""


class ChildDied(Exception):
    """The child ended, or hung and was killed; the next ask() starts another."""

    def __init__(self, reason: str, *, hung: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hung = hung


class Channel:
    """Starts `python -m module` when first asked, and again after it has died; thread-safe."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the child ahead of its first question."""
        with self._lock:
            self._running()

    def ask(self, message: Any, *, timeout: float) -> Any:
        """Return the child's answer; raise ChildDied."""
        with self._lock:
            process = self._running()
            deadline = time.monotonic() + timeout
            try:
                _write(process.stdin, msgspec.msgpack.encode(message))
                return msgspec.msgpack.decode(_read(process.stdout, deadline))
            except TimeoutError:
                self._end()
                raise ChildDied(f"did not answer within {timeout:g} s", hung=True) from None
            except (OSError, EOFError):
                raise ChildDied(self._end()) from None

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ
                | ONE_THREAD
                | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        return self._process

    def _end(self) -> str:
        """Kill the child and return how it had ended before that."""
        process, self._process = self._process, None
        if process is None:
            return "was not running"
        assert process.stdin is not None  # noqa: S101 - it was started with pipes
        assert process.stdout is not None  # noqa: S101
        process.stdout.close()
        try:
            code = process.wait(0.5)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        with contextlib.suppress(OSError):
            process.stdin.close()
        return how_it_ended(code)


def how_it_ended(code: int) -> str:
    """Return an exit code in words."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def serve(answer: Callable[[Any], Any]) -> None:
    """Answer question after question until the pipe closes: the child's side.

    Libraries print what they like, so the answers have the standard output for themselves.
    """
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for question in _questions(sys.stdin.buffer):
        _write(out, msgspec.msgpack.encode(answer(question)))


def _questions(stdin: BinaryIO) -> Iterator[Any]:
    while header := stdin.read(LENGTH.size):
        (length,) = LENGTH.unpack(header)
        yield msgspec.msgpack.decode(stdin.read(length))


def _write(pipe: Any, body: bytes) -> None:
    pipe.write(LENGTH.pack(len(body)))
    pipe.write(body)
    pipe.flush()


def _read(pipe: Any, deadline: float) -> bytes:
    (length,) = LENGTH.unpack(_exactly(pipe, LENGTH.size, deadline))
    return _exactly(pipe, length, deadline)


def _exactly(pipe: Any, length: int, deadline: float) -> bytes:
    """Read that many bytes; raise TimeoutError at the monotonic deadline, EOFError at the end."""
    fd, parts, missing = pipe.fileno(), [], length
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while missing:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            part = os.read(fd, min(missing, READ_BYTES))
            if not part:
                raise EOFError
            parts.append(part)
            missing -= len(part)
    return b"".join(parts)
