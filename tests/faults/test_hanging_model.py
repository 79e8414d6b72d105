"""Models that never return or put out no number: an error, quarantine, and the daemon goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import pytest

from benchmarks.daemon import Service, model_info, train
from tickserve_client import ServerError
from tickserve_registry.model_registry import ModelRegistry

ROW = {f"f{index}": 0.25 * index for index in range(5)}


def graph_model(nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto]) -> bytes:
    """A ready ONNX model over five features."""
    feed = onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["rows", 5])
    answer = onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, ["rows", 1])
    graph = onnx.helper.make_graph(nodes, "model", [feed], [answer], initializers)
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 15)], ir_version=8
    )
    return bytes(model.SerializeToString())


def looping_model() -> bytes:
    """A model that turns as often as the largest feature says, and outputs the first."""
    node, tensor = onnx.helper.make_node, onnx.helper.make_tensor
    state = [("turn", onnx.TensorProto.INT64), ("on", onnx.TensorProto.BOOL)]
    inputs = [onnx.helper.make_tensor_value_info(name, kind, []) for name, kind in state]
    inputs.append(onnx.helper.make_tensor_value_info("value", onnx.TensorProto.FLOAT, None))
    body = onnx.helper.make_graph(
        [node("Identity", ["on"], ["still"]), node("Abs", ["value"], ["next"])],
        "turn",
        inputs,
        [
            onnx.helper.make_tensor_value_info("still", onnx.TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("next", onnx.TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        node("ReduceMax", ["input"], ["most"], keepdims=0),
        node("Cast", ["most"], ["turns"], to=onnx.TensorProto.INT64),
        node("ReduceSum", ["input", "axis"], ["sum"], keepdims=1),
        node("Loop", ["turns", "yes", "sum"], ["output"], body=body),
    ]
    return graph_model(
        nodes,
        [
            tensor("axis", onnx.TensorProto.INT64, [1], [1]),
            tensor("yes", onnx.TensorProto.BOOL, [], [True]),
        ],
    )


def dividing_model() -> bytes:
    """A model that divides the sum of the features by the first."""
    node, tensor = onnx.helper.make_node, onnx.helper.make_tensor
    nodes = [
        node("ReduceSum", ["input", "axis"], ["sum"], keepdims=1),
        node("Slice", ["input", "zero", "one", "axis"], ["first"]),
        node("Div", ["sum", "first"], ["output"]),
    ]
    ints = {"axis": [1], "zero": [0], "one": [1]}
    return graph_model(
        nodes, [tensor(name, onnx.TensorProto.INT64, [1], value) for name, value in ints.items()]
    )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A daemon that waits a second for a run and forgives two failures, and its models."""
    made = Service(
        tmp_path_factory.mktemp("hanging"),
        settings={"SERVING__RUN_SECONDS": "1", "SERVING__FAILURE_LIMIT": "3"},
    )
    registry = ModelRegistry(str(made.storage))
    registry.save_model(train(trees=5), model_info(), environment="production")
    sample = np.abs(np.random.default_rng(1).normal(size=(50, 5))).astype(np.float32) + 0.5
    for market, model in (
        ("loops", looping_model()),
        ("batches", looping_model()),
        ("divides", dividing_model()),
    ):
        info = {**model_info(), "market": market, "framework": "onnx"}
        registry.save_model(model, info, environment="production", training_sample=sample)
    with made:
        yield made


def test_a_run_that_never_returns_is_ended_and_its_model_quarantined(
    service: Service, figure: Callable[[str], None]
) -> None:
    """Its bot gets an error, the process stays, and every other model answers as before."""
    serving = service.child("serving")
    with service.client(timeout=20) as client:
        assert client.predict("loops_1h_xgb_bench", ROW).output == pytest.approx(2.5)
        before = time.monotonic()
        with pytest.raises(ServerError) as ended:
            client.predict("loops_1h_xgb_bench", {**ROW, "f0": 1e15})
        assert ended.value.code == "internal"
        took = time.monotonic() - before
        assert took < 15
        figure(f"ended {took:.1f} s after the request, run_seconds being 1")
        with pytest.raises(ServerError, match="did not return in time") as refused:
            client.predict("loops_1h_xgb_bench", ROW)
        assert refused.value.code == "not_ready"
        assert client.predict("eurusd_1h_xgb_bench", ROW).output is not None
    assert service.child("serving") == serving


def test_a_batch_that_never_returns_is_ended_as_well(service: Service) -> None:
    """Meanwhile single rows of other models are answered."""
    with service.client(timeout=20) as client, service.client() as other:
        assert client.predict("batches_1h_xgb_bench", [list(ROW.values())] * 300).output
        with pytest.raises(ServerError) as ended:
            client.predict("batches_1h_xgb_bench", [[1e15, 1, 1, 1, 1]] * 300)
        assert ended.value.code == "internal"
        assert other.predict("eurusd_1h_xgb_bench", ROW).output is not None


def test_outputs_that_are_no_numbers_are_refused_and_then_the_model(service: Service) -> None:
    """The third time within a minute the build is in quarantine; the log says so."""
    with service.client() as client:
        assert client.predict("divides_1h_xgb_bench", {**ROW, "f0": 2.0}).output is not None
        codes = []
        for _ in range(4):
            with pytest.raises(ServerError) as refused:
                client.predict("divides_1h_xgb_bench", {**ROW, "f0": 0.0})
            codes.append(refused.value.code)
        assert codes == ["internal"] * 3 + ["not_ready"]
        with pytest.raises(ServerError, match="quarantine"):
            client.predict("divides_1h_xgb_bench", {**ROW, "f0": 2.0})
        assert client.predict("eurusd_1h_xgb_bench", ROW).output is not None
    deadline = time.monotonic() + 10
    while "model_quarantined" not in service.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "model_quarantined" in service.log.read_text()
