"""Tests of importing what the naming convention's own utility has laid out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import xgboost
from sklearn.linear_model import LogisticRegression

from tickserve_registry.errors import ArtefactRefused, MetadataRefused
from tickserve_registry.intake import Imported
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.policy import PromotionPolicy

FEATURES = ["rsi_14", "ema_20", "ema_50", "atr_14", "hour_of_day"]


class OldStorage:
    """A folder as the convention's own utility leaves it: naive times, two copies, joblib dumps."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.index: list[dict[str, Any]] = []
        (root / "metadata").mkdir(parents=True)

    def save(self, model: Any, model_id: str, date: str, **more: Any) -> Path:
        """Save to staging; the file ends in .model whatever it is."""
        market, version = model_id.split("_", maxsplit=1)[0], model_id.rpartition("_")[2]
        folder = self.root / "staging" / market / version
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{model_id}_{date}.model"
        if hasattr(model, "save_model"):
            shutil.copyfile(self._written(model), path)
        else:
            joblib.dump(model, path)
        info = {"model_id": model_id, "features": FEATURES, "version": version[1:], **more}
        info["created_at"] = f"{date[:4]}-{date[4:6]}-{date[6:]}T09:30:00.123456"
        path.with_suffix(".json").write_text(json.dumps(info, indent=2))
        placed = {"file_path": f"./elsewhere/{path.relative_to(self.root)}"}
        self.index.append(info | placed | {"environment": "staging"})
        return path

    def promote(self, path: Path) -> None:
        """Copy to production and leave the staging files behind."""
        target = self.root / "production" / path.parent.relative_to(self.root / "staging")
        shutil.copytree(path.parent, target)
        for entry in self.index:
            if Path(entry["file_path"]).stem == path.stem:
                entry["environment"] = "production"
                entry["file_path"] = f"./elsewhere/{(target / path.name).relative_to(self.root)}"

    def close(self) -> None:
        """Write the index."""
        text = json.dumps({"models": self.index}, indent=2)
        (self.root / "metadata" / "registry.json").write_text(text)

    def _written(self, model: Any) -> Path:
        path = self.root / "scratch.ubj"
        model.save_model(path)
        return path.rename(self.root / "scratch")


@pytest.fixture
def booster(inputs: Any) -> Any:
    """Return a small booster."""
    table = xgboost.DMatrix(inputs, inputs[:, 0] > 0)
    return xgboost.train({"objective": "binary:logistic", "nthread": 1}, table, 3)


@pytest.fixture
def old(tmp_path: Path, booster: Any, inputs: Any) -> OldStorage:
    """Return an old folder: two versions of XGBoost, of which one is promoted, and a joblib."""
    storage = OldStorage(tmp_path / "old")
    storage.promote(storage.save(booster, "eurusd_5m_xgb_trend_v1", "20250325"))
    storage.save(booster, "eurusd_5m_xgb_trend_v2", "20250401", notes="second", status="new")
    line = LogisticRegression().fit(inputs, inputs[:, 0] > 0)
    storage.save(line, "us100_15m_logit_breakout_v2", "20250402")
    storage.close()
    (storage.root / "scratch").unlink()
    return storage


def outcomes(found: list[Imported]) -> dict[str, str]:
    """Return each build's outcome."""
    return {each.build: each.outcome for each in found}


def test_an_old_folder_is_brought_in(registry: ModelRegistry, old: OldStorage) -> None:
    """Environments and times are kept, two copies are one build, a pickle waits for the opt-in."""
    found = list(registry.import_folder(old.root))
    assert outcomes(found) == {
        "eurusd_5m_xgb_trend_v1_20250325": "imported",
        "eurusd_5m_xgb_trend_v2_20250401": "imported",
        "us100_15m_logit_breakout_v2_20250402": "refused",
    }
    assert "allow_pickle=True" in str(found[2].reason)
    assert "another copy" in found[0].notes[0]
    first, second = registry.entries()
    assert (first.environment, first.created_at) == ("production", "2025-03-25T09:30:00Z")
    assert second.environment == "staging"
    document = registry.metadata(second.build).document
    assert (document["notes"], document["status"], document["version"]) == ("second", "staging", 2)
    assert "file_path" not in document
    assert registry.verify()
    assert [change.action for change in registry.history()] == ["import", "import"]
    trusting = ModelRegistry(registry.storage_root, allow_pickle=True)
    again = list(trusting.import_folder(old.root))
    assert [each.outcome for each in again] == ["present", "present", "imported"]
    model, document = registry.load_model("us100_15m_logit_breakout")
    assert isinstance(model, LogisticRegression)
    assert document["format"] == "skops"
    assert registry.verify()


