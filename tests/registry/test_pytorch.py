"""Tests of PyTorch modules: exported without pickle, compiled to ONNX, loaded as modules."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tickserve_registry.errors import FormatRefused, PickleRefused
from tickserve_registry.formats import pytorch
from tickserve_registry.formats.exported_program import require_plain
from tickserve_registry.formats.native import Shape
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.trust import UNTRUSTING

torch = pytest.importorskip("torch")

Info = Callable[..., dict[str, Any]]
NAME = "eurusd_1h_xgb_trend"
LENGTH = 12


class Trend(torch.nn.Module):  # type: ignore[misc,name-defined]
    """A small LSTM over windows of five features."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(5, 8, num_layers=2, dropout=0.5, batch_first=True)
        self.head = torch.nn.Linear(8, 1)

    def forward(self, windows: Any) -> Any:
        """Return probabilities [rows, 1]."""
        states, _ = self.lstm(windows)
        return torch.sigmoid(self.head(states[:, -1]))


@pytest.fixture
def trend() -> Any:
    """Return the network as training leaves it: with its dropout on."""
    torch.manual_seed(1)
    return Trend().train()


@pytest.fixture
def window_info(info: Info) -> dict[str, Any]:
    """Return metadata of a model over windows."""
    return info(input={"kind": "window", "length": LENGTH})


def test_an_lstm(registry: ModelRegistry, window_info: dict[str, Any], trend: Any) -> None:
    """It is compiled, loads as a module without pickle, and stays in training as it was."""
    windows = np.random.default_rng(1).normal(size=(300, LENGTH, 5)).astype(np.float32)
    registry.save_model(trend, window_info, "production", training_sample=windows)
    assert trend.training
    with torch.no_grad():
        wanted = trend.eval()(torch.from_numpy(windows)).numpy()
    metadata = registry.metadata(NAME)
    assert (metadata.framework, metadata.document["format"]) == ("pytorch", "pt2")
    assert metadata.serving.engine == "onnxruntime", metadata.serving
    assert (metadata.serving.parity.max_abs_error or 0) < 1e-6
    artefact = registry.serving_model(registry.production()[0]).artefact
    found = onnxruntime.InferenceSession(artefact).run(None, {"input": windows})[0]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    model, _ = ModelRegistry(registry.storage_root).load_model(NAME)
    assert isinstance(model, torch.nn.Module)
    with torch.no_grad():
        np.testing.assert_array_equal(model(torch.from_numpy(windows[:7])).numpy(), wanted[:7])


def changed(data: bytes, name: str, edit: Callable[[bytes], bytes]) -> bytes:
    """Return the archive with one of its files edited."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for each in old.namelist():
            content = old.read(each)
            new.writestr(each, edit(content) if each.endswith(name) else content)
    return buffer.getvalue()


def call(target: str) -> Callable[[bytes], bytes]:
    """Return an edit that makes the program's first node call another function."""

    def edit(content: bytes) -> bytes:
        program = json.loads(content)
        program["graph_module"]["graph"]["nodes"][0]["target"] = target
        return json.dumps(program).encode()

    return edit


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("sample_inputs/model.pt", lambda _: b"\x80\x04."),
        (
            "weights_config.json",
            lambda old: old.replace(b"false", b"1"),
        ),
        ("model.json", call("torch.load")),
        ("model.json", call("torch.ops.aten.from_file.default")),
        ("model.json", call("torch.ops.aten.__class__")),
        ("model.json", call("#extension:anything")),
        ("model.json", lambda old: old.replace(b"Symbol(", b"__import__('os').system(")),
    ],
    ids=["samples", "weights", "function", "file", "attribute", "extension", "expression"],
)
def test_doors_to_code_are_shut(trend: Any, name: str, edit: Callable[[bytes], bytes]) -> None:
    """An archive that makes torch unpickle, evaluate or call anything else is refused."""
    plain = pytorch.capture(trend, shape=Shape(5, LENGTH), trust=UNTRUSTING).data
    bad = changed(plain, name, edit)
    assert bad != changed(plain, name, bytes)
    require_plain(plain)
    with pytest.raises(PickleRefused):
        pytorch.load(bad, native_class="Trend", trust=UNTRUSTING)


def test_no_archive(trend: Any) -> None:
    """Bytes that are no archive are refused as a format."""
    del trend
    with pytest.raises(FormatRefused):
        require_plain(b"no archive")
