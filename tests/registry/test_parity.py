"""Tests of compiling and of the proof that the compiled model answers as the native one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import xgboost

from benchmarks.parity import cases, saved
from tickserve_registry.errors import FormatRefused
from tickserve_registry.model_registry import ModelRegistry

Info = Callable[..., dict[str, Any]]

UNCOMPILED = {
    # What the scaler rounds otherwise than its graph sorts a row to the other side of a split.
    "scikit-learn scaler, RandomForestClassifier": "parity failed",
    "xgboost categorical": "categorical splits",
    "scikit-learn scaler, HistGradientBoostingRegressor": "no conversion",
}
VERSIONS = {case.name: case for case in cases()}


@pytest.mark.parametrize("name", VERSIONS)
def test_every_kind_is_proven(
    registry: ModelRegistry, name: str, recwarn: pytest.WarningsRecorder
) -> None:
    """Each kind of model is compiled and equal to the original, or says why it is not."""
    serving = saved(registry, VERSIONS[name])
    recwarn.clear()
    if name in UNCOMPILED:
        assert serving.engine == "native"
        assert UNCOMPILED[name] in str(serving.reason)
        return
    assert (serving.engine, serving.reason) == ("onnxruntime", None), serving
    assert serving.parity.max_abs_error is not None
    assert serving.parity.max_abs_error <= 1e-5
    assert serving.parity.probes > 500


def test_a_compiled_model_that_differs_does_not_serve(
    registry: ModelRegistry, info: Info, inputs: Any
) -> None:
    """An exponential of a sum of 500 trees, whose order of addition shows, is left to XGBoost."""
    target = np.exp(30 + 4 * inputs[:, 0])
    parameters = {"objective": "reg:gamma", "eta": 0.05, "max_delta_step": 10, "nthread": 1}
    model = xgboost.train(parameters, xgboost.DMatrix(inputs, target), 500)
    registry.save_model(model, info(), environment="production", training_sample=inputs)
    serving = registry.metadata("eurusd_1h_xgb_trend").serving
    assert (serving.engine, serving.reason) == ("native", "parity failed")
    assert serving.parity.max_abs_error is not None
    assert serving.parity.max_abs_error > 1e-5
    (entry,) = registry.production()
    served = registry.serving_model(entry)
    assert served.artefact == Path(registry.storage_root, entry.file_path).read_bytes()


def test_early_stopping_serves_what_the_model_predicts(
    registry: ModelRegistry, info: Info, inputs: Any
) -> None:
    """Trees after the best iteration are left out, as the model's own predict leaves them out."""
    target = (inputs[:, 0] + np.random.default_rng(1).normal(size=200) > 0).astype(int)
    model = xgboost.XGBClassifier(n_estimators=100, early_stopping_rounds=2)
    model.fit(inputs[:100], target[:100], eval_set=[(inputs[100:], target[100:])], verbose=False)
    assert model.best_iteration < model.get_booster().num_boosted_rounds() - 1
    registry.save_model(model, info(), environment="production")
    served = registry.serving_model(registry.production()[0])
    found = onnxruntime.InferenceSession(served.artefact).run(None, {"input": inputs})[0]
    np.testing.assert_allclose(found, model.predict_proba(inputs)[:, 1:], atol=1e-5)


def test_multiclass_and_golden_rows(registry: ModelRegistry, info: Info, inputs: Any) -> None:
    """Three classes give three outputs, and the golden rows are reproduced."""
    model = xgboost.XGBClassifier(n_estimators=5)
    model.fit(inputs, np.digitize(inputs[:, 0], [-0.5, 0.5]))
    registry.save_model(model, info(), environment="production", training_sample=inputs)
    served = registry.serving_model(registry.production()[0])
    golden = served.metadata.golden
    rows = np.array(golden.inputs, dtype=np.float32)
    found = onnxruntime.InferenceSession(served.artefact).run(None, {"input": rows})[0]
    assert found.shape == (len(rows), 3)
    np.testing.assert_allclose(found, golden.outputs, atol=golden.tolerance)


def window_model(element: int = onnx.TensorProto.FLOAT) -> onnx.ModelProto:
    """Return a model that averages a window of four rows of five features."""
    node = onnx.helper.make_node("ReduceMean", ["x"], ["y"], axes=[2], keepdims=0)
    feed = onnx.helper.make_tensor_value_info("x", element, ["n", 4, 5])
    answer = onnx.helper.make_tensor_value_info("y", element, ["n", 4])
    graph = onnx.helper.make_graph([node], "window", [feed], [answer])
    opset = [onnx.helper.make_opsetid("", 15)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)


def test_a_ready_window_model(registry: ModelRegistry, info: Info) -> None:
    """A ready ONNX file over windows is served with its tensors renamed."""
    registry.save_model(window_model(), info(), environment="production")
    served = registry.serving_model(registry.production()[0])
    assert (served.metadata.input.kind, served.metadata.input.length) == ("window", 4)
    rows = np.ones((2, 4, 5), dtype=np.float32)
    found = onnxruntime.InferenceSession(served.artefact).run(["output"], {"input": rows})[0]
    np.testing.assert_array_equal(found, np.ones((2, 4)))


def test_unfit_onnx_is_refused(registry: ModelRegistry, info: Info) -> None:
    """Another element type, and bytes that are no model, are refused with nothing written."""
    for model in (window_model(onnx.TensorProto.DOUBLE), b"no model"):
        with pytest.raises(FormatRefused):
            registry.save_model(model, info())
    assert registry.entries() == ()
