"""One production model, ready to answer: its contract, its engine, its counters."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from tickserve_client.messages import Action, ModelCard
from tickserve_registry.catalog import Entry
from tickserve_registry.model_registry import ServingModel
from tickserve_server.serving.contract import Array, InputContract
from tickserve_server.serving.engine import Engine, NativeEngine, Predict
from tickserve_server.serving.latency import LatencyHistogram

DIGEST_SHOWN = 16
WARM_UP_ROWS = 32


class GoldenRowsFailed(Exception):
    """The compiled model does not reproduce the outputs recorded when it was saved."""

    def __init__(self, *, build: str, error: float, tolerance: float) -> None:
        super().__init__(
            f"{build} does not reproduce its golden rows: off by {error:.3g}, "
            f"allowed {tolerance:.3g}"
        )
        self.build = build
        self.error = error
        self.tolerance = tolerance


class LiveModel:
    """A build in memory. Construction runs the golden rows; a failure raises and it never is.

    `native` gives the predictions of a model's own framework, for one that was not compiled.
    """

    def __init__(
        self, source: ServingModel, *, max_rows: int, native: Callable[[ServingModel], Predict]
    ) -> None:
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
            max_rows=max_rows,
        )
        shape = self.contract.row_shape
        self.engine: Engine | NativeEngine = (
            Engine(source.artefact, row_shape=shape)
            if metadata.serving.engine == "onnxruntime"
            else NativeEngine(native(source), row_shape=shape)
        )
        declared = (self.output.long_above, self.output.short_below) != (None, None)
        self._acts = declared and self.engine.outputs == 1
        self.loaded_at = time.time()
        self.latency = LatencyHistogram()
        self.predictions = 0
        self.errors: Counter[str] = Counter()
        self._prove(metadata.golden.inputs, metadata.golden.outputs, metadata.golden.tolerance)
        self._warm_up()

    def actions(self, output: Any) -> Action | list[Action] | None:
        """Return what the declared thresholds make of an output, or of a list of rows' outputs.

        None where the metadata declares no thresholds.
        """
        if not self._acts:
            return None
        return [self._act(row) for row in output] if isinstance(output, list) else self._act(output)

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
        """Return the figures that `tickserve status` shows for this build."""
        return {
            "build": self.build,
            "digest": self.digest,
            "loaded_at": self.loaded_at,
            "predictions": self.predictions,
            "errors": dict(self.errors),
            "latency": self.latency.summary(),
        }

    def _act(self, output: float) -> Action:
        above, below = self.output.long_above, self.output.short_below
        if above is not None and output > above:
            return "long"
        if below is not None and output < below:
            return "short"
        return "flat"

    def _prove(self, inputs: Any, outputs: Any, tolerance: float) -> None:
        rows: Array = np.array(inputs, dtype=np.float32).reshape(-1, *self.contract.row_shape)
        wanted = np.array(outputs, dtype=np.float64).reshape(len(rows), -1)
        error = np.abs(self.engine.run(rows) - wanted) / np.maximum(1.0, np.abs(wanted))
        worst = float(error.max(initial=0.0))
        if not worst <= tolerance:
            raise GoldenRowsFailed(build=self.build, error=worst, tolerance=tolerance)
        self.engine.row[...] = rows[:1]

    def _warm_up(self) -> None:
        for _ in range(WARM_UP_ROWS):
            self.engine.run_row()


def _nullable(allow_nan: bool | tuple[str, ...], features: tuple[str, ...]) -> frozenset[str]:
    if isinstance(allow_nan, bool):
        return frozenset(features if allow_nan else ())
    return frozenset(allow_nan)
