"""LightGBM models: Booster, LGBMClassifier and LGBMRegressor, stored as LightGBM's own text."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tickserve_registry.errors import FormatRefused
from tickserve_registry.formats.graph import Transform
from tickserve_registry.formats.native import (
    NO_SPLITS,
    Array,
    NativeModel,
    Predict,
    Shape,
    installed,
)
from tickserve_registry.formats.trees import Tree, ensemble, floor32, splits_of
from tickserve_registry.metadata import OutputKind
from tickserve_registry.trust import Trust

CLASSES = ("Booster", "LGBMClassifier", "LGBMRegressor")

TRANSFORMS: dict[str, Transform] = {
    "binary": "sigmoid",
    "cross_entropy": "sigmoid",
    "multiclass": "softmax",
    "multiclassova": "sigmoid",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
    "regression": "identity",
    "regression_l1": "identity",
    "huber": "identity",
    "fair": "identity",
    "quantile": "identity",
    "mape": "identity",
    "lambdarank": "identity",
    "rank_xendcg": "identity",
}
"""What an objective does with the margin, after LightGBM's parameter reference."""

ZERO = np.float32(1e-35)

PROBABILITIES = ("binary", "cross_entropy")


def recognises(model: Any) -> bool:
    """Whether it is one of LightGBM's models."""
    kind = type(model)
    return kind.__module__.startswith("lightgbm") and kind.__name__ in CLASSES


def capture(model: Any, *, shape: Shape, trust: Trust) -> NativeModel:  # noqa: ARG001 - no choice
    """Return the model with its bytes and abilities; raises FormatRefused.

    A classifier or regressor is stored as the Booster inside it.
    """
    booster = model if type(model).__name__ == "Booster" else model.booster_
    dump = booster.dump_model(num_iteration=_iterations(booster))
    return NativeModel(
        framework="lightgbm",
        framework_version=installed("lightgbm"),
        format="lightgbm",
        native_class="Booster",
        data=booster.model_to_string(num_iteration=_iterations(booster)).encode(),
        predict=predictor(booster),
        to_onnx=partial(_to_onnx, dump),
        features=_names(booster),
        width=int(booster.num_feature()),
        output_kind=_output_kind(dump),
        splits=NO_SPLITS if _unreadable(dump) else splits_of(_trees(dump)),
    )


def load(data: bytes, *, native_class: str, trust: Trust) -> Any:  # noqa: ARG001 - text is safe
    """Return the Booster; raises FormatRefused."""
    import lightgbm

    try:
        return lightgbm.Booster(model_str=data.decode("utf-8"))
    except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
        problem = f"does not parse ({str(error).splitlines()[0][:200]})"
        raise FormatRefused(kind="LightGBM file", problem=problem) from error


def predictor(model: Any) -> Predict:
    """Return predictions up to the best iteration."""

    def predict(inputs: Array) -> npt.NDArray[Any]:
        found = model.predict(inputs, num_threads=1, validate_features=False)
        return np.asarray(found).reshape(len(inputs), -1)

    return predict


def _iterations(booster: Any) -> int:
    return booster.best_iteration if booster.best_iteration > 0 else -1


def _names(booster: Any) -> tuple[str, ...]:
    names = tuple(booster.feature_name())
    made_up = tuple(f"Column_{place}" for place in range(len(names)))
    return () if names == made_up else names


def _objective(dump: dict[str, Any]) -> tuple[str, list[str]]:
    """Return the objective and its further words, such as `sigmoid:1`."""
    name, *words = str(dump.get("objective", "none")).split()
    return name, words


def _output_kind(dump: dict[str, Any]) -> OutputKind:
    objective, _ = _objective(dump)
    if objective in PROBABILITIES:
        return "probability"
    return "classes" if objective.startswith("multiclass") else "regression"


def _to_onnx(dump: dict[str, Any], features: int) -> onnx.ModelProto:
    unreadable = _unreadable(dump)
    if unreadable:
        raise FormatRefused(kind="LightGBM model", problem=f"{unreadable} is not compiled")
    return ensemble(
        _trees(dump),
        features=features,
        base=[0.0] * int(dump["num_tree_per_iteration"]),
        branch="BRANCH_LEQ",
        transform=TRANSFORMS[_objective(dump)[0]],
    )


def _unreadable(dump: dict[str, Any]) -> str | None:
    """Return what in the model is not compiled, if anything."""
    objective, words = _objective(dump)
    if objective not in TRANSFORMS or "sqrt" in words:
        return f"the objective {dump.get('objective')}"
    for node in _all_nodes(dump):
        if node.get("decision_type", "<=") != "<=":
            return "a categorical split"
        if node.get("missing_type") == "Zero":
            return "a split that takes zero for a gap"
        if "leaf_coeff" in node:
            return "a linear tree"
    return None


def _all_nodes(dump: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    waiting = [each["tree_structure"] for each in dump["tree_info"]]
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting += [node[side] for side in ("left_child", "right_child") if side in node]
    return found


def _trees(dump: dict[str, Any]) -> list[Tree]:
    outputs = int(dump["num_tree_per_iteration"])
    infos = dump["tree_info"]
    # A random forest's trees are averaged; a logistic objective may scale its margin.
    weight = outputs / len(infos) if dump.get("average_output") else 1.0
    for word in _objective(dump)[1]:
        if word.startswith("sigmoid:"):
            weight *= float(word.partition(":")[2])
    return [
        _tree(info["tree_structure"], target=place % outputs, weight=weight)
        for place, info in enumerate(infos)
    ]


def _tree(root: dict[str, Any], *, target: int, weight: float) -> Tree:
    """Number the nodes of nested dictionaries, the root first."""
    nodes: list[dict[str, Any]] = []
    left: list[int] = []
    right: list[int] = []

    def add(node: dict[str, Any]) -> int:
        place = len(nodes)
        nodes.append(node)
        left.append(-1)
        right.append(-1)
        return place

    waiting = [add(root)]
    while waiting:
        place = waiting.pop()
        node = nodes[place]
        if "split_feature" in node:
            left[place], right[place] = add(node["left_child"]), add(node["right_child"])
            waiting += [left[place], right[place]]
    return Tree(
        feature=np.array([node.get("split_feature", 0) for node in nodes], dtype=np.int64),
        threshold=_thresholds(np.array([node.get("threshold", 0.0) for node in nodes])),
        left=np.array(left, dtype=np.int64),
        right=np.array(right, dtype=np.int64),
        gap_left=np.array([_gap_left(node) for node in nodes], dtype=bool),
        value=(np.array([node.get("leaf_value", 0.0) for node in nodes]) * weight).astype(
            np.float32
        ),
        target=target,
    )


def _thresholds(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return thresholds for float32 inputs; LightGBM takes inputs up to ±`ZERO` for 0."""
    found = floor32(values)
    below = (found < 0) & (found >= -ZERO)
    found = np.where(below, np.nextafter(-ZERO, np.float32(-np.inf)), found)
    return np.where((found >= 0) & (found <= ZERO), ZERO, found)


def _gap_left(node: dict[str, Any]) -> bool:
    """Whether NaN goes left: by the split's own rule, or as the zero that stands for it."""
    if node.get("missing_type") == "NaN":
        return bool(node["default_left"])
    return float(node.get("threshold", 0.0)) >= 0.0
