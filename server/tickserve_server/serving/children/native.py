"""Runs models that were not compiled by their own frameworks, in a process of their own.

Importing a framework takes a second and may hold the interpreter meanwhile, and its parser may
crash; neither may reach the serving process.
"""

from __future__ import annotations

import signal
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from tickserve_registry.errors import RegistryError
from tickserve_registry.model_registry import ServingModel
from tickserve_registry.trust import Trust
from tickserve_server.serving.children.channel import Channel, ChildDied, serve

LOAD_S = 60.0
RUN_S = 10.0

Array = npt.NDArray[np.float32]


class NativeFailed(Exception):
    """A framework could not load or run a model; `hung` where it never answered."""

    def __init__(self, *, build: str, reason: str, hung: bool = False) -> None:
        super().__init__(f"{build}: {reason}")
        self.build = build
        self.reason = reason
        self.hung = hung


class Question(msgspec.Struct, frozen=True, omit_defaults=True):
    """Load a model (`artefact`), or run one that is loaded (`inputs`, float32 of `shape`)."""

    digest: str
    framework: str = ""
    native_class: str = ""
    trust: Trust = Trust()
    artefact: bytes = b""
    shape: tuple[int, ...] = ()
    inputs: bytes = b""


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """Outputs [rows, outputs] as float32, or what went wrong; `missing` where none is loaded."""

    shape: tuple[int, ...] = ()
    outputs: bytes = b""
    error: str | None = None
    missing: bool = False


class NativeHost:
    """The serving process's side: gives each model a function from inputs to outputs."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._channel = Channel("tickserve_server.serving.children.native")

    def predict(self, source: ServingModel) -> NativePredict:
        """Load a model; raise NativeFailed."""
        metadata = source.metadata
        question = Question(
            digest=source.entry.serving_digest,
            framework=metadata.framework,
            native_class=str(metadata.document.get("native_class")),
            trust=self._trust,
            artefact=source.artefact,
        )
        return NativePredict(self._channel, source.entry.build, question)

    def close(self) -> None:
        """End the process."""
        self._channel.close()


class NativePredict:
    """One model's predictions, by whatever process holds it now; loads it again into a new one."""

    def __init__(self, channel: Channel, build: str, loading: Question) -> None:
        self._channel = channel
        self._build = build
        self._loading = loading
        self._ask(loading, LOAD_S)

    def __call__(self, batch: Array) -> Array:
        """Return outputs [rows, outputs] for inputs [rows, …]; raise NativeFailed."""
        rows = np.ascontiguousarray(batch, dtype=np.float32)
        question = Question(self._loading.digest, shape=rows.shape, inputs=rows.tobytes())
        reply = self._ask(question, RUN_S)
        if reply.missing:
            self._ask(self._loading, LOAD_S)
            reply = self._ask(question, RUN_S)
        return np.frombuffer(reply.outputs, dtype=np.float32).reshape(reply.shape)

    def _ask(self, question: Question, timeout: float) -> Reply:
        try:
            reply = msgspec.convert(self._channel.ask(question, timeout=timeout), Reply)
        except ChildDied as death:
            reason = f"the process that runs its framework {death.reason}"
            raise NativeFailed(build=self._build, reason=reason, hung=death.hung) from death
        if reply.error is not None:
            raise NativeFailed(build=self._build, reason=reply.error)
        return reply


class _Host:
    """The child's side: models by serving digest."""

    def __init__(self) -> None:
        self._models: dict[str, Any] = {}

    def answer(self, asked: Any) -> Reply:
        question = msgspec.convert(asked, Question)
        try:
            if question.artefact:
                self._models[question.digest] = _load(question)
                return Reply()
            if question.digest not in self._models:
                return Reply(missing=True)
            rows = np.frombuffer(question.inputs, dtype=np.float32).reshape(question.shape)
            found = np.asarray(self._models[question.digest](rows), dtype=np.float32)
        except RegistryError as error:
            return Reply(error=str(error))
        except Exception as error:  # noqa: BLE001 - whatever a framework raises
            return Reply(error=f"{type(error).__name__}: {error}")
        outputs = np.ascontiguousarray(found.reshape(len(rows), -1))
        return Reply(outputs.shape, outputs.tobytes())


def _load(question: Question) -> Any:
    from tickserve_registry.formats.frameworks import load_native, native_predictor

    model = load_native(
        question.artefact,
        framework=question.framework,
        native_class=question.native_class,
        trust=question.trust,
    )
    return native_predictor(model, framework=question.framework)


def main() -> None:
    """Answer until the serving process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(_Host().answer)


if __name__ == "__main__":
    main()
