"""One production model, ready to answer: its contract, its engine, its counters."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from tickserve_client.messages import Action, ModelCard
from tickserve_registry.catalog import Entry
from tickserve_registry.metadata import Golden, Metadata
from tickserve_registry.model_registry import ServingModel
from tickserve_registry.naming import milliseconds_of, parse_build
from tickserve_server.latency import LatencyHistogram
from tickserve_server.serving.children.native import NativeFailed
from tickserve_server.serving.contract import Array, InputContract
from tickserve_server.serving.engine import Engine, NativeEngine, Predict
from tickserve_server.serving.golden import golden_error
from tickserve_server.serving.parts import Parts
from tickserve_server.serving.plan import Ask, compile_row
from tickserve_server.serving.refusal import Refusal
from tickserve_server.settings import ServingSettings

DIGEST_SHOWN = 16
WARM_UP_ROWS = 32
STRIKES_S = 60.0
SLOW_ROW_NS = 1_000_000
"""A model that takes longer for one row is asked off the loop, so that it delays no other."""


class GoldenRowsFailed(Exception):
    """The loaded model does not reproduce the outputs recorded when it was saved."""

    def __init__(self, *, build: str, error: float, tolerance: float) -> None:
        super().__init__(
            f"{build} does not reproduce its golden rows: off by {error:.3g}, "
            f"allowed {tolerance:.3g}"
        )
        self.build = build
        self.error = error
        self.tolerance = tolerance


def row_shape_of(metadata: Metadata) -> tuple[int, ...]:
    """Return the shape of one input: [features], or [window, features]."""
    width = len(metadata.features)
    return (metadata.input.length, width) if metadata.input.kind == "window" else (width,)


class LiveModel:
    """A build in memory. Construction runs the golden rows; a failure raises and it never is.

    `native` gives the predictions of a model's own framework, for one that was not compiled.
    """

    def __init__(
        self,
        source: ServingModel,
        limits: ServingSettings,
        *,
        native: Callable[[ServingModel], Predict],
    ) -> None:
        began = time.perf_counter()
        metadata = source.metadata
        self.entry: Entry = source.entry
        self.build = source.entry.build
        self.model_id = source.entry.model_id
        self.digest = source.entry.serving_digest[:DIGEST_SHOWN]
        self.document: dict[str, Any] = metadata.document
        self.output = metadata.output
        self.contract = InputContract(
            metadata.features,
            window=metadata.input.length if metadata.input.kind == "window" else 0,
            nullable=_nullable(metadata.input.allow_nan, metadata.features),
            max_rows=limits.max_rows,
            max_tensor_rows=limits.max_tensor_rows,
        )
        shape = self.contract.row_shape
        self.engine: Engine | NativeEngine = (
            Engine(source.artefact, row_shape=shape)
            if metadata.serving.engine == "onnxruntime"
            else NativeEngine(native(source), row_shape=shape)
        )
        declared = (self.output.long_above, self.output.short_below) != (None, None)
        self.acts = declared and self.engine.outputs == 1
        self._long_above = _or(self.output.long_above, math.inf)
        self._short_below = _or(self.output.short_below, -math.inf)
        self.stale_after_ms = _stale_after_ms(self.build, limits.stale_after_bars)
        self.loaded_at = time.time()
        self.latency = LatencyHistogram()
        self.predictions = 0
        self.errors: Counter[str] = Counter()
        self.quarantined: str | None = None
        self._terminated = False
        self._runs: dict[object, float] = {}
        self._strikes: deque[float] = deque(maxlen=limits.failure_limit)
        self._golden = metadata.golden
        self._prove(metadata.golden)
        self.ask: Ask | None = None
        self.is_slow = True
        if isinstance(self.engine, Engine):
            self.is_slow = self._warm_up(self.engine) > SLOW_ROW_NS
            if not (self.contract.window or self.is_slow):
                self.ask = compile_row(self.contract, self.engine)
        self.load_seconds = time.perf_counter() - began

    def act(self, output: float) -> Action:
        """Return what the thresholds make of an output, for a model that `acts`."""
        if output > self._long_above:
            return "long"
        return "short" if output < self._short_below else "flat"

    def row(self) -> tuple[bytes, bytes]:
        """Return inputs and outputs of the row asked last, float32 little-endian."""
        assert isinstance(self.engine, Engine)  # noqa: S101 - only such a model is asked by row
        return self.engine.row_and_answer()

    def non_finite(self) -> Refusal:
        """Return the refusal of an output that is not finite."""
        self._strike("it put out numbers that are not finite")
        return Refusal(
            "internal", f"{self.build} put out a number that is not finite", build=self.build
        )

    def failed(self, error: Exception) -> Refusal:
        """Return the refusal that a failed run stands for."""
        if self._terminated or (isinstance(error, NativeFailed) and error.hung):
            self.quarantine("it did not return in time")
        else:
            self._strike("its runs failed")
        reason = f"{type(error).__name__}: {error}"
        return Refusal(
            "internal", f"{self.build} failed: {reason}", build=self.build, reason=reason
        )

    def run(self, batch: Array, parts: Parts) -> Array:
        """Run inputs [rows, …] on any thread; return outputs [rows, outputs]."""
        key = object()
        self._runs[key] = time.monotonic()
        try:
            return parts.run(self.engine.run, batch)
        finally:
            del self._runs[key]

    def is_overdue(self, begun_before: float) -> bool:
        """Whether a run that began before that monotonic time is still under way."""
        return any(begun < begun_before for begun in list(self._runs.values()))

    def terminate(self, on: bool) -> None:
        """Make the runs under way fail, and every later one until it is taken back."""
        self._terminated = on
        if isinstance(self.engine, Engine):
            self.engine.terminate(on)

    def _strike(self, reason: str) -> None:
        """Count a failure; too many within a minute end the service of this build."""
        now = time.monotonic()
        self._strikes.append(now)
        if len(self._strikes) == self._strikes.maxlen and now - self._strikes[0] < STRIKES_S:
            count = self._strikes.maxlen
            self.quarantine(f"{reason}, {count} times within {STRIKES_S:g} s")

    def quarantine(self, reason: str) -> None:
        """Answer no more, and say why, until the build is loaded anew."""
        self.quarantined = reason
        self.ask = None

    def test_itself(self) -> None:
        """Run the first golden row again; a model that gives another output now is quarantined."""
        golden = self._golden
        try:
            error = golden_error(
                self.engine.run,
                golden.inputs[:1],
                golden.outputs[:1],
                row_shape=self.contract.row_shape,
            )
        except Exception as error_:  # noqa: BLE001 - whatever an engine raises
            self.failed(error_)
            return
        if not error <= golden.tolerance:
            self.quarantine(f"it no longer reproduces a golden row: off by {error:.3g}")

    def require_sound(self) -> None:
        """Raise Refusal where the build is in quarantine."""
        if self.quarantined is not None:
            raise Refusal(
                "not_ready",
                f"{self.build} is in quarantine: {self.quarantined}",
                reason=self.quarantined,
                quarantined=True,
            )

    def card(self) -> ModelCard:
        """Return what a bot must know to ask this model."""
        return ModelCard(
            build=self.build,
            model_id=self.model_id,
            family=self.entry.family,
            digest=self.digest,
            features=list(self.contract.features),
            input=self.document.get("input") or {},
            output=self.document.get("output") or {},
        )

    def status(self) -> dict[str, Any]:
        """Return the figures of this build since it was loaded; `latency` as LatencyHistogram's."""
        return {
            "build": self.build,
            "digest": self.digest,
            "loaded_at": self.loaded_at,
            "load_seconds": self.load_seconds,
            "engine": "onnxruntime" if isinstance(self.engine, Engine) else "native",
            "predictions": self.predictions,
            "errors": dict(self.errors),
            "quarantined": self.quarantined,
            "latency": self.latency.dump(),
        }

    def _prove(self, golden: Golden) -> None:
        error = golden_error(
            self.engine.run, golden.inputs, golden.outputs, row_shape=self.contract.row_shape
        )
        if not error <= golden.tolerance:
            raise GoldenRowsFailed(build=self.build, error=error, tolerance=golden.tolerance)

    @staticmethod
    def _warm_up(engine: Engine) -> int:
        """Run the row until it is warm; return the shortest time in nanoseconds."""
        run, durations = engine.bound_run(), []
        for _ in range(WARM_UP_ROWS):
            started = time.perf_counter_ns()
            run()
            durations.append(time.perf_counter_ns() - started)
        return min(durations)


def _or(threshold: float | None, otherwise: float) -> float:
    return otherwise if threshold is None else threshold


def _stale_after_ms(build: str, bars: float) -> int | None:
    """Return how old a bar may be, in milliseconds; None where any may."""
    name, _ = parse_build(build)
    return round(bars * milliseconds_of(name.timeframe)) if bars else None


def _nullable(allow_nan: bool | tuple[str, ...], features: tuple[str, ...]) -> frozenset[str]:
    if isinstance(allow_nan, bool):
        return frozenset(features if allow_nan else ())
    return frozenset(allow_nan)
