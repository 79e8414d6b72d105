"""Tests of metadata: hostile input is refused naming the field, and no field is lost."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from tickserve_registry.document import LARGEST_BYTES, read_file, read_strictly, write_document
from tickserve_registry.errors import MetadataRefused, NameRefused
from tickserve_registry.metadata import Stated
from tickserve_registry.model_registry import ModelRegistry

Info = Callable[..., dict[str, Any]]


def deep(levels: int) -> dict[str, Any]:
    """Return a dict nested that deep."""
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def circle() -> dict[str, Any]:
    """Return a dict that contains itself."""
    value: dict[str, Any] = {}
    value["self"] = value
    return value


HOSTILE: dict[str, Any] = {
    "NaN": float("nan"),
    "Infinity": {"a": [1.0, float("inf")]},
    "numpy NaN": np.float32("nan"),
    "numpy NaN in an array": np.array([1.0, np.nan]),
    "pandas NA": pd.NA,
    "pandas NaT": pd.NaT,
    "too deep": deep(200),
    "much too deep": deep(100_000),
    "circular": circle(),
    "key that is no text": {1: "a"},
    "object": object(),
    "lone surrogate": "\ud800",
    "huge integer": 10**400,
    "too large": "x" * (LARGEST_BYTES + 1),
    "set": {1, 2},
    "bytes": b"abc",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_json_is_refused(
    registry: ModelRegistry, classifier: Any, info: Info, name: str
) -> None:
    """Each is a MetadataRefused and leaves nothing behind, in a save and in a write-back."""
    with pytest.raises(MetadataRefused):
        registry.save_model(classifier, info(notes=HOSTILE[name]))
    assert registry.entries() == ()
    registry.save_model(classifier, info())
    build = registry.find("eurusd_1h_xgb_trend").build
    with pytest.raises(MetadataRefused):
        registry.record_live_performance(build, {"sharpe_ratio": HOSTILE[name]})
    assert registry.verify()


@pytest.mark.parametrize("field", [f for f in Stated.__struct_fields__ if f != "notes"])
@pytest.mark.parametrize("value", [[], {"a": {"b": [None]}}, True, 3.5, -1, "", "?" * 300, [[1]]])
def test_wrong_types_are_refused_or_kept(
    registry: ModelRegistry, classifier: Any, info: Info, field: str, value: Any
) -> None:
    """Any value in any known field is refused with a typed error, or stored as it is."""
    given = info(**{field: value})
    before = copy.deepcopy(given)
    try:
        registry.save_model(classifier, given)
    except (MetadataRefused, NameRefused):
        assert registry.entries() == ()
    else:
        registry.list_models()
        registry.compare(["eurusd_1h_xgb_trend"])
    assert given == before
    assert registry.verify()


def test_plain_values_of_other_libraries_are_taken(
    registry: ModelRegistry, classifier: Any, info: Info
) -> None:
    """Scalars, arrays and times of numpy and pandas become numbers, lists and ISO texts."""
    notes = {
        "scalar": np.float32(0.5),
        "double": np.float64(0.25),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "array": np.arange(3),
        "time": pd.Timestamp("2025-03-25T14:30:00Z"),
    }
    registry.save_model(classifier, info(notes=notes))
    assert registry.metadata("eurusd_1h_xgb_trend").document["notes"] == {
        "scalar": 0.5,
        "double": 0.25,
        "count": 3,
        "flag": True,
        "array": [0, 1, 2],
        "time": "2025-03-25T14:30:00+00:00",
    }


def test_hostile_files_are_refused(tmp_path: Path) -> None:
    """Wrong JSON, another encoding, endless nesting, doubled keys, a huge file: all named."""
    path = tmp_path / "model.json"
    texts = {
        b"": "no valid JSON",
        b"[]": "no JSON object",
        b"\xff\xfe{}": "no valid JSON",
        b'{"a": NaN}': "no valid JSON",
        b'{"a": Infinity}': "no valid JSON",
        b'{"a": 1, "b": {"c": 1, "c": 2}}': "c stands there twice",
        b'{"a": ' * 100_000: "no valid JSON",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000: "metadata of",
        b'{"a":' * 100 + b"1" + b"}" * 100: "nested deeper",
    }
    for data, words in texts.items():
        path.write_bytes(data)
        with pytest.raises(MetadataRefused, match=words):
            read_strictly(path)
    with path.open("wb") as file:
        os.truncate(file.fileno(), 100 * 1024 * 1024)
    for read in (read_file, read_strictly):
        with pytest.raises(MetadataRefused, match="the limit is"):
            read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(MetadataRefused, match="cannot be read"):
        read_file(path)


def test_one_hostile_file_disturbs_no_other(
    registry: ModelRegistry, classifier: Any, info: Info
) -> None:
    """A damaged metadata file is reported by verify; the other build goes on."""
    for version in (1, 2):
        registry.save_model(classifier, info(version=version))
    damaged = Path(registry.list_models()["metadata_path"][0])
    damaged.write_text('{"build": 3}')
    assert damaged.name in str(registry.verify())
    with pytest.raises(MetadataRefused):
        registry.load_model("eurusd_1h_xgb_trend_v1")
    registry.promote_model("eurusd_1h_xgb_trend_v2")
    assert len(registry.list_models()) == 2


def test_unknown_fields_survive_everything(
    registry: ModelRegistry, classifier: Any, info: Info
) -> None:
    """Promotion, write-back, rollback and archive leave what they do not know as it was."""
    mine = {"zeta": [1, {"deep": None}], "alpha": "ä\n", "number": 1e-7, "Ω": True, "empty": {}}
    registry.save_model(classifier, info(mine=mine, **mine))
    registry.save_model(classifier, info(version=2))
    for version in (1, 2):
        registry.promote_model(f"eurusd_1h_xgb_trend_v{version}")
    build = registry.find("eurusd_1h_xgb_trend_v1").build
    registry.record_live_performance(build, {"n_trades": 1})
    registry.rollback("eurusd_1h_xgb_trend")
    registry.archive_model(build)
    document = registry.metadata(build).document
    assert document["mine"] == mine
    assert {key: document[key] for key in mine} == mine
    text = Path(registry.storage_root, registry.find(build).metadata_path).read_text()
    assert json.loads(text) == document


def test_what_is_written_is_read_back() -> None:
    """Indented JSON in the order given, ending with a line end."""
    document = {"b": 1, "a": [1.5, None, {"c": "text"}]}
    data = write_document(document, source="x")
    assert data.endswith(b"}\n")
    assert list(msgspec.json.decode(data)) == ["b", "a"]
    assert msgspec.json.decode(data) == document
