"""XGBoost models: Booster, XGBClassifier and XGBRegressor, stored as UBJSON."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.helper
import onnx.numpy_helper

from tickserve_registry.errors import FormatRefused
from tickserve_registry.formats.graph import INPUT, Transform, model_of, transform_nodes
from tickserve_registry.formats.native import (
    NO_SPLITS,
    Array,
    NativeModel,
    Predict,
    Shape,
    installed,
)
from tickserve_registry.formats.trees import MARGIN, Tree, ensemble, splits_of
from tickserve_registry.metadata import OutputKind
from tickserve_registry.trust import Trust

CLASSES = ("Booster", "XGBClassifier", "XGBRegressor")
REFERENCE_ROWS = 64
REFERENCE_SEED = 7
BASE_TOLERANCE = 1e-4

TRANSFORMS: dict[str, Transform] = {
    "binary:logistic": "sigmoid",
    "reg:logistic": "sigmoid",
    "binary:hinge": "positive",
    "multi:softprob": "softmax",
    "multi:softmax": "argmax",
    "reg:gamma": "exp",
    "reg:tweedie": "exp",
    "count:poisson": "exp",
    "survival:cox": "exp",
    "survival:aft": "exp",
    "binary:logitraw": "identity",
    "reg:squarederror": "identity",
    "reg:squaredlogerror": "identity",
    "reg:absoluteerror": "identity",
    "reg:pseudohubererror": "identity",
    "reg:quantileerror": "identity",
    "rank:ndcg": "identity",
    "rank:map": "identity",
    "rank:pairwise": "identity",
}
"""What an objective does with the margin, after XGBoost's parameter reference."""

PROBABILITIES = ("binary:logistic", "reg:logistic")


def recognises(model: Any) -> bool:
    """Whether it is one of XGBoost's models."""
    kind = type(model)
    return kind.__module__.startswith("xgboost") and kind.__name__ in CLASSES


def capture(model: Any, *, shape: Shape, trust: Trust) -> NativeModel:  # noqa: ARG001 - no choice
    """Return the model with its bytes and abilities; raises FormatRefused."""
    native_class = type(model).__name__
    complete = model if native_class == "Booster" else model.get_booster()
    booster = _as_predicting(model)
    learner = _learner(booster)
    objective = learner["objective"]["name"]
    return NativeModel(
        framework="xgboost",
        framework_version=installed("xgboost-cpu", "xgboost"),
        format="ubj",
        native_class=native_class,
        data=bytes(complete.save_raw("ubj")),
        predict=predictor(model),
        to_onnx=partial(_to_onnx, booster),
        features=tuple(booster.feature_names or ()),
        width=int(booster.num_features()),
        output_kind=_output_kind(objective),
        splits=splits_of(_trees(learner)) if _is_readable(learner) else NO_SPLITS,
    )


def load(data: bytes, *, native_class: str, trust: Trust) -> Any:  # noqa: ARG001 - UBJSON is safe
    """Return the Booster, classifier or regressor; raises FormatRefused."""
    import xgboost

    if native_class not in CLASSES:
        raise FormatRefused(kind=f"XGBoost {native_class}", problem=f"is none of {CLASSES}")
    model = getattr(xgboost, native_class)()
    try:
        model.load_model(bytearray(data))
    except xgboost.core.XGBoostError as error:
        problem = f"does not parse ({str(error).splitlines()[0][:200]})"
        raise FormatRefused(kind="XGBoost file", problem=problem) from error
    return model


def predictor(model: Any) -> Predict:
    """Return predictions of the trees that the model's own predict uses."""
    booster = _as_predicting(model).copy()  # the caller's keeps its threads
    booster.set_param({"nthread": 1})
    linear = _learner(booster)["gradient_booster"]["name"] == "gblinear"

    def predict(inputs: Array) -> npt.NDArray[Any]:
        found = booster.predict(_matrix(booster, inputs)) if linear else _in_place(booster, inputs)
        return np.asarray(found).reshape(len(inputs), -1)

    return predict


def _in_place(booster: Any, inputs: Array) -> Any:
    return booster.inplace_predict(inputs, validate_features=False)


def _as_predicting(model: Any) -> Any:
    """Return the trees that the model's own predict uses: early stopping leaves some out."""
    if type(model).__name__ == "Booster":
        return model
    if not np.isnan(model.missing):
        problem = f"takes {model.missing} for a gap; train it with NaN for gaps"
        raise FormatRefused(kind=type(model).__name__, problem=problem)
    booster = model.get_booster()
    best = booster.attr("best_iteration")
    return booster if best is None else booster[: int(best) + 1]


def _learner(booster: Any) -> dict[str, Any]:
    learner: dict[str, Any] = json.loads(booster.save_raw("json"))["learner"]
    return learner


