"""The model that will serve, as a function of rows: compiled, or its own framework's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tickserve_registry.errors import ArtefactRefused
from tickserve_registry.formats.ready_onnx import predictor_of
from tickserve_registry.metadata import Metadata
from tickserve_registry.replay import Predict

if TYPE_CHECKING:
    from tickserve_registry.model_registry import ServingModel


def served_predictor(model: ServingModel, *, native: Callable[[ServingModel], Predict]) -> Predict:
    """Return the predictions that the daemon will give, once the golden rows prove them.

    Raises ArtefactRefused when a golden row is not reproduced.
    """
    metadata = model.metadata
    if metadata.serving.engine == "onnxruntime":
        predict = predictor_of(model.artefact)
    else:
        predict = native(model)
    _prove(predict, metadata, path=Path(model.entry.file_path))
    return predict


def _prove(predict: Predict, metadata: Metadata, *, path: Path) -> None:
    golden = metadata.golden
    if not golden.inputs:
        return
    wanted = np.array(golden.outputs, dtype=np.float64).reshape(len(golden.inputs), -1)
    found = predict(np.array(golden.inputs, dtype=np.float32))
    error = np.abs(found - wanted) / np.maximum(1.0, np.abs(wanted))
    worst = float(error.max())
    if not worst <= golden.tolerance:
        problem = f"does not reproduce its golden rows (off by {worst:.3g})"
        raise ArtefactRefused(path=path, problem=problem)
