"""Models of every framework through the daemon: the answers are those of the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler

from benchmarks.daemon import Service
from benchmarks.parity import categorical, data
from tickserve_registry.model_registry import ModelRegistry

FEATURES = [f"f{place}" for place in range(5)]


def save(service: Service, name: str, model: Any, **options: Any) -> str:
    """Save a model to production under a strategy's name; return its engine."""
    registry = ModelRegistry(service.storage, **options)
    info = {"model_id": f"eurusd_1h_any_{name}_v1", "features": FEATURES}
    registry.save_model(model, info, environment="production")
    return registry.metadata(f"eurusd_1h_any_{name}").serving.engine


def test_every_framework_answers_as_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled or native, row by row and in a batch; a pickle only where the daemon allows it."""
    given = data()
    forest = RandomForestClassifier(10).fit(given.rows, given.rises)
    leaves = lightgbm.train(
        {"objective": "binary", "verbose": -1, "num_threads": 1},
        lightgbm.Dataset(given.rows, given.rises),
        10,
    )
    categories = categorical(given)
    scaled = make_pipeline(MinMaxScaler(), HistGradientBoostingRegressor(max_iter=10))
    scaled.fit(given.rows, given.values)
    pickled = make_pipeline(FunctionTransformer(np.nan_to_num), HistGradientBoostingRegressor())
    pickled.fit(given.rows, given.values)
    monkeypatch.setenv("TICKSERVE_REGISTRY__ALLOW_PICKLE", "true")
    service = Service(tmp_path)
    assert save(service, "forest", forest) == "onnxruntime"
    assert save(service, "leaves", leaves) == "onnxruntime"
    assert save(service, "categories", categories) == "native"
    assert save(service, "scaled", scaled) == "native"
    assert save(service, "pickled", pickled, allow_pickle=True) == "native"
    rows = given.rows[:20].copy()
    rows[:, 4] = np.arange(20) % 6
    table = xgboost.DMatrix(rows, feature_types=["q"] * 4 + ["c"], enable_categorical=True)
    wanted = {
        "forest": forest.predict_proba(rows)[:, 1],
        "leaves": leaves.predict(rows),
        "categories": categories.predict(table),
        "scaled": scaled.predict(rows),
        "pickled": pickled.predict(rows),
    }
    with service, service.client(timeout=5.0) as client:
        for name, expected in wanted.items():
            model = f"eurusd_1h_any_{name}"
            named = dict(zip(FEATURES, rows[0].tolist(), strict=True))
            assert client.predict(model, named).output == pytest.approx(expected[0], abs=1e-5)
            batch = client.predict(model, rows.tolist()).output
            np.testing.assert_allclose(batch, expected, atol=1e-5)
        assert service.stop() == 0
    monkeypatch.delenv("TICKSERVE_REGISTRY__ALLOW_PICKLE")
    with Service(tmp_path) as again, again.client() as client:
        assert {card.family for card in client.models()} == {
            f"eurusd_1h_any_{name}" for name in wanted if name != "pickled"
        }
        assert again.stop() == 0
