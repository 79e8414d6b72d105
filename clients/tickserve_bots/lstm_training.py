"""Trains the pretrained LSTM anew: `python -m tickserve_bots.lstm_training` (needs torch)."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from tickserve_bots.bars import eurusd_hours
from tickserve_bots.features import matrix
from tickserve_bots.strategy import HORIZON_BARS
from tickserve_bots.training import (
    FEATURES,
    PRETRAINED,
    TRAIN,
    targets,
    windows_of,
)

WINDOW_BARS = 24
HIDDEN = 16
EPOCHS = 30
LEARNING_RATE = 0.005
SEED = 42
OPSET = 17
LARGEST_DIFFERENCE = 1e-5
FOLDER = Path(__file__).parent / "pretrained"


class Breakout(nn.Module):
    """Raw features in, probability of a rise out; the scaling is part of the graph."""

    def __init__(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.lstm = nn.LSTM(len(mean), HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 1)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Return probabilities [rows, 1] for windows [rows, length, features]."""
        states, _ = self.lstm((windows - self.mean) / self.deviation)
        return torch.sigmoid(self.head(states[:, -1]))


def main() -> None:
    """Train on the training bars, export, check the export, and write both files."""
    torch.manual_seed(SEED)
    bars = eurusd_hours()
    windows, first = windows_of(matrix(bars, FEATURES), length=WINDOW_BARS)
    rows = slice(0, TRAIN.end - HORIZON_BARS - first)
    inputs = torch.from_numpy(windows[rows])
    rises = torch.from_numpy(targets(bars)[first:][rows].astype(np.float32))[:, None]
    flat = inputs.reshape(-1, len(FEATURES))
    model = Breakout(flat.mean(0), flat.std(0))
    fit(model, inputs, rises)
    data = export(model.eval(), inputs[:2])
    worst = difference(model, data, windows[::7])
    if worst > LARGEST_DIFFERENCE:
        raise SystemExit(f"the exported model differs from torch by {worst:.3g}")
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{PRETRAINED}.onnx").write_bytes(data)
    text = json.dumps(info(), indent=2) + "\n"
    (FOLDER / f"{PRETRAINED}.json").write_text(text, encoding="utf-8")
    print(f"{len(data)} bytes, differs from torch by {worst:.2g}")  # noqa: T201 - a script's result


def fit(model: nn.Module, inputs: torch.Tensor, rises: torch.Tensor) -> None:
    """Minimise cross-entropy with Adam in shuffled batches."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    loss_of = nn.BCELoss()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(inputs)).split(128):
            optimizer.zero_grad()
            loss_of(model(inputs[batch]), rises[batch]).backward()
            optimizer.step()


def export(model: nn.Module, example: torch.Tensor) -> bytes:
    """Return the model as ONNX with a free number of rows."""
    buffer = io.BytesIO()
    torch.onnx.export(
        model,
        (example,),
        buffer,
        input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": {0: "rows"}, "output": {0: "rows"}},
        opset_version=OPSET,
        dynamo=False,
    )
    return buffer.getvalue()


def difference(model: nn.Module, data: bytes, windows: Any) -> float:
    """Return the largest difference between torch and ONNX Runtime."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found = session.run(["output"], {"input": windows})[0]
    with torch.no_grad():
        wanted = model(torch.from_numpy(windows)).numpy()
    return float(np.abs(found - wanted).max())


def info() -> dict[str, Any]:
    """Return the metadata that does not depend on figures."""
    return {
        "market": "eurusd",
        "timeframe": "1h",
        "model_type": "lstm",
        "strategy": "breakout",
        "version": 1,
        "features": list(FEATURES),
        "input": {"kind": "window", "length": WINDOW_BARS},
        "hyperparameters": {
            "hidden": HIDDEN,
            "window": WINDOW_BARS,
            "epochs": EPOCHS,
            "learning_rate": LEARNING_RATE,
        },
        "trained_by": "tickserve_bots.lstm_training",
        "notes": "One LSTM layer over the last day of hours, exported from torch",
    }


if __name__ == "__main__":
    main()
