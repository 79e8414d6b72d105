"""PyTorch modules over windows or rows, exported when they are saved; needs torch only then."""

from __future__ import annotations

import copy
import io
import sys
import warnings
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tickserve_registry.errors import FormatRefused
from tickserve_registry.formats.exported_program import require_plain, without_samples
from tickserve_registry.formats.graph import INPUT, OUTPUT, single_output
from tickserve_registry.formats.native import (
    Array,
    NativeModel,
    Predict,
    Shape,
    installed,
)
from tickserve_registry.trust import Trust

EXAMPLE_ROWS = 2
OPSET = 17


def recognises(model: Any) -> bool:
    """Whether it is a torch module."""
    module = getattr(sys.modules.get("torch.nn"), "Module", None)
    return module is not None and isinstance(model, module)


def capture(model: Any, *, shape: Shape, trust: Trust) -> NativeModel:  # noqa: ARG001 - no pickle
    """Return the module as an exported program, with its abilities; raises FormatRefused.

    Stored is torch's exported program, which holds graph and weights and needs neither the
    module's class nor a pickle to come back.
    """
    import torch

    module = copy.deepcopy(model).cpu().float().eval()
    size = (shape.window, shape.features) if shape.window else (shape.features,)
    example = torch.zeros(EXAMPLE_ROWS, *size)
    rows = torch.export.Dim("rows", min=1)
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an LSTM caches its weights while it is traced
            program = torch.export.export(module, (example,), dynamic_shapes=({0: rows},))
            torch.export.save(program, buffer)
    except Exception as error:
        problem = f"cannot be exported for inputs [rows, {', '.join(map(str, size))}] ({error})"
        raise FormatRefused(kind=f"torch {type(model).__name__}", problem=problem[:500]) from error
    return NativeModel(
        framework="pytorch",
        framework_version=installed("torch"),
        format="pt2",
        native_class=type(model).__name__,
        data=without_samples(buffer.getvalue()),
        predict=predictor(module),
        to_onnx=partial(_to_onnx, module, example),
    )


def load(data: bytes, *, native_class: str, trust: Trust) -> Any:  # noqa: ARG001 - the program knows
    """Return the module that was exported. Raises FormatRefused.

    An archive that makes torch unpickle, evaluate or look up anything is a pickle in all but
    name: PickleRefused without the opt-in.
    """
    import torch

    if not trust.allow_pickle:
        data = require_plain(data)
    try:
        return torch.export.load(io.BytesIO(data)).module()
    except Exception as error:
        problem = f"does not load ({error})"
        raise FormatRefused(kind="torch exported program", problem=problem[:500]) from error


def predictor(model: Any) -> Predict:
    """Return the module's outputs without gradients."""
    import torch

    def predict(inputs: Array) -> npt.NDArray[Any]:
        with torch.no_grad():
            found = model(torch.from_numpy(np.ascontiguousarray(inputs)))
        return np.asarray(found).reshape(len(inputs), -1)

    return predict


def _to_onnx(module: Any, example: Any, features: int) -> onnx.ModelProto:  # noqa: ARG001 - as the example
    import torch

    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            # The exporter that needs no further package calls itself the older one.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (example,),
                buffer,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "rows"}, OUTPUT: {0: "rows"}},
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:
        problem = f"no conversion ({str(error)[:300]})"
        raise FormatRefused(kind="torch module", problem=problem) from error
    return single_output(onnx.load_from_string(buffer.getvalue()))
