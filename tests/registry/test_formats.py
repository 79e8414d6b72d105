"""Tests of native formats: each framework's models come back, and what cannot is refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import joblib
import lightgbm
import numpy as np
import onnx
import pandas as pd
import pytest
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from tickserve_registry.errors import FormatRefused, MetadataRefused, PickleRefused
from tickserve_registry.formats.frameworks import load_native, native_model
from tickserve_registry.formats.native import Shape
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.trust import UNTRUSTING

Info = Callable[..., dict[str, Any]]


def rises(inputs: Any) -> Any:
    """Return a target with signal."""
    return (inputs[:, 0] > 0).astype(int)


def opened_anew(registry: ModelRegistry, **options: Any) -> ModelRegistry:
    """Return the registry as another process would open it, with nothing proven."""
    return ModelRegistry(registry.storage_root, **options)


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(),
        Ridge(),
        RandomForestClassifier(5),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ],
    ids=lambda model: type(model).__name__,
)
def test_scikit_learn_comes_back(
    registry: ModelRegistry, info: Info, inputs: Any, model: Any
) -> None:
    """An estimator is stored with skops and loaded as itself, with its answers."""
    model.fit(inputs, rises(inputs))
    registry.save_model(model, info())
    loaded, document = opened_anew(registry).load_model("eurusd_1h_xgb_trend")
    assert type(loaded) is type(model)
    np.testing.assert_array_equal(loaded.predict(inputs), model.predict(inputs))
    assert (document["framework"], document["format"]) == ("scikit-learn", "skops")


def test_xgboost_and_lightgbm_come_back(registry: ModelRegistry, info: Info, inputs: Any) -> None:
    """Boosters are loaded as boosters, with their answers."""
    table = xgboost.DMatrix(inputs, rises(inputs))
    trees = xgboost.train({"nthread": 1}, table, 3)
    registry.save_model(trees, info(version=1))
    settings = {"verbose": -1, "num_threads": 1}
    leaves = lightgbm.train(settings, lightgbm.Dataset(inputs, rises(inputs)), 3)
    registry.save_model(leaves, info(version=2))
    fresh = opened_anew(registry)
    first, _ = fresh.load_model("eurusd_1h_xgb_trend_v1")
    second, _ = fresh.load_model("eurusd_1h_xgb_trend_v2")
    np.testing.assert_array_equal(first.predict(table), trees.predict(table))
    np.testing.assert_array_equal(second.predict(inputs), leaves.predict(inputs))


def test_onnx_comes_back(registry: ModelRegistry, info: Info, inputs: Any) -> None:
    """A ready model is loaded as an ONNX model."""
    registry.save_model(LogisticRegression().fit(inputs, rises(inputs)), info())
    compiled = registry.serving_model(registry.find("eurusd_1h_xgb_trend")).artefact
    registry.save_model(compiled, info(version=2))
    loaded, _ = opened_anew(registry).load_model("eurusd_1h_xgb_trend_v2")
    assert isinstance(loaded, onnx.ModelProto)


def test_splits_are_probed_where_they_are(inputs: Any) -> None:
    """Behind a scaler, in a forest inside a calibration: thresholds as the inputs meet them."""
    target = rises(inputs)
    tree = DecisionTreeClassifier(max_depth=2).fit(inputs, target)
    plain = native_model(tree, shape=Shape(5), trust=UNTRUSTING).splits
    assert len(plain.columns) == (tree.tree_.feature >= 0).sum()
    scaled = make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=2))
    behind = native_model(scaled.fit(inputs, target), shape=Shape(5), trust=UNTRUSTING).splits
    np.testing.assert_array_equal(behind.columns, plain.columns)
    np.testing.assert_allclose(behind.thresholds, plain.thresholds, rtol=1e-4, atol=1e-6)
    calibrated = CalibratedClassifierCV(RandomForestClassifier(3, random_state=1), cv=2)
    inside = native_model(calibrated.fit(inputs, target), shape=Shape(5), trust=UNTRUSTING).splits
    assert len(inside.columns) > len(plain.columns)


def test_the_callers_model_is_left_alone(registry: ModelRegistry, info: Info, inputs: Any) -> None:
    """Saving changes no setting of the model in the notebook."""
    model = xgboost.XGBClassifier(n_estimators=3, n_jobs=2).fit(inputs, rises(inputs))
    before = model.get_booster().save_config()
    registry.save_model(model, info())
    assert model.get_booster().save_config() == before


def test_pickles_need_the_opt_in_twice(registry: ModelRegistry, info: Info, inputs: Any) -> None:
    """A model that only a pickle holds is saved and loaded with allow_pickle, and not without."""
    model = make_pipeline(FunctionTransformer(np.nan_to_num), LogisticRegression())
    model.fit(inputs, rises(inputs))
    with pytest.raises(FormatRefused, match="allow_pickle=True"):
        registry.save_model(model, info())
    assert registry.entries() == ()
    trusting = opened_anew(registry, allow_pickle=True)
    trusting.save_model(model, info())
    with pytest.raises(PickleRefused, match="allow_pickle=True"):
        opened_anew(registry).load_model("eurusd_1h_xgb_trend")
    loaded, document = opened_anew(registry, allow_pickle=True).load_model("eurusd_1h_xgb_trend")
    np.testing.assert_array_equal(loaded.predict(inputs), model.predict(inputs))
    assert document["format"] == "joblib"


def test_trusted_types_are_the_openers_choice(
    registry: ModelRegistry, info: Info, inputs: Any
) -> None:
    """Types beyond the fixed list are named, and loaded by whoever trusts them."""
    model = make_pipeline(FunctionTransformer(np.nan_to_num), LogisticRegression())
    model.fit(inputs, rises(inputs))
    with pytest.raises(FormatRefused, match=r"numpy\.nan_to_num"):
        registry.save_model(model, info())
    types = ["numpy.nan_to_num"]
    opened_anew(registry, trusted_types=types).save_model(model, info())
    with pytest.raises(FormatRefused, match=r"numpy\.nan_to_num"):
        opened_anew(registry).load_model("eurusd_1h_xgb_trend")
    opened_anew(registry, trusted_types=types).load_model("eurusd_1h_xgb_trend")


def test_a_pickle_in_a_skops_file_is_not_loaded(inputs: Any) -> None:
    """Bytes decide how they are loaded, not what the metadata says they are."""
    buffer = io.BytesIO()
    joblib.dump(LogisticRegression().fit(inputs, rises(inputs)), buffer)
    with pytest.raises(PickleRefused):
        load_native(
            buffer.getvalue(),
            framework="scikit-learn",
            native_class="LogisticRegression",
            trust=UNTRUSTING,
        )


def test_what_cannot_be_saved_says_what_can(
    registry: ModelRegistry, info: Info, inputs: Any
) -> None:
    """Foreign objects, classifiers without probabilities and unfitted models are refused."""
    with pytest.raises(FormatRefused, match="XGBoost, LightGBM, scikit-learn and PyTorch"):
        registry.save_model(object(), info())
    with pytest.raises(FormatRefused, match="CalibratedClassifierCV"):
        registry.save_model(SVC().fit(inputs, rises(inputs)), info())
    for unfitted in (LogisticRegression(), xgboost.XGBClassifier(), lightgbm.LGBMClassifier()):
        with pytest.raises((FormatRefused, MetadataRefused)):
            registry.save_model(unfitted, info())
    assert registry.entries() == ()


def test_too_few_or_too_many_names_are_refused(
    registry: ModelRegistry, info: Info, inputs: Any
) -> None:
    """The metadata must name as many features as the model takes, whatever the framework."""
    target = rises(inputs)
    settings = {"verbose": -1, "num_threads": 1}
    models = [
        xgboost.train({"nthread": 1}, xgboost.DMatrix(inputs, target), 2),
        lightgbm.train(settings, lightgbm.Dataset(inputs, target), 2),
        LogisticRegression().fit(inputs, target),
    ]
    for model in models:
        for names in (["a"], list("abcdefgh")):
            with pytest.raises(MetadataRefused, match="the model takes 5"):
                registry.save_model(model, info(features=names))
    assert registry.entries() == ()


def test_a_classifier_of_one_class_is_refused(
    registry: ModelRegistry, info: Info, inputs: Any
) -> None:
    """It answers 1 whichever class it was trained on, which says nothing."""
    forest = RandomForestClassifier(2).fit(inputs, np.zeros(len(inputs)))
    with pytest.raises(FormatRefused, match="one class"):
        registry.save_model(forest, info())


def test_a_sample_must_fit(registry: ModelRegistry, info: Info, inputs: Any) -> None:
    """Rows of another width, of texts, without any; frames are read by name, gaps left out."""
    model = LogisticRegression().fit(inputs, rises(inputs))
    for sample in (
        inputs[:, :3],
        inputs.ravel(),
        np.array([["a"] * 5]),
        inputs[:0],
        inputs * np.nan,
    ):
        with pytest.raises(MetadataRefused, match="training_sample"):
            registry.save_model(model, info(), training_sample=sample)
    frame = pd.DataFrame(inputs, columns=info()["features"])
    with pytest.raises(MetadataRefused, match="no column hour_of_day"):
        registry.save_model(model, info(), training_sample=frame.drop(columns="hour_of_day"))
    frame.iloc[0, 0] = np.nan
    backwards = frame[frame.columns[::-1]]
    registry.save_model(model, info(), training_sample=backwards)
    golden = registry.metadata("eurusd_1h_xgb_trend").golden
    rows = {tuple(row) for row in inputs.tolist()}
    assert {tuple(row) for row in golden.inputs} <= rows
