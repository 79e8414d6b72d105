"""Tries compiled models in forks of a warm process: a file that crashes ends a fork, not us.

`python -m tickserve_server.serving.children.prover` is the warm process: it has imported ONNX
Runtime, which takes a third of a second, and forks in milliseconds.
"""

from __future__ import annotations

import os
import resource
import select
import signal
from collections.abc import Sequence
from typing import Any

import msgspec

from tickserve_server.serving.children.channel import Channel, ChildDied, how_it_ended, serve

MEMORY_BYTES = 8 << 30
CPU_S = 60
WALL_S = 30.0
"""For one model; a fork that takes longer is killed."""

ANSWER_S = 600.0


class Trial(msgspec.Struct, frozen=True):
    """A compiled model's bytes and the golden rows that it must reproduce.

    `inputs` are flat rows of `row_shape`, `outputs` flat rows of the model's outputs.
    """

    artefact: bytes
    row_shape: tuple[int, ...]
    inputs: Any
    outputs: Any
    tolerance: float


class Prover:
    """The serving process's side."""

    def __init__(self) -> None:
        self._channel = Channel("tickserve_server.serving.children.prover")

    def start(self) -> None:
        """Warm the process up, ahead of the first trial."""
        self._channel.start()

    def prove(self, trials: Sequence[Trial]) -> list[str | None]:
        """Return for each trial what is wrong with the model, or None."""
        if not trials:
            return []
        try:
            found = self._channel.ask(list(trials), timeout=ANSWER_S)
        except ChildDied as death:
            return [f"the process that tries models {death.reason}"] * len(trials)
        return msgspec.convert(found, list[str | None])

    def close(self) -> None:
        """End the process."""
        self._channel.close()


def judge(trial: Trial) -> str | None:
    """Load a model and compare its golden rows; return what is wrong."""
    from tickserve_server.serving.engine import Engine
    from tickserve_server.serving.golden import golden_error

    engine = Engine(trial.artefact, row_shape=trial.row_shape)
    error = golden_error(engine.run, trial.inputs, trial.outputs, row_shape=trial.row_shape)
    if not error <= trial.tolerance:
        return (
            f"does not reproduce its golden rows: off by {error:.3g}, allowed {trial.tolerance:g}"
        )
    return None


def _answer(question: Any) -> list[str | None]:
    """Judge all trials in as few forks as possible; one that dies is blamed on its trial."""
    trials = msgspec.convert(question, list[Trial])
    verdicts: list[str | None] = []
    while len(verdicts) < len(trials):
        verdicts += _fork(trials[len(verdicts) :])
    return verdicts


def _fork(trials: Sequence[Trial]) -> list[str | None]:
    """Judge trials in order in one fork, up to the first that ends it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _judge_all(trials, writing)
    os.close(writing)
    verdicts: list[str | None] = []
    buffer = b""
    late = False
    while not late and (received := _receive(reading)) != b"":
        late = received is None
        buffer += received or b""
        *lines, buffer = buffer.split(b"\n")
        verdicts += [msgspec.json.decode(line) for line in lines]
    os.close(reading)
    if late:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if len(verdicts) < len(trials):
        how = how_it_ended(os.waitstatus_to_exitcode(status))
        reason = f"was not done after {WALL_S:g} s" if late else how
        verdicts.append(f"a trial process that loaded it {reason}")
    return verdicts


def _receive(fd: int) -> bytes | None:
    """Return what comes next, nothing at the end, or None when nothing comes in time."""
    ready, _, _ = select.select([fd], [], [], WALL_S)
    return os.read(fd, 65536) if ready else None


def _judge_all(trials: Sequence[Trial], writing: int) -> None:
    """Be the fork: judge, tell each verdict on a line, and end without cleaning up."""
    for what, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (allowed, allowed))
    for trial in trials:
        try:
            verdict = judge(trial)
        except Exception as error:  # noqa: BLE001 - whatever a file makes the engine raise
            verdict = f"cannot be loaded: {str(error)[:500]}"
        os.write(writing, msgspec.json.encode(verdict) + b"\n")
    os._exit(0)


def main() -> None:
    """Import what trials need, then answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import onnxruntime  # noqa: F401 - warm

    from tickserve_server.serving import engine, golden  # noqa: F401 - warm

    serve(_answer)


if __name__ == "__main__":
    main()
