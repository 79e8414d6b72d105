"""The model that will serve, as a function of rows: compiled, or its own framework's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tickserve_registry.errors import ArtefactRefused
from tickserve_registry.formats.frameworks import load_native, native_predictor
from tickserve_registry.formats.ready_onnx import predictor_of
from tickserve_registry.metadata import Metadata
from tickserve_registry.replay import Predict
from tickserve_registry.trust import UNTRUSTING, Trust

if TYPE_CHECKING:
    from tickserve_registry.model_registry import ServingModel


def served_predictor(model: ServingModel, *, trust: Trust = UNTRUSTING) -> Predict:
    """Return the predictions that the daemon will give, once the golden rows prove them.

    Raises ArtefactRefused when a golden row is not reproduced.
    """
    metadata = model.metadata
    if metadata.serving.engine == "onnxruntime":
        predict = predictor_of(model.artefact)
    else:
        native_class = str(metadata.document.get("native_class"))
        loaded = load_native(
            model.artefact, framework=metadata.framework, native_class=native_class, trust=trust
        )
        predict = native_predictor(loaded, framework=metadata.framework)
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