def test_without_an_index_the_folders_speak(
    registry: ModelRegistry, old: OldStorage, booster: Any
) -> None:
    """Of two copies the one in production counts; one that differs is mentioned."""
    (old.root / "metadata" / "registry.json").unlink()
    staged = old.root / "staging/eurusd/v1/eurusd_5m_xgb_trend_v1_20250325.model"
    staged.write_bytes(bytes(booster.save_raw("json")))
    found = next(iter(registry.import_folder(old.root)))
    assert (found.outcome, found.environment) == ("imported", "production")
    assert any("differs" in note for note in found.notes)


def test_a_dry_run_writes_nothing(registry: ModelRegistry, old: OldStorage) -> None:
    """It reports the same outcomes and leaves the registry as it is."""
    found = list(registry.import_folder(old.root, dry_run=True))
    assert [each.outcome for each in found] == ["would import", "would import", "refused"]
    assert registry.entries() == ()


def test_what_cannot_be_taken_over_says_why(
    registry: ModelRegistry, old: OldStorage, booster: Any
) -> None:
    """Each fault costs its own model only."""
    folder = old.root / "staging" / "x"
    folder.mkdir()
    raw = bytes(booster.save_raw("ubj"))
    files: dict[str, tuple[bytes, str | None]] = {
        "gold_1h_xgb_trend_v1_20250101": (raw, None),
        "gold_1h_xgb_trend_v2_20250101": (b"neither this nor that", "{}"),
        "unknown_0m_model_unknown_v1_20250101": (raw, "{}"),
        "gold_1h_xgb_trend_v3_20250101": (raw, '{"features": ["a"], "features": ["b"]}'),
        "gold_1h_xgb_trend_v4_20250101": (raw[: len(raw) // 2], '{"features": ["a"]}'),
        "gold_1h_xgb_trend_v5_20250101": (b"", None),
        "gold_1h_xgb_trend_v6_20259999": (raw, json.dumps({"features": FEATURES})),
    }
    for stem, (data, text) in files.items():
        (folder / f"{stem}.model").write_bytes(data)
        if text is not None:
            (folder / f"{stem}.json").write_text(text)
    (folder / "gold_1h_xgb_trend_v5_20250101.model").unlink()
    (folder / "gold_1h_xgb_trend_v5_20250101.json").write_text("{}")
    found = {each.build: each for each in registry.import_folder(old.root)}
    reasons = {
        "gold_1h_xgb_trend_v1_20250101": "no metadata",
        "gold_1h_xgb_trend_v2_20250101": "no known model file",
        "unknown_0m_model_unknown_v1_20250101": "is not allowed",
        "gold_1h_xgb_trend_v3_20250101": "twice",
        "gold_1h_xgb_trend_v4_20250101": "does not parse",
        "gold_1h_xgb_trend_v5_20250101": "no model file",
        "gold_1h_xgb_trend_v6_20259999": "real date",
    }
    for stem, words in reasons.items():
        assert found[stem].outcome == "refused", stem
        assert words in str(found[stem].reason), found[stem].reason
    assert [each.outcome for each in found.values()].count("imported") == 2
    assert registry.verify()


def test_the_policy_holds_for_imports(old: OldStorage, tmp_path: Path) -> None:
    """A model that may not go to production arrives in staging, with the reason."""
    policy = PromotionPolicy(min_validation_sharpe=1.0)
    registry = ModelRegistry(tmp_path / "strict", policy=policy)
    first = next(iter(registry.import_folder(old.root)))
    assert (first.outcome, first.environment) == ("imported", "staging")
    assert "min_validation_sharpe" in str(first.reason)


def test_a_folder_that_is_none(registry: ModelRegistry, old: OldStorage, tmp_path: Path) -> None:
    """A missing folder and a torn index are named."""
    with pytest.raises(ArtefactRefused, match="is no folder"):
        registry.import_folder(tmp_path / "nowhere")
    (old.root / "metadata" / "registry.json").write_text('{"models": [')
    with pytest.raises(MetadataRefused, match=r"registry\.json"):
        registry.import_folder(old.root)


def test_a_model_file_is_saved(registry: ModelRegistry, booster: Any, tmp_path: Path) -> None:
    """save_file tells the framework by the bytes, and takes names that the model knows."""
    path = tmp_path / "trained.bin"
    named = booster.copy()
    named.feature_names = FEATURES
    path.write_bytes(bytes(named.save_raw("json")))
    registry.save_file(path, {"model_id": "eurusd_1h_xgb_trend_v1"})
    assert registry.metadata("eurusd_1h_xgb_trend").features == tuple(FEATURES)
    rows = np.zeros((1, 5), dtype=np.float32)
    model, _ = registry.load_model("eurusd_1h_xgb_trend")
    np.testing.assert_array_equal(
        model.inplace_predict(rows, validate_features=False), booster.inplace_predict(rows)
    )
