"""Native model formats: how each framework's models become bytes, come back and predict."""

from __future__ import annotations

import json
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
    positive class. `features` are the names it was trained with, where it knows them.
    """

    framework: str
    framework_version: str
    native_class: str
    object: Any
    data: bytes
    predict: Callable[[Array], npt.NDArray[Any]]
    features: tuple[str, ...] = ()
    regression: bool = False


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
    booster = model if type(model).__name__ == "Booster" else _as_predicting(model)

    complete = model if type(model).__name__ == "Booster" else model.get_booster()
    linear = "gblinear" in _learner(booster)["gradient_booster"]["name"]

    def predict(inputs: Array) -> npt.NDArray[Any]:
        found = (
            booster.predict(_matrix(booster, inputs)) if linear else booster.inplace_predict(inputs)
        )
        return np.asarray(found).reshape(len(inputs), -1)

    return NativeModel(
        framework="xgboost",
        framework_version=_installed("xgboost-cpu", "xgboost"),
        native_class=type(model).__name__,
        object=booster,
        data=bytes(complete.save_raw("ubj")),
        predict=predict,
        features=tuple(booster.feature_names or ()),
        regression=_is_regression(booster),
    )


def _as_predicting(model: Any) -> Any:
    """Return the trees that the model's own predict uses: early stopping leaves some out."""
    if not np.isnan(model.missing):
        problem = f"takes {model.missing} for a gap; train it with NaN for gaps"
        raise FormatRefused(kind=type(model).__name__, problem=problem)
    booster = model.get_booster()
    best = booster.attr("best_iteration")
    return booster if best is None else booster[: int(best) + 1]


def _learner(booster: Any) -> dict[str, Any]:
    learner: dict[str, Any] = json.loads(booster.save_config())["learner"]
    return learner


def _matrix(booster: Any, inputs: Array) -> Any:
    import xgboost

    return xgboost.DMatrix(inputs, feature_names=booster.feature_names)


def _is_regression(booster: Any) -> bool:
    objective = _learner(booster)["objective"]["name"]
    return str(objective).startswith(("reg:", "count:", "survival:", "rank:")) and (
        objective != "reg:logistic"
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
