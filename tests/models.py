"""Small models and metadata that tests of several packages share."""

from __future__ import annotations

from typing import Any

import onnx
import onnx.helper

SEED_EXAMPLE: dict[str, Any] = {
    "model_id": "eurusd_5m_xgb_trend_v1",
    "created_at": "2025-03-25T14:30:00Z",
    "author": "your_name",
    "framework": "xgboost",
    "version": "1.5.1",
    "features": ["rsi_14", "ema_20", "ema_50", "atr_14", "hour_of_day"],
    "hyperparameters": {"max_depth": 5, "learning_rate": 0.01, "n_estimators": 100},
    "training_period": {"start": "2023-01-01", "end": "2024-12-31"},
    "performance": {
        "backtest": {
            "sharpe_ratio": 1.85,
            "max_drawdown": 0.12,
            "win_rate": 0.58,
            "profit_factor": 1.75,
        },
    },
    "status": "production",
    "notes": "Initial trend-following model for EURUSD",
}
"""The naming convention's own example."""


def sum_model() -> bytes:
    """Return an ONNX model that adds up two features."""
    axes = onnx.helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [1])
    node = onnx.helper.make_node("ReduceSum", ["x", "axes"], ["y"])
    feed = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 2])
    answer = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 1])
    graph = onnx.helper.make_graph([node], "sum", [feed], [answer], [axes])
    opset = [onnx.helper.make_opsetid("", 15)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    return bytes(model.SerializeToString())
