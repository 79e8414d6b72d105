"""Ready ONNX models over rows or windows, given as an object, as bytes or as a path."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tickserve_registry.errors import FormatRefused
from tickserve_registry.formats.graph import (
    HIGHEST_OPSET,
    INPUT,
    opset_of,
    rename,
    single_output,
)
from tickserve_registry.formats.native import Array, NativeModel, Predict, Shape, installed
from tickserve_registry.telemetry import silence_telemetry
from tickserve_registry.trust import Trust

SUFFIX = ".onnx"
ROW_RANK, WINDOW_RANK = 2, 3


def recognises(model: Any) -> bool:
    """Whether it is an ONNX model, bytes, or the path of an .onnx file."""
    is_path = isinstance(model, str | os.PathLike) and str(model).endswith(SUFFIX)
    is_proto = type(model).__module__.startswith("onnx") and type(model).__name__ == "ModelProto"
    return is_path or is_proto or isinstance(model, bytes | bytearray)


def capture(model: Any, *, shape: Shape, trust: Trust) -> NativeModel:  # noqa: ARG001 - all is in it
    """Return the model with its bytes and abilities; raises FormatRefused."""
    data = _bytes(model)
    return NativeModel(
        framework="onnx",
        framework_version=installed("onnxruntime"),
        format="onnx",
        native_class="ModelProto",
        data=data,
        predict=predictor_of(data),
        to_onnx=partial(_to_onnx, data),
    )


def load(data: bytes, *, native_class: str, trust: Trust) -> onnx.ModelProto:  # noqa: ARG001 - as above
    """Return the ONNX model; raises FormatRefused."""
    return _parse(data)


def predictor(model: onnx.ModelProto) -> Predict:
    """Return predictions of the model's last output."""
    return predictor_of(model.SerializeToString())


def run_once(data: bytes, rows: Array) -> npt.NDArray[Any]:
    """Return a model's last output for inputs, [rows, outputs]; raises FormatRefused."""
    return predictor_of(data)(rows)


def _bytes(model: Any) -> bytes:
    if isinstance(model, bytes | bytearray):
        return bytes(model)
    if isinstance(model, str | os.PathLike):
        try:
            return Path(model).read_bytes()
        except OSError as error:
            raise FormatRefused(kind=str(model), problem=error.strerror or str(error)) from error
    data: bytes = model.SerializeToString()
    return data


def predictor_of(data: bytes) -> Predict:
    """Return the predictions of a model's last output; raises FormatRefused."""
    silence_telemetry(os.environ)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # converters declare shapes of labels that nobody reads
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise FormatRefused(kind="ONNX model", problem=f"does not load ({error})") from error
    feed = session.get_inputs()[0].name
    answer = session.get_outputs()[-1].name

    def predict(inputs: Array) -> npt.NDArray[Any]:
        return np.asarray(session.run([answer], {feed: inputs})[0]).reshape(len(inputs), -1)

    return predict


def _parse(data: bytes) -> onnx.ModelProto:
    try:
        return onnx.load_from_string(data)
    except Exception as error:
        raise FormatRefused(kind="ONNX model", problem=f"does not parse ({error})") from error


def _to_onnx(data: bytes, features: int) -> onnx.ModelProto:  # noqa: ARG001 - the graph knows it
    model = _parse(data)
    if len(model.graph.input) != 1:
        problem = f"has {len(model.graph.input)} inputs; one float32 tensor is served"
        raise FormatRefused(kind="ONNX model", problem=problem)
    feed = model.graph.input[0]
    tensor = feed.type.tensor_type
    is_float = tensor.elem_type == onnx.TensorProto.FLOAT
    if not is_float or len(tensor.shape.dim) not in {ROW_RANK, WINDOW_RANK}:
        problem = "its input must be float32 [rows, features] or [rows, window, features]"
        raise FormatRefused(kind="ONNX model", problem=problem)
    if any(each.data_location == onnx.TensorProto.EXTERNAL for each in model.graph.initializer):
        raise FormatRefused(kind="ONNX model", problem="keeps weights outside the file")
    if (opset_of(model) or 0) > HIGHEST_OPSET:
        problem = f"uses operator set {opset_of(model)}; export it with {HIGHEST_OPSET} or lower"
        raise FormatRefused(kind="ONNX model", problem=problem)
    rename(model, feed.name, INPUT)
    return single_output(model)
