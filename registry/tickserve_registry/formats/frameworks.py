"""The frameworks whose models can be saved: which one a model is of, and its way back."""

from __future__ import annotations

from typing import Any

from tickserve_registry.errors import FormatRefused, RegistryError
from tickserve_registry.formats import (
    lightgbm_models,
    pytorch,
    ready_onnx,
    scikit_learn,
    xgboost_models,
)
from tickserve_registry.formats.native import Framework, NativeModel, Predict, Shape
from tickserve_registry.trust import Trust

FRAMEWORKS: dict[str, Framework] = {
    "xgboost": xgboost_models,
    "lightgbm": lightgbm_models,
    "scikit-learn": scikit_learn,
    "pytorch": pytorch,
    "onnx": ready_onnx,
}


def native_model(model: Any, *, shape: Shape, trust: Trust) -> NativeModel:
    """Recognise a trained model; raises FormatRefused naming what can be saved."""
    for framework in FRAMEWORKS.values():
        if framework.recognises(model):
            return _captured(framework, model, shape=shape, trust=trust)
    kind = type(model)
    problem = (
        "cannot be saved; known are models of XGBoost, LightGBM, scikit-learn and PyTorch, "
        "and ONNX models, bytes or .onnx paths"
    )
    raise FormatRefused(kind=f"{kind.__module__}.{kind.__name__}", problem=problem)


def _captured(framework: Framework, model: Any, *, shape: Shape, trust: Trust) -> NativeModel:
    """Translate what a framework raises for a model that is not trained, and the like."""
    try:
        return framework.capture(model, shape=shape, trust=trust)
    except RegistryError:
        raise
    except Exception as error:
        problem = f"cannot be saved ({type(error).__name__}: {error})"
        raise FormatRefused(kind=type(model).__name__, problem=problem[:500]) from error


def load_native(data: bytes, *, framework: str, native_class: str, trust: Trust) -> Any:
    """Return the framework's own object from bytes whose digest has been checked.

    Raises FormatRefused, also when the framework is not installed.
    """
    try:
        return _known(framework).load(data, native_class=native_class, trust=trust)
    except ModuleNotFoundError as error:
        problem = f"needs {error.name}, which is not installed"
        raise FormatRefused(kind=f"{framework} {native_class}", problem=problem) from error


def native_predictor(model: Any, *, framework: str) -> Predict:
    """Return the predictions of a framework's own object."""
    return _known(framework).predictor(model)


def feature_names(model: Any) -> tuple[str, ...]:
    """Return the names of the features that a model was trained with, where it knows them."""
    for attribute in ("feature_names", "feature_names_in_"):
        names = getattr(model, attribute, None)
        if names is not None and not callable(names):
            return tuple(map(str, names))
    return ()


def _known(framework: str) -> Framework:
    found = FRAMEWORKS.get(framework)
    if found is None:
        problem = f"no such framework; known are {', '.join(FRAMEWORKS)}"
        raise FormatRefused(kind=framework, problem=problem)
    return found
