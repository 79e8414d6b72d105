"""Tests of compiling and of the proof that the compiled model answers as the native one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import xgboost

from tickserve_registry.errors import FormatRefused
from tickserve_registry.model_registry import ModelRegistry

Info = Callable[..., dict[str, Any]]
OBJECTIVES = [
    ("reg:squarederror", "onnxruntime"),
    ("reg:gamma", "onnxruntime"),
    ("count:poisson", "onnxruntime"),
    ("reg:tweedie", "onnxruntime"),
    ("binary:logistic", "onnxruntime"),
    ("binary:logitraw", "native"),
]


@pytest.mark.parametrize(("objective", "engine"), OBJECTIVES)
def test_objectives(
    registry: ModelRegistry, info: Info, inputs: Any, objective: str, engine: str
) -> None:
    """What the converter gets right is served compiled; what it gets wrong is caught."""
    target = (inputs[:, 0] > 0).astype(np.float32) + (0 if "binary" in objective else 1)
    model = xgboost.train({"objective": objective}, xgboost.DMatrix(inputs, target), 10)
    registry.save_model(model, info(), training_sample=inputs)
    serving = registry.metadata("eurusd_1h_xgb_trend").serving
    assert serving.engine == engine, serving
    assert serving.parity.probes > 200
    assert (serving.reason is None) == (engine == "onnxruntime")


def test_nearly_one_class_is_not_served_wrongly(
    registry: ModelRegistry, info: Info, inputs: Any
) -> None:
    """A model of one class, which the converter gets wrong by 0.5, is not served compiled."""
    table = xgboost.DMatrix(inputs, np.zeros(len(inputs)))
    model = xgboost.train({"objective": "binary:logistic"}, table, 5)
    registry.save_model(model, info())
    serving = registry.metadata("eurusd_1h_xgb_trend").serving
    assert (serving.engine, serving.reason) == ("native", "parity failed")


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
