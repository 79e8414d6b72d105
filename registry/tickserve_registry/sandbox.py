"""Parses model files that nobody has parsed yet in a child process, which may crash in our stead.

`python -m tickserve_registry.sandbox` is that child: a JSON header of known length and the bytes
come on standard input, one JSON answer leaves on standard output.
"""

from __future__ import annotations

import os
import resource
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from tickserve_registry.digest import sha256
from tickserve_registry.errors import ArtefactRefused, FormatRefused, PickleRefused
from tickserve_registry.metadata import Golden
from tickserve_registry.trust import Trust

MEMORY_BYTES = 6 << 30
TORCH_MEMORY_BYTES = 24 << 30
"""Torch maps its libraries several times over; what is mapped counts."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Thread pools map memory for every core of the machine."""

CPU_S = 60
WALL_S = 120.0
_LENGTH = struct.Struct(">Q")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What the bytes are said to be, and the golden rows that they must reproduce, if any."""

    framework: str
    native_class: str
    golden: Golden = Golden()
    trust: Trust = Trust()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the child found: nothing wrong, or why the bytes are refused."""

    refused: str | None = None
    is_pickle: bool = False


class Sandbox:
    """Tries model files in a child process, each content once for what it is said to be."""

    def __init__(self) -> None:
        self._own: set[str] = set()
        self._proven: set[tuple[str, str]] = set()

    def trust(self, data: bytes) -> None:
        """Take bytes that this process has made itself for proven."""
        self._own.add(sha256(data))

    def prove(self, data: bytes, request: Request, *, path: Path) -> None:
        """Let a child load the bytes and predict the golden rows.

        Raises ArtefactRefused when it dies, takes too long or too much memory, or predicts
        something else; FormatRefused when the bytes do not parse.
        """
        trial = sha256(data), sha256(msgspec.json.encode(request))
        if trial[0] in self._own or trial in self._proven:
            return
        answer = _ask(data, request, path)
        if answer.is_pickle:
            raise PickleRefused(kind=str(path))
        if answer.refused is not None:
            raise FormatRefused(kind=str(path), problem=answer.refused)
        self._proven.add(trial)


def _ask(data: bytes, request: Request, path: Path) -> Answer:
    header = msgspec.json.encode(request)
    try:
        run = subprocess.run(
            [sys.executable, "-m", "tickserve_registry.sandbox"],
            input=_LENGTH.pack(len(header)) + header + data,
            capture_output=True,
            env=os.environ | ONE_THREAD | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            timeout=WALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        problem = f"a trial process that loaded it was not done after {WALL_S:g} s"
        raise ArtefactRefused(path=path, problem=problem) from error
    try:
        return msgspec.json.decode(run.stdout, type=Answer)
    except msgspec.MsgspecError:
        problem = f"a trial process that loaded it {_death(run)}"
        raise ArtefactRefused(path=path, problem=problem) from None


def _death(run: subprocess.CompletedProcess[bytes]) -> str:
    if run.returncode < 0:
        return f"was killed by {signal.Signals(-run.returncode).name}"
    last = run.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return f"ended with code {run.returncode} {' '.join(last)[:300]}".rstrip()


def _limit(request: Request) -> None:
    """Bound this process; it writes no file and leaves no core."""
    memory = TORCH_MEMORY_BYTES if request.framework == "pytorch" else MEMORY_BYTES
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (allowed, allowed))


def _try(data: bytes, request: Request) -> Answer:
    import numpy as np

    from tickserve_registry.formats.frameworks import load_native, native_predictor
    from tickserve_registry.parity import measure

    try:
        model = load_native(
            data,
            framework=request.framework,
            native_class=request.native_class,
            trust=request.trust,
        )
        golden = request.golden
        if not golden.inputs:
            return Answer()
        rows = np.array(golden.inputs, dtype=np.float32)
        found: Any = native_predictor(model, framework=request.framework)(rows)
    except PickleRefused:
        return Answer(is_pickle=True)
    except FormatRefused as error:
        return Answer(refused=error.problem)
    parity = measure(np.array(golden.outputs, dtype=np.float64), np.asarray(found))
    if parity.max_abs_error is None or parity.max_abs_error > golden.tolerance:
        return Answer(refused="does not reproduce the golden rows of its metadata")
    return Answer()


def main() -> None:
    """Answer one request."""
    stdin = sys.stdin.buffer
    (length,) = _LENGTH.unpack(stdin.read(_LENGTH.size))
    request = msgspec.json.decode(stdin.read(length), type=Request)
    data = stdin.read()
    _limit(request)
    # Libraries print what they like; the answer has the standard output for itself.
    out = os.dup(1)
    os.dup2(2, 1)
    os.write(out, msgspec.json.encode(_try(data, request)))


if __name__ == "__main__":
    main()
