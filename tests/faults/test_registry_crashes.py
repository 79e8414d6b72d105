"""Crashes of the registry: killed at every step on disk, every change is whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import xgboost

from tests.faults.crashing import FAMILY, LIVE, SCENARIOS
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.saving import make_build

SECONDS = 120.0
FEWEST_POINTS = {
    "save": 49,
    "save to production": 73,
    "promote": 73,
    "promote and keep": 49,
    "archive": 49,
    "rollback": 69,
    "write-back": 8,
    "rebuild": 14,
}


class Template:
    """A root with versions 1 (archive), 2 (production) and 3 (staging), and an unsaved fourth."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "template"
        rows = np.arange(20, dtype=np.float32).reshape(10, 2)
        model = xgboost.train({"nthread": 1}, xgboost.DMatrix(rows, rows[:, 0]), 1)
        registry = ModelRegistry(self.root)
        for version in (1, 2, 3):
            registry.save_model(model, self._info(version))
        registry.promote_model(f"{FAMILY}_v1")
        registry.promote_model(f"{FAMILY}_v2")
        registry.record_live_performance(registry.find(f"{FAMILY}_v2").build, {"n_trades": 1})
        self.new_build = folder / "new"
        new = make_build(model, self._info(4), sample=None)
        self.new_build.write_bytes(msgspec.msgpack.encode(new))
        self.before = {e.build: e.environment for e in registry.entries()}
        self.history = len(registry.history())

    @staticmethod
    def _info(version: int) -> dict[str, Any]:
        return {"model_id": f"{FAMILY}_v{version}", "features": ["a", "b"], "date": "20250325"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """Return a root to crash in."""
    return Template(tmp_path_factory.mktemp("crashes"))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_every_step(
    template: Template,
    tmp_path: Path,
    project_root: Path,
    scenario: str,
    figure: Callable[[str], None],
) -> None:
    """Each crash leaves the old state or the new, readable at once and repaired with no loss."""
    run = subprocess.run(
        [
            sys.executable,
            str(project_root / "tests/faults/crashing.py"),
            str(template.root),
            str(tmp_path),
            str(template.new_build),
            scenario,
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    report = json.loads(run.stdout)
    done, crashes = report["done"], report["crashes"]
    assert done["clean"]
    assert len(crashes) >= FEWEST_POINTS[scenario]
    figure(f"{scenario}: killed at each of {len(crashes)} steps")
    states = [template.before, done["seen"], *([None] if scenario == "rebuild" else [])]
    for number, crash in enumerate(crashes, start=1):
        assert crash["problems"] == [], f"point {number}"
        assert crash["seen"] in states, f"point {number}"
        environments = {build: each[0] for build, each in crash["after"].items()}
        assert environments in states, f"point {number}"
        committed = environments == done["seen"] and environments != template.before
        expected = done["history"] if committed else done["history"][: template.history]
        assert crash["history"] == expected, f"point {number}"
        live = crash["after"][f"{FAMILY}_v2_20250325"][2]
        assert live == {"n_trades": 1} or (live == LIVE and scenario == "write-back")
