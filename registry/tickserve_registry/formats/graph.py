"""ONNX graphs with one float32 `input` and one float32 `output`: pieces, and a common finish."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from tickserve_registry.errors import FormatRefused

INPUT, OUTPUT = "input", "output"
OPSET, ML_OPSET = 15, 3
IR_VERSION = 8
HIGHEST_OPSET = 18
BINARY = 2

Transform = Literal["identity", "sigmoid", "exp", "softmax", "argmax", "positive"]


def model_of(
    nodes: Sequence[onnx.NodeProto],
    *,
    features: int,
    initializers: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    """Return a model over rows of features whose nodes lead from `input` to `output`."""
    feed = onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, ["rows", features])
    graph = onnx.helper.make_graph(
        list(nodes), "model", [feed], [output_info()], list(initializers)
    )
    opsets = [
        onnx.helper.make_opsetid("", OPSET),
        onnx.helper.make_opsetid("ai.onnx.ml", ML_OPSET),
    ]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def transform_nodes(transform: Transform, source: str) -> list[onnx.NodeProto]:
    """Return the nodes that turn margins [rows, outputs] into `output`."""
    node = onnx.helper.make_node
    if transform == "argmax":
        chosen = node("ArgMax", [source], ["chosen"], axis=1, keepdims=1)
        return [chosen, node("Cast", ["chosen"], [OUTPUT], to=onnx.TensorProto.FLOAT)]
    if transform == "positive":
        above = node("Sign", [source], ["sign"])
        return [above, node("Relu", ["sign"], [OUTPUT])]
    if transform == "softmax":
        return [node("Softmax", [source], [OUTPUT], axis=1)]
    return [
        node(
            {"identity": "Identity", "sigmoid": "Sigmoid", "exp": "Exp"}[transform],
            [source],
            [OUTPUT],
        )
    ]


def single_output(model: onnx.ModelProto, *, binary: bool | None = None) -> onnx.ModelProto:
    """Keep a converted model's last output alone (probabilities follow labels), as `output`.

    Of a binary classifier's two columns the positive class stays; where nobody says whether it
    is one, the graph does.
    """
    graph = model.graph
    kept = graph.output[-1]
    if kept.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise FormatRefused(kind="ONNX model", problem="its last output is no float32 tensor")
    if binary is None:
        binary = len(graph.output) > 1 and _is_binary(graph)
    name = kept.name
    del graph.output[:]
    if binary:
        _append_positive_class(model, name)
    else:
        rename(model, name, OUTPUT)
    graph.output.append(output_info())
    return model


def output_info() -> onnx.ValueInfoProto:
    """Return the declaration of `output`."""
    shape = ["rows", "outputs"]
    return onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, shape)


def opset_of(model: onnx.ModelProto) -> int | None:
    """Return the version of the default operator set, if the graph uses it."""
    return next((each.version for each in model.opset_import if not each.domain), None)


def rename(model: onnx.ModelProto, old: str, new: str) -> None:
    """Rename a tensor wherever it is used."""
    if old == new:
        return
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.name == old:
            value.name = new


def _is_binary(graph: onnx.GraphProto) -> bool:
    """Whether a classifier of two classes makes the probabilities."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in {"classlabels_int64s", "classlabels_ints"}:
                return len(attribute.ints) == BINARY
            if attribute.name == "classlabels_strings":
                return len(attribute.strings) == BINARY
    return False


def _append_positive_class(model: onnx.ModelProto, probabilities: str) -> None:
    bounds = {"positive_from": 1, "positive_to": 2, "class_axis": 1}
    for name, value in bounds.items():
        array = np.array([value], dtype=np.int64)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model.graph.node.append(onnx.helper.make_node("Slice", [probabilities, *bounds], [OUTPUT]))
    if opset_of(model) is None:
        model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
