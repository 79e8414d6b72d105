"""Compiling a native model to ONNX with one float32 `input` and one float32 `output`."""

from __future__ import annotations

import onnx

from tickserve_registry.errors import FormatRefused
from tickserve_registry.formats.native import NativeModel


def compile_model(native: NativeModel, *, features: int) -> onnx.ModelProto:
    """Return the model as ONNX; raise FormatRefused where it cannot be converted.

    The output is [rows, outputs]: one column for a regression or for a binary classifier's
    probability of the positive class, else one for each class.
    """
    model = native.to_onnx(features)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise FormatRefused(kind="ONNX model", problem=f"is not valid ({error})") from error
    return model


def input_shape(model: onnx.ModelProto) -> tuple[int | None, ...]:
    """Return the dimensions after the rows; None where the graph leaves one open."""
    dimensions = model.graph.input[0].type.tensor_type.shape.dim[1:]
    return tuple(each.dim_value or None for each in dimensions)