def _matrix(booster: Any, inputs: Array) -> Any:
    import xgboost

    return xgboost.DMatrix(
        inputs,
        feature_names=booster.feature_names,
        feature_types=booster.feature_types,
        enable_categorical=True,
        nthread=1,
    )


def _output_kind(objective: str) -> OutputKind | None:
    if objective in PROBABILITIES:
        return "probability"
    return "classes" if objective.startswith("multi:") else "regression"


def _to_onnx(booster: Any, features: int) -> onnx.ModelProto:
    learner = _learner(booster)
    transform = TRANSFORMS.get(learner["objective"]["name"])
    if transform is None:
        problem = f"the objective {learner['objective']['name']} is not compiled"
        raise FormatRefused(kind="XGBoost model", problem=problem)
    if learner["gradient_booster"]["name"] == "gblinear":
        return _linear(booster, learner, features=features, transform=transform)
    if not _is_readable(learner):
        problem = "categorical splits and trees of several targets are not compiled"
        raise FormatRefused(kind="XGBoost model", problem=problem)
    trees = _trees(learner)
    groups = _groups(learner)
    rows = _reference_rows(features)
    raw = ensemble(
        trees, features=features, base=[0.0] * groups, branch="BRANCH_LT", transform="identity"
    )
    base = _base(booster, rows, _run(raw, rows))
    return ensemble(
        trees, features=features, base=base.tolist(), branch="BRANCH_LT", transform=transform
    )


def _linear(
    booster: Any, learner: dict[str, Any], *, features: int, transform: Transform
) -> onnx.ModelProto:
    weights = np.array(learner["gradient_booster"]["model"]["weights"], dtype=np.float32)
    table = weights.reshape(features + 1, _groups(learner))
    rows = _reference_rows(features)
    base = _base(booster, rows, rows @ table[:-1])
    initializers = [
        onnx.numpy_helper.from_array(table[:-1].copy(), "weights"),
        onnx.numpy_helper.from_array(base.astype(np.float32), "base"),
    ]
    adding = onnx.helper.make_node("Gemm", [INPUT, "weights", "base"], [MARGIN])
    nodes = [adding, *transform_nodes(transform, MARGIN)]
    return model_of(nodes, features=features, initializers=initializers)


def _base(booster: Any, rows: Array, sums: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return what XGBoost adds to the sums, one value for each output.

    Measured, for each version keeps it in its own way; that it is the same on every row proves
    that the model has been read as XGBoost reads it.
    """
    margins = booster.predict(_matrix(booster, rows), output_margin=True, validate_features=False)
    found = margins.reshape(len(rows), -1).astype(np.float64) - sums
    base: npt.NDArray[np.float64] = np.median(found, axis=0)
    scale = np.maximum(1.0, np.abs(margins).max())
    if not (np.abs(found - base) <= BASE_TOLERANCE * scale).all():
        problem = "its trees do not add up to its margins"
        raise FormatRefused(kind="XGBoost model", problem=problem)
    return base


def _run(model: onnx.ModelProto, rows: Array) -> npt.NDArray[Any]:
    from tickserve_registry.formats.ready_onnx import run_once

    return run_once(model.SerializeToString(), rows)


def _reference_rows(features: int) -> Array:
    random = np.random.default_rng(REFERENCE_SEED)
    return random.normal(size=(REFERENCE_ROWS, features)).astype(np.float32)


def _groups(learner: dict[str, Any]) -> int:
    parameters = learner["learner_model_param"]
    return max(1, int(parameters["num_class"]), int(parameters.get("num_target", 1)))


def _model(learner: dict[str, Any]) -> dict[str, Any]:
    booster = learner["gradient_booster"]
    model: dict[str, Any] = (booster.get("gbtree") or booster)["model"]
    return model


def _is_readable(learner: dict[str, Any]) -> bool:
    """Whether all splits are numeric and every leaf has one value."""
    if learner["gradient_booster"]["name"] == "gblinear":
        return False
    trees = _model(learner)["trees"]
    return all(
        not any(tree["split_type"]) and int(tree["tree_param"]["size_leaf_vector"]) <= 1
        for tree in trees
    )


def _trees(learner: dict[str, Any]) -> list[Tree]:
    model = _model(learner)
    weights = learner["gradient_booster"].get("weight_drop") or [1.0] * len(model["trees"])
    return [
        _tree(tree, target=target, weight=weight)
        for tree, target, weight in zip(model["trees"], model["tree_info"], weights, strict=True)
    ]


def _tree(tree: dict[str, Any], *, target: int, weight: float) -> Tree:
    conditions = np.array(tree["split_conditions"], dtype=np.float32)
    return Tree(
        feature=np.array(tree["split_indices"], dtype=np.int64),
        threshold=conditions,
        left=np.array(tree["left_children"], dtype=np.int64),
        right=np.array(tree["right_children"], dtype=np.int64),
        gap_left=np.array(tree["default_left"], dtype=bool),
        value=conditions * np.float32(weight),
        target=int(target),
    )
