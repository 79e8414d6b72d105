"""scikit-learn estimators and pipelines, stored with skops, or as pickles where that is allowed."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tickserve_registry.errors import FormatRefused, PickleRefused
from tickserve_registry.formats.graph import (
    HIGHEST_OPSET,
    INPUT,
    ML_OPSET,
    Transform,
    single_output,
)
from tickserve_registry.formats.native import (
    NO_SPLITS,
    Array,
    FileFormat,
    NativeModel,
    Predict,
    Shape,
    Splits,
    installed,
)
from tickserve_registry.formats.trees import Tree, ensemble, floor32, splits_of
from tickserve_registry.metadata import OutputKind
from tickserve_registry.trust import Trust

BINARY = 2
SCALERS = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler")
HISTOGRAM_BOOSTING = ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")

TRUSTED = (
    "numpy.dtype",
    "sklearn._loss.link.HalfLogitLink",
    "sklearn._loss.link.IdentityLink",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogLink",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.link.MultinomialLogit",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.compose._column_transformer._RemainderColsList",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
)
"""Types of scikit-learn's own that its estimators hold; fixed here, never taken from a file."""


def recognises(model: Any) -> bool:
    """Whether it is an estimator: scikit-learn's own, or a subclass of its base."""
    base = getattr(sys.modules.get("sklearn.base"), "BaseEstimator", None)
    others = type(model).__module__.startswith(("xgboost", "lightgbm"))
    return base is not None and isinstance(model, base) and not others


def capture(model: Any, *, shape: Shape, trust: Trust) -> NativeModel:  # noqa: ARG001 - rows only
    """Return the fitted estimator with its bytes and abilities.

    Raises FormatRefused, or PickleRefused when only a pickle could hold it.
    """
    predict = predictor(model)
    data, file_format = _bytes(model, trust)
    return NativeModel(
        framework="scikit-learn",
        framework_version=installed("scikit-learn"),
        format=file_format,
        native_class=type(model).__name__,
        data=data,
        predict=predict,
        to_onnx=partial(_to_onnx, model),
        features=tuple(str(each) for each in getattr(model, "feature_names_in_", ())),
        width=getattr(model, "n_features_in_", None),
        output_kind=_output_kind(model),
        splits=_splits(model),
    )


def load(data: bytes, *, native_class: str, trust: Trust) -> Any:
    """Return the estimator. Raises FormatRefused, or PickleRefused without the opt-in."""
    if not _is_skops(data):
        return _unpickle(data, native_class=native_class, trust=trust)
    import skops.io

    allowed = {*TRUSTED, *trust.trusted_types}
    unknown = sorted(set(skops.io.get_untrusted_types(data=data)) - allowed)
    if unknown:
        problem = f"holds {', '.join(unknown)}; add what you trust to trusted_types"
        raise FormatRefused(kind=f"scikit-learn {native_class}", problem=problem)
    try:
        return skops.io.loads(data, trusted=sorted(allowed))
    except Exception as error:
        problem = f"does not load ({error})"
        raise FormatRefused(kind=f"scikit-learn {native_class}", problem=problem[:500]) from error


def predictor(model: Any) -> Predict:
    """Return probabilities of a classifier and predictions of a regressor."""
    if hasattr(model, "predict_proba"):
        classes = _classes(model)

        def probabilities(inputs: Array) -> npt.NDArray[Any]:
            found = np.asarray(model.predict_proba(inputs))
            return found[:, 1:] if classes == BINARY else found

        return _named(model, probabilities)
    if hasattr(model, "classes_") or not hasattr(model, "predict"):
        problem = "gives no probabilities; train it with them, or wrap it in CalibratedClassifierCV"
        raise FormatRefused(kind=f"scikit-learn {type(model).__name__}", problem=problem)
    return _named(model, lambda inputs: np.asarray(model.predict(inputs)).reshape(len(inputs), -1))


def _named(model: Any, predict: Predict) -> Predict:
    """Give the inputs their names where the model was trained with names, as it then asks for."""
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        return predict

    def named(inputs: Array) -> npt.NDArray[Any]:
        import pandas as pd

        return predict(pd.DataFrame(inputs, columns=list(names)))

    return named


def _bytes(model: Any, trust: Trust) -> tuple[bytes, FileFormat]:
    import skops.io

    name = f"scikit-learn {type(model).__name__}"
    try:
        data: bytes = skops.io.dumps(model)
        load(data, native_class=type(model).__name__, trust=trust)
    except Exception as error:
        if trust.allow_pickle:
            return _pickle(model), "joblib"
        problem = (
            f"skops cannot hold it safely ({str(error)[:300]}); name the types in trusted_types, "
            "or allow pickles with allow_pickle=True"
        )
        raise FormatRefused(kind=name, problem=problem) from error
    return data, "skops"


def _pickle(model: Any) -> bytes:
    import joblib

    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    return buffer.getvalue()


