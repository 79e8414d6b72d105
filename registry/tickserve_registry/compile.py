"""Compiling a native model to ONNX with one float32 `input` and one float32 `output`."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from tickserve_registry.errors import FormatRefused
from tickserve_registry.formats import NativeModel

INPUT, OUTPUT = "input", "output"
OPSET = 18
ROW_RANK, WINDOW_RANK = 2, 3


def compile_model(native: NativeModel, *, features: int) -> onnx.ModelProto:
    """Return the model as ONNX; raise FormatRefused where it cannot be converted.

    The output is [rows, outputs]: one column for a regression or for a binary classifier's
    probability of the positive class, else one for each class.
    """
    model = (
        _from_xgboost(native.object, features=features)
        if native.framework == "xgboost"
        else _from_onnx(native.data)
    )
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise FormatRefused(kind="ONNX model", problem=f"is not valid ({error})") from error
    return model


def input_shape(model: onnx.ModelProto) -> tuple[int | None, ...]:
    """Return the dimensions after the rows; None where the graph leaves one open."""
    dimensions = model.graph.input[0].type.tensor_type.shape.dim[1:]
    return tuple(each.dim_value or None for each in dimensions)


def opset_of(model: onnx.ModelProto) -> int | None:
    """Return the version of the default operator set, if the graph uses it."""
    return next((each.version for each in model.opset_import if not each.domain), None)


def _from_xgboost(booster: Any, *, features: int) -> onnx.ModelProto:
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    plain = booster.copy()
    plain.feature_names = None
    plain.feature_types = None
    try:
        model: onnx.ModelProto = convert_xgboost(
            plain, initial_types=[(INPUT, FloatTensorType([None, features]))], target_opset=15
        )
    except Exception as error:
        raise FormatRefused(kind="XGBoost model", problem=f"no conversion ({error})") from error
    return _single_output(model)


def _from_onnx(data: bytes) -> onnx.ModelProto:
    model = onnx.load_from_string(data)
    if len(model.graph.input) != 1:
        problem = f"has {len(model.graph.input)} inputs; one float32 tensor is served"
        raise FormatRefused(kind="ONNX model", problem=problem)
    feed = model.graph.input[0]
    tensor = feed.type.tensor_type
    if tensor.elem_type != onnx.TensorProto.FLOAT or len(tensor.shape.dim) not in {
        ROW_RANK,
        WINDOW_RANK,
    }:
        problem = "its input must be float32 [rows, features] or [rows, window, features]"
        raise FormatRefused(kind="ONNX model", problem=problem)
    if any(each.data_location == onnx.TensorProto.EXTERNAL for each in model.graph.initializer):
        raise FormatRefused(kind="ONNX model", problem="keeps weights outside the file")
    if (opset_of(model) or 0) > OPSET:
        problem = f"uses operator set {opset_of(model)}; export it with {OPSET} or lower"
        raise FormatRefused(kind="ONNX model", problem=problem)
    _rename(model, feed.name, INPUT)
    return _single_output(model)


def _single_output(model: onnx.ModelProto) -> onnx.ModelProto:
    """Keep the last output alone (probabilities follow labels) and call it `output`."""
    graph = model.graph
    kept = graph.output[-1]
    if kept.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise FormatRefused(kind="ONNX model", problem="its last output is no float32 tensor")
    columns = kept.type.tensor_type.shape.dim[-1].dim_value if len(graph.output) > 1 else 0
    binary = len(graph.output) > 1 and columns in {0, 2} and _is_binary(graph)
    name = kept.name
    del graph.output[:]
    if binary:
        _append_positive_class(model, name)
    else:
        _rename(model, name, OUTPUT)
    graph.output.append(_output_info())
    return model


def _output_info() -> onnx.ValueInfoProto:
    shape = ["rows", "outputs"]
    return onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, shape)


def _is_binary(graph: onnx.GraphProto) -> bool:
    """Whether a classifier of two classes makes the probabilities."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in {"classlabels_int64s", "classlabels_ints"}:
                return len(attribute.ints) == 2  # noqa: PLR2004 - two classes are what binary means
            if attribute.name == "classlabels_strings":
                return len(attribute.strings) == 2  # noqa: PLR2004 - as above
    return False


def _append_positive_class(model: onnx.ModelProto, probabilities: str) -> None:
    bounds = {"positive_from": 1, "positive_to": 2, "class_axis": 1}
    for name, value in bounds.items():
        array = np.array([value], dtype=np.int64)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model.graph.node.append(onnx.helper.make_node("Slice", [probabilities, *bounds], [OUTPUT]))
    if opset_of(model) is None:
        model.opset_import.append(onnx.helper.make_opsetid("", 15))


def _rename(model: onnx.ModelProto, old: str, new: str) -> None:
    if old == new:
        return
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.name == old:
            value.name = new
