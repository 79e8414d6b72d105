"""What the registry costs at 10, 100, 1,000 and 10,000 builds, beside a bare file replacement."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from tickserve_registry.build import NewBuild
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.saving import make_build

SIZES = (10, 100, 1_000, 10_000)
REPEATS = 15
FAMILIES = 50
FEATURES = ["rsi_14", "ema_20", "ema_50", "atr_14", "hour_of_day"]
GOALS = "open < 100 ms, list < 150 ms, promote < 50 ms at 10,000 builds; write-back ≤ 4 × bare"


def template() -> NewBuild:
    """Return a build of a 100-tree model, whose files every build of the benchmark shares."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(500, len(FEATURES))).astype(np.float32)
    model = xgboost.XGBClassifier(n_estimators=100, max_depth=3, n_jobs=1)
    model.fit(rows, rows[:, 0] > 0)
    info = {"model_id": "m0_1h_xgb_trend_v1", "features": FEATURES, "date": "20250325"}
    figures = {"sharpe_ratio": 1.5, "max_drawdown": 0.1, "win_rate": 0.5, "profit_factor": 1.2}
    performance = {"backtest": figures, "validation": figures}
    return make_build(model, info | {"performance": performance}, sample=rows)


def populate(root: Path, new: NewBuild, count: int) -> ModelRegistry:
    """Lay out `count` builds by hand, one in ten in production, and index them by a rebuild."""
    registry = ModelRegistry(root)
    places = itertools.product(range(1, count), range(FAMILIES))
    for number, (version, market) in zip(range(count), places, strict=False):
        environment = "production" if number % 10 == 0 else "staging"
        build = f"m{market}_1h_xgb_trend_v{version}_20250325"
        folder = root / environment / f"m{market}" / f"v{version}"
        folder.mkdir(parents=True, exist_ok=True)
        document = new.document | {
            "build": build,
            "model_id": build[:-9],
            "market": f"m{market}",
            "version": version,
            "artefact": f"{build}.model",
            "environment": environment,
            "status": environment,
        }
        (folder / f"{build}.json").write_text(json.dumps(document, indent=2), encoding="utf-8")
        for suffix, data in ((".model", new.artefact), (".onnx", new.compiled)):
            (folder / f"{build}{suffix}").write_bytes(data or b"")
    if not registry.rebuild():
        raise SystemExit("the registry of the benchmark is not in order")
    return registry


def timed(act: Callable[[int], object], *, repeats: int = REPEATS) -> list[float]:
    """Return the milliseconds that each call took."""
    durations = []
    for number in range(repeats):
        began = time.perf_counter()
        act(number)
        durations.append((time.perf_counter() - began) * 1000)
    return durations


def bare_replacement(path: Path, data: bytes) -> None:
    """Replace a file atomically and durably, with nothing around it."""
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(descriptor, data)
    os.fsync(descriptor)
    os.close(descriptor)
    temporary.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def fresh_open(root: Path) -> float:
    """Return the milliseconds in which a fresh process opens the registry and reads its index."""
    program = (
        "import sys, time\nfrom tickserve_registry.model_registry import ModelRegistry\n"
        "began = time.perf_counter()\nModelRegistry(sys.argv[1]).entries()\n"
        "print((time.perf_counter() - began) * 1000)"
    )
    command = [sys.executable, "-c", program, str(root)]
    return float(subprocess.run(command, capture_output=True, check=True).stdout)


def measure(root: Path, new: NewBuild, count: int) -> dict[str, float]:
    """Return median milliseconds of each operation at one size."""
    registry = populate(root, new, count)
    waiting = [entry.build for entry in registry.entries() if entry.environment == "staging"]
    served = registry.production()[0].build
    file = root / "bare.json"
    data = next((root / "production").rglob("*.json")).read_bytes()
    live = {"sharpe_ratio": 1.0, "n_trades": 10}
    first = timed(lambda _: ModelRegistry(root).list_models(), repeats=3)
    time.sleep(0.1)
    registry.list_models()
    write_back: list[float] = []
    bare: list[float] = []
    for _ in range(REPEATS):
        bare += timed(lambda _: bare_replacement(file, data), repeats=3)
        write_back += timed(lambda _: registry.record_live_performance(served, live), repeats=3)
    repeats = min(REPEATS, len(waiting))
    figures: dict[str, list[float]] = {
        "open": [fresh_open(root) for _ in range(3)],
        "list first": first,
        "list warm": timed(lambda _: registry.list_models()),
        "promote": timed(lambda n: registry.promote_model(waiting[n]), repeats=repeats),
        "write-back": write_back,
        "bare": bare,
        "next_version": timed(lambda _: registry.next_version("m1_1h_xgb_trend")),
        "verify": timed(lambda _: registry.verify(), repeats=1),
    }
    if not registry.verify():
        raise SystemExit("the registry of the benchmark is not in order")
    return {name: statistics.median(values) for name, values in figures.items()}


def main(options: Sequence[str]) -> None:
    """Print a row for each size, in milliseconds, medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="builds, at most")
    largest = parser.parse_args(options).largest
    new = template()
    print(f"registry costs in ms, medians; goals: {GOALS}")
    for count in (size for size in SIZES if size <= largest):
        with tempfile.TemporaryDirectory() as folder:
            found: dict[str, Any] = measure(Path(folder) / "storage", new, count)
        ratio = found["write-back"] / found["bare"]
        cells = [f"{name} {value:8.2f}" for name, value in found.items()]
        print(f"{count:6} builds  " + "  ".join(cells) + f"  write-back ÷ bare {ratio:.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