def _unpickle(data: bytes, *, native_class: str, trust: Trust) -> Any:
    if not trust.allow_pickle:
        raise PickleRefused(kind=f"scikit-learn {native_class}")
    import joblib

    try:
        return joblib.load(io.BytesIO(data))
    except Exception as error:
        problem = f"does not load ({error})"
        raise FormatRefused(kind=f"joblib {native_class}", problem=problem[:500]) from error


def _is_skops(data: bytes) -> bool:
    return data.startswith(b"PK")


def _classes(model: Any) -> int:
    """Return how many classes a classifier tells apart."""
    found: Any = getattr(model, "classes_", ())
    if isinstance(found, list):
        problem = "tells several targets apart at once"
        raise FormatRefused(kind=f"scikit-learn {type(model).__name__}", problem=problem)
    if len(found) == 1:
        problem = f"was trained on one class, {found[0]}, and can tell nothing apart"
        raise FormatRefused(kind=f"scikit-learn {type(model).__name__}", problem=problem)
    return len(found)


def _output_kind(model: Any) -> OutputKind:
    if not hasattr(model, "predict_proba"):
        return "regression"
    return "probability" if _classes(model) == BINARY else "classes"


def _to_onnx(model: Any, features: int) -> onnx.ModelProto:
    if type(model).__name__ in HISTOGRAM_BOOSTING:
        return _histogram_boosting(model, features=features)
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
    try:
        converted: onnx.ModelProto = convert_sklearn(
            model,
            initial_types=[(INPUT, FloatTensorType([None, features]))],
            options=options,
            target_opset={"": HIGHEST_OPSET, "ai.onnx.ml": ML_OPSET},
        )
    except Exception as error:
        problem = f"no conversion ({str(error)[:300]})"
        raise FormatRefused(kind=f"scikit-learn {type(model).__name__}", problem=problem) from error
    return single_output(converted, binary=_output_kind(model) == "probability")


def _histogram_boosting(model: Any, *, features: int) -> onnx.ModelProto:
    if model.is_categorical_ is not None and model.is_categorical_.any():
        problem = "categorical splits are not compiled"
        raise FormatRefused(kind=type(model).__name__, problem=problem)
    transforms: dict[str, Transform] = {
        "log_loss": "softmax" if model.n_trees_per_iteration_ > 1 else "sigmoid",
        "poisson": "exp",
        "gamma": "exp",
    }
    return ensemble(
        _histogram_trees(model),
        features=features,
        base=np.asarray(model._baseline_prediction).ravel().tolist(),  # noqa: SLF001 - kept nowhere else
        branch="BRANCH_LEQ",
        transform=transforms.get(model.loss, "identity"),
    )


def _histogram_trees(model: Any) -> list[Tree]:
    return [
        _histogram_tree(predictor.nodes, target)
        for round_ in model._predictors  # noqa: SLF001 - kept nowhere else
        for target, predictor in enumerate(round_)
    ]


def _histogram_tree(nodes: Any, target: int) -> Tree:
    leaf = nodes["is_leaf"].astype(bool)
    return Tree(
        feature=nodes["feature_idx"].astype(np.int64),
        threshold=floor32(nodes["num_threshold"]),
        left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
        right=nodes["right"].astype(np.int64),
        gap_left=nodes["missing_go_to_left"].astype(bool),
        value=nodes["value"].astype(np.float32),
        target=target,
    )


def _splits(model: Any) -> Splits:
    """Return where the trees split, as inputs before the steps that scale each column alone."""
    *before, (_, last) = getattr(model, "steps", [("", model)])
    columns, thresholds = _tree_splits(last)
    for _, step in reversed(before):
        if type(step).__name__ not in SCALERS or not len(columns):
            return NO_SPLITS
        rows = np.arange(len(columns))
        table = np.zeros((len(columns), step.n_features_in_))
        table[rows, columns] = thresholds
        thresholds = step.inverse_transform(table)[rows, columns].astype(np.float32)
    return Splits(columns, thresholds)


def _tree_splits(model: Any) -> Splits:
    if type(model).__name__ in HISTOGRAM_BOOSTING:
        return splits_of(_histogram_trees(model))
    found = [each.tree_ for each in _members(model) if hasattr(each, "tree_")]
    if not found:
        return NO_SPLITS
    columns = np.concatenate([tree.feature for tree in found]).astype(np.int64)
    thresholds = np.concatenate([floor32(tree.threshold) for tree in found])
    return Splits(columns[columns >= 0], thresholds[columns >= 0])


def _members(model: Any) -> Iterator[Any]:
    """Yield the model and, at any depth, the estimators that it consists of."""
    yield model
    for each in np.asarray(getattr(model, "estimators_", ()), dtype=object).ravel():
        yield from _members(each)
    for calibrated in getattr(model, "calibrated_classifiers_", ()):
        yield from _members(calibrated.estimator)
