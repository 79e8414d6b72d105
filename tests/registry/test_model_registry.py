"""Tests of the facade: the whole way of a model, and what is refused."""

from __future__ import annotations

import copy
import json
import multiprocessing
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import xgboost

from tests.models import SEED_EXAMPLE
from tickserve_registry.errors import (
    ArtefactRefused,
    BuildExists,
    CatalogUnreadable,
    MetadataRefused,
    ModelNotFound,
    TransitionRefused,
)
from tickserve_registry.model_registry import ModelRegistry

Info = Callable[..., dict[str, Any]]


def save(registry: ModelRegistry, model: Any, info: dict[str, Any], **options: Any) -> str:
    """Save a model and return its build."""
    path, _ = registry.save_model(model, info, **options)
    return Path(path).stem


def test_the_whole_way(registry: ModelRegistry, classifier: Any, info: Info, inputs: Any) -> None:
    """A saved model is promoted, served as ONNX with the native answers, and its figures shown."""
    given = info(notes={"mine": [1, 2]})
    before = copy.deepcopy(given)
    build = save(registry, classifier, given, training_sample=inputs)
    assert given == before
    assert registry.promote_model("eurusd_1h_xgb_trend").target == "production"
    (entry,) = registry.production()
    served = registry.serving_model(entry)
    session = onnxruntime.InferenceSession(served.artefact)
    found = session.run(["output"], {"input": inputs})[0]
    np.testing.assert_allclose(found, classifier.predict_proba(inputs)[:, 1:], atol=1e-5)
    registry.record_live_performance(build, {"sharpe_ratio": 1.5, "n_trades": 3})
    row = registry.list_models(environment="production").iloc[0]
    assert (row["live_sharpe_ratio"], row["status"]) == (1.5, "production")
    assert registry.metadata(build).document["notes"] == {"mine": [1, 2]}
    model, _ = registry.load_model(build)
    assert isinstance(model, xgboost.XGBClassifier)
    np.testing.assert_array_equal(model.predict(inputs), classifier.predict(inputs))
    assert registry.verify()


def test_the_conventions_own_example(registry: ModelRegistry, classifier: Any) -> None:
    """Metadata as the naming convention shows it is accepted; 1.5.1 is the framework's."""
    given = dict(SEED_EXAMPLE)
    document = registry.metadata(save(registry, classifier, given)).document
    rewritten = {"version", "status", "created_at"}
    assert {k: document[k] for k in given if k not in rewritten} == {
        k: v for k, v in given.items() if k not in rewritten
    }
    assert (document["version"], document["framework_version"]) == (1, "1.5.1")
    assert (document["status"], document["environment"]) == ("staging", "staging")


def test_v10_is_newer_than_v9_and_no_v1(
    registry: ModelRegistry, classifier: Any, info: Info
) -> None:
    """Versions order as numbers and a model_id matches itself alone."""
    for version in (1, 9, 10):
        save(registry, classifier, info(version=version))
    assert registry.load_model("eurusd_1h_xgb_trend")[1]["version"] == 10
    assert registry.load_model("eurusd_1h_xgb_trend_v1")[1]["version"] == 1
    assert registry.load_model("eurusd_1h_xgb_trend", version="v9")[1]["version"] == 9


def test_promotion_archives_the_champion_unless_kept(
    registry: ModelRegistry, classifier: Any, info: Info
) -> None:
    """The second version displaces the first; a third that keeps it serves beside it."""
    for version in (1, 2, 3):
        save(registry, classifier, info(version=version))
    registry.promote_model("eurusd_1h_xgb_trend_v1")
    displaced = registry.promote_model("eurusd_1h_xgb_trend_v2").archived
    assert [build[:22] for build in displaced] == ["eurusd_1h_xgb_trend_v1"]
    registry.promote_model("eurusd_1h_xgb_trend_v3", keep=True)
    assert [each.version for each in registry.production()] == [2, 3]
    actions = [(each.action, each.target) for each in registry.history()]
    assert actions.count(("save", "staging")) == 3
    assert actions.count(("archive", "archive")) == 1
    assert registry.verify()


