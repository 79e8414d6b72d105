"""Trees as arrays, and the ONNX graph that adds up an ensemble of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnx.helper

from tickserve_registry.formats.graph import INPUT, OUTPUT, Transform, model_of, transform_nodes
from tickserve_registry.formats.native import NO_SPLITS, Splits

MARGIN = "margin"

Branch = Literal["BRANCH_LT", "BRANCH_LEQ"]
"""Whether a value equal to the threshold goes right or left."""


class Tree(NamedTuple):
    """One tree, its nodes by place, the root first; a leaf's `left` is −1 and has the `value`.

    A gap (NaN) goes left where `gap_left` says so. The value adds to output `target`.
    """

    feature: npt.NDArray[np.int64]
    threshold: npt.NDArray[np.float32]
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    gap_left: npt.NDArray[np.bool_]
    value: npt.NDArray[np.float32]
    target: int

    @property
    def is_leaf(self) -> npt.NDArray[np.bool_]:
        """Which nodes are leaves."""
        found: npt.NDArray[np.bool_] = self.left < 0
        return found


def splits_of(trees: Iterable[Tree]) -> Splits:
    """Return every split of the trees."""
    inner = [(tree.feature[~tree.is_leaf], tree.threshold[~tree.is_leaf]) for tree in trees]
    if not inner:
        return NO_SPLITS
    return Splits(
        np.concatenate([columns for columns, _ in inner]),
        np.concatenate([thresholds for _, thresholds in inner]),
    )


def floor32(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return the largest float32 not above each value: x ≤ value means the same for any float32."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
        above = rounded.astype(np.float64) > values
        return np.where(above, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def ensemble(
    trees: Sequence[Tree],
    *,
    features: int,
    base: Sequence[float],
    branch: Branch,
    transform: Transform,
) -> onnx.ModelProto:
    """Return the model transform(base + sum of the trees), one output for each base value."""
    attributes: dict[str, Any] = {
        "n_targets": len(base),
        "base_values": [float(value) for value in base],
        "aggregate_function": "SUM",
        "post_transform": "NONE",
        **_nodes(trees, branch),
        **_leaves(trees),
    }
    plain = transform == "identity"  # a node that does nothing takes a microsecond
    adding = onnx.helper.make_node(
        "TreeEnsembleRegressor",
        [INPUT],
        [OUTPUT if plain else MARGIN],
        domain="ai.onnx.ml",
        **attributes,
    )
    nodes = [adding] if plain else [adding, *transform_nodes(transform, MARGIN)]
    return model_of(nodes, features=features)


def _nodes(trees: Sequence[Tree], branch: Branch) -> dict[str, Any]:
    sizes = [len(tree.left) for tree in trees]
    leaf = np.concatenate([tree.is_leaf for tree in trees])

    def joined(name: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(tree, name) for tree in trees])

    return {
        "nodes_treeids": np.repeat(np.arange(len(trees)), sizes).tolist(),
        "nodes_nodeids": np.concatenate([np.arange(size) for size in sizes]).tolist(),
        "nodes_featureids": np.where(leaf, 0, joined("feature")).tolist(),
        "nodes_values": np.where(leaf, np.float32(0), joined("threshold")).tolist(),
        "nodes_modes": ["LEAF" if each else branch for each in leaf.tolist()],
        "nodes_truenodeids": np.where(leaf, 0, joined("left")).tolist(),
        "nodes_falsenodeids": np.where(leaf, 0, joined("right")).tolist(),
        "nodes_missing_value_tracks_true": np.where(leaf, 0, joined("gap_left")).tolist(),
    }


def _leaves(trees: Sequence[Tree]) -> dict[str, Any]:
    places = [np.flatnonzero(tree.is_leaf) for tree in trees]
    counts = [len(each) for each in places]
    values = [tree.value[place] for tree, place in zip(trees, places, strict=True)]
    return {
        "target_treeids": np.repeat(np.arange(len(trees)), counts).tolist(),
        "target_nodeids": np.concatenate(places).tolist(),
        "target_ids": np.repeat([tree.target for tree in trees], counts).tolist(),
        "target_weights": np.concatenate(values).astype(np.float64).tolist(),
    }
