"""Native model formats: how each framework's models become bytes, come back and predict."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from tickserve_registry.errors import FormatRefused

Array = npt.NDArray[np.float32]

XGBOOST_CLASSES = ("Booster", "XGBClassifier", "XGBRegressor")


class NativeModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model in its own framework: its bytes, its class, and its own predictions.

    `predict` takes float32 inputs [rows, features] or [rows, window, features] and returns
    float outputs [rows, outputs]; a binary classifier has one output, the probability of the
    positive class.
    """

    framework: str
    framework_version: str
    native_class: str
    object: Any
    data: bytes
    predict: Callable[[Array], npt.NDArray[Any]]


def native_model(model: Any) -> NativeModel:
    """Recognise a trained model, an ONNX model, its bytes or its path.

    Raises FormatRefused naming what can be saved.
    """
    kind = type(model)
    if kind.__module__.startswith("xgboost") and kind.__name__ in XGBOOST_CLASSES:
        return _from_xgboost(model)
    if kind.__module__.startswith("onnx"):
        return _from_onnx(model.SerializeToString())
    if isinstance(model, bytes | bytearray):
        return _from_onnx(bytes(model))
    if isinstance(model, str | os.PathLike) and str(model).endswith(".onnx"):
        return _from_onnx(Path(model).read_bytes())
    problem = "cannot be saved; known are XGBoost models and ONNX models, bytes or .onnx paths"
    raise FormatRefused(kind=f"{kind.__module__}.{kind.__name__}", problem=problem)


def load_native(data: bytes, *, framework: str, native_class: str) -> Any:
    """Return the framework's own object from bytes whose digest has been checked."""
    if framework == "xgboost" and native_class in XGBOOST_CLASSES:
        import xgboost

        model = getattr(xgboost, native_class)()
        model.load_model(bytearray(data))
        return model
    if framework == "onnx":
        import onnx

        return onnx.load_from_string(data)
    raise FormatRefused(kind=f"{framework} {native_class}", problem="cannot be loaded here")


def _from_xgboost(model: Any) -> NativeModel:
    booster = model if type(model).__name__ == "Booster" else model.get_booster()

    def predict(inputs: Array) -> npt.NDArray[Any]:
        return np.asarray(booster.inplace_predict(inputs)).reshape(len(inputs), -1)

    return NativeModel(
        framework="xgboost",
        framework_version=_installed("xgboost-cpu", "xgboost"),
        native_class=type(model).__name__,
        object=booster,
        data=bytes(booster.save_raw("ubj")),
        predict=predict,
    )


def _from_onnx(data: bytes) -> NativeModel:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise FormatRefused(kind="ONNX model", problem=f"does not load ({error})") from error
    feed = session.get_inputs()[0].name
    answer = session.get_outputs()[-1].name

    def predict(inputs: Array) -> npt.NDArray[Any]:
        return np.asarray(session.run([answer], {feed: inputs})[0]).reshape(len(inputs), -1)

    return NativeModel(
        framework="onnx",
        framework_version=_installed("onnxruntime"),
        native_class="ModelProto",
        object=data,
        data=data,
        predict=predict,
    )


def _installed(*distributions: str) -> str:
    for distribution in distributions:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "unknown"