def test_refusals(registry: ModelRegistry, classifier: Any, info: Info) -> None:
    """A second build of a day, unknown ids, idle moves and unfit features are refused."""
    save(registry, classifier, info())
    with pytest.raises(BuildExists, match="eurusd_1h_xgb_trend_v2"):
        save(registry, classifier, info())
    with pytest.raises(ModelNotFound, match="did you mean"):
        registry.promote_model("eurusd_1h_xgb_trnd_v1")
    with pytest.raises(TransitionRefused):
        registry.promote_model("eurusd_1h_xgb_trend_v1", "staging")
    with pytest.raises(MetadataRefused, match="features"):
        save(registry, classifier, info(version=2, features=["one"]))
    with pytest.raises(MetadataRefused, match="use null"):
        save(registry, classifier, info(version=2, notes=float("nan")))
    assert len(registry.entries()) == 1
    assert registry.verify()


def test_features_in_another_order_are_refused(
    registry: ModelRegistry, info: Info, inputs: Any
) -> None:
    """A model that knows its feature names is not saved under a different order."""
    names = info()["features"]
    table = xgboost.DMatrix(inputs, inputs[:, 0], feature_names=names)
    model = xgboost.train({}, table, 2)
    with pytest.raises(MetadataRefused, match="trained with"):
        save(registry, model, info(features=names[::-1]))
    save(registry, model, info())


@pytest.mark.parametrize("suffix", [".onnx", ".model"])
def test_one_flipped_bit_is_never_parsed(
    registry: ModelRegistry, classifier: Any, info: Info, suffix: str
) -> None:
    """A file of which one bit differs is refused, naming the file."""
    path, _ = registry.save_model(classifier, info(), environment="production")
    file = Path(path).with_suffix(suffix)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    reads: dict[str, Callable[[], object]] = {
        ".onnx": lambda: registry.serving_model(registry.production()[0]),
        ".model": lambda: registry.load_model("eurusd_1h_xgb_trend"),
    }
    with pytest.raises(ArtefactRefused, match=re.escape(file.name)):
        reads[suffix]()
    assert not registry.verify()


def test_changed_golden_rows_are_refused_and_figures_are_not(
    registry: ModelRegistry, classifier: Any, info: Info
) -> None:
    """The digest covers what determines an answer, and no performance figure."""
    _, meta = registry.save_model(classifier, info(), environment="production")
    (entry,) = registry.production()
    registry.record_live_performance(entry.build, {"n_trades": 1})
    assert registry.production() == (entry,)
    registry.serving_model(entry)
    document = json.loads(Path(meta).read_text())
    document["output"]["long_above"] = 0.9
    Path(meta).write_text(json.dumps(document))
    with pytest.raises(ArtefactRefused, match="thresholds"):
        registry.serving_model(entry)


def test_a_symbolic_link_below_the_root_is_refused(
    registry: ModelRegistry, classifier: Any, info: Info, tmp_path: Path
) -> None:
    """A market folder that is a link out of the root is not written through."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (Path(registry.storage_root) / "staging" / "eurusd").symlink_to(outside)
    with pytest.raises(ArtefactRefused, match="symbolic link"):
        save(registry, classifier, info())
    assert list(outside.iterdir()) == []


def test_a_torn_index_says_how_to_rebuild_it(
    registry: ModelRegistry, classifier: Any, info: Info
) -> None:
    """A torn registry.json is named with the remedy, and the remedy restores it."""
    build = save(registry, classifier, info())
    index = Path(registry.storage_root, "metadata", "registry.json")
    before = registry.entries()
    index.write_bytes(index.read_bytes()[:40])
    with pytest.raises(CatalogUnreadable, match="tickserve rebuild"):
        registry.find(build)
    assert registry.rebuild()
    assert registry.entries() == before
    assert registry.verify()


def save_versions(root: str, start: int) -> None:
    """Save and promote four versions, as one of several processes."""
    registry = ModelRegistry(root)
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    model = xgboost.train({"nthread": 1}, xgboost.DMatrix(rows, rows[:, 0]), 1)
    for version in range(start, start + 4):
        info = {"model_id": f"eurusd_1h_xgb_trend_v{version}", "features": ["a", "b"]}
        registry.promote_model(Path(registry.save_model(model, info)[0]).stem)


def test_two_processes_lose_nothing(registry: ModelRegistry) -> None:
    """Two processes saving and promoting at once leave every build, once, and one champion."""
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=save_versions, args=(registry.storage_root, start))
        for start in (1, 101)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(registry.entries()) == 8
    assert len(registry.production()) == 1
    assert [each.action for each in registry.history()].count("promote") == 8
    assert registry.verify()
