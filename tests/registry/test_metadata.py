"""Tests of metadata: hostile input is refused naming the field, and no field is lost."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tickserve_registry.document import LARGEST_BYTES
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
    with pytest.raises(MetadataRefused) as refused:
        registry.save_model(classifier, info(notes=HOSTILE[name]))
    assert refused.value.field.startswith("notes")
    assert registry.entries() == ()
    registry.save_model(classifier, info())
    build = registry.find("eurusd_1h_xgb_trend").build
    before = registry.metadata(build).document
    with pytest.raises(MetadataRefused) as refused:
        registry.record_live_performance(build, {"sharpe_ratio": HOSTILE[name]})
    assert refused.value.field.startswith("sharpe_ratio")
    assert registry.metadata(build).document == before
    assert registry.verify()


NO_TEXT: list[Any] = [[], {"a": 1}, 3.5, True, 7]
NO_OBJECT: list[Any] = [[], "text", 1, True]
WRONG: dict[str, list[Any]] = {
    **dict.fromkeys(
        [
            *("model_id", "market", "timeframe", "model_type", "strategy", "created_at"),
            *("author", "framework", "framework_version", "status"),
        ],
        NO_TEXT,
    ),
    "version": [[], {"a": 1}, 3.5, True],
    "features": ["rsi_14", {}, 1, [1], [None], [["a"]]],
    "feature_definitions": ["text", 1, [1], [[]]],
    "hyperparameters": NO_OBJECT,
    "training_period": NO_OBJECT,
    "performance": [*NO_OBJECT, {"backtest": []}, {"live": "good"}],
    "calendar": ["never", 1, []],
    "input": [*NO_OBJECT, {"kind": "x"}, {"length": "1"}, {"dtype": "float64"}],
    "output": [*NO_OBJECT, {"kind": "x"}, {"long_above": "high"}, {"names": [1]}],
}


def test_every_known_field_has_wrong_types() -> None:
    """A field that is added needs its wrong types here; notes may be anything."""
    assert {*WRONG, "notes"} == set(Stated.__struct_fields__)


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG.items() for value in values]
)
def test_a_wrong_type_is_refused_naming_the_field(
    registry: ModelRegistry, info: Info, field: str, value: Any
) -> None:
    """It is found before the model is looked at, and nothing is written."""
    given = info(**{field: value})
    before = copy.deepcopy(given)
    with pytest.raises(MetadataRefused) as refused:
        registry.save_model(object(), given)
    assert refused.value.field.startswith(field)
    assert given == before
    assert [each for each in Path(registry.storage_root).rglob("*") if each.is_file()] == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_id": None, "version": "9" * 5_000}, "version"),
        ({"model_id": None, "version": 10**18}, "version"),
        ({"date": "202503" + "9" * 50}, "date"),
        ({"model_id": "eurusd_1h_xgb_trend\u212a_v1"}, "name"),
    ],
)
def test_names_beyond_every_limit_are_refused(
    registry: ModelRegistry, info: Info, changes: dict[str, Any], named: str
) -> None:
    """Numbers that Python will not convert, and a Kelvin sign, which lower() makes a letter k."""
    with pytest.raises(NameRefused) as refused:
        registry.save_model(object(), info(**changes))
    assert refused.value.part == named


def test_numpys_integer_is_a_version(registry: ModelRegistry, classifier: Any, info: Info) -> None:
    """A version that comes out of a DataFrame names the model, and is stored as a plain one."""
    registry.save_model(classifier, info(version=np.int64(3)))
    assert registry.metadata("eurusd_1h_xgb_trend_v3").document["version"] == 3


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


STORED: list[tuple[str, Any]] = [
    ("build", "../../outside"),
    ("build", 3),
    ("environment", "../../outside"),
    ("environment", ["staging"]),
    ("revision", "many"),
    ("revision", 0),
    ("features", "rsi_14"),
    ("sha256", None),
    ("golden", {"inputs": 1}),
    ("serving", {"engine": "onnxruntime"}),
]


@pytest.mark.parametrize(("field", "value"), STORED)
def test_a_wrong_type_in_a_stored_file_is_named(
    registry: ModelRegistry, classifier: Any, info: Info, field: str, value: Any
) -> None:
    """Nothing is read or moved by it, verify says where it is, and the list goes on."""
    path = Path(registry.save_model(classifier, info())[1])
    document = json.loads(path.read_text()) | {field: value}
    path.write_text(json.dumps(document))
    for use in (registry.load_model, registry.promote_model, registry.metadata):
        with pytest.raises(MetadataRefused) as refused:
            use(path.stem)
        assert refused.value.field.startswith(field)
        assert str(path) in str(refused.value)
    assert path.name in str(registry.verify())
    assert len(registry.list_models()) == 1
    assert [each.environment for each in registry.entries()] == ["staging"]
    assert json.loads(path.read_text()) == document


def test_a_stored_file_says_nothing_of_paths(
    registry: ModelRegistry, classifier: Any, info: Info
) -> None:
    """Where an artefact lies follows from its build; a path in the metadata is not followed."""
    path = Path(registry.save_model(classifier, info())[1])
    document = json.loads(path.read_text())
    for artefact in ("/etc/passwd", "../../../../outside", None):
        path.write_text(json.dumps(document | {"artefact": artefact}))
        assert registry.rebuild()
        assert registry.find(path.stem).file_path.endswith(f"/v1/{path.stem}.model")
    assert registry.promote_model(path.stem).target == "production"


def test_a_revision_that_is_none_stops_a_write_back(
    registry: ModelRegistry, classifier: Any, info: Info
) -> None:
    """The figures are refused naming it, and the file stays as a hand left it."""
    path = Path(registry.save_model(classifier, info())[1])
    path.write_text(json.dumps(json.loads(path.read_text()) | {"revision": "x"}))
    before = path.read_bytes()
    with pytest.raises(MetadataRefused, match="revision"):
        registry.record_live_performance(path.stem, {"n_trades": 1})
    assert path.read_bytes() == before


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
