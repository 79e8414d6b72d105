"""Thousands of reloads in a row: memory and descriptors of the serving process, as a plot."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.daemon import Service, model_info, train
from benchmarks.many_models import MEBIBYTE, resident
from benchmarks.plot import Curve, picture
from tickserve_client import Client
from tickserve_registry.model_registry import ModelRegistry

FAMILY = "eurusd_1h_xgb_bench"
ROW = {f"f{index}": 0.1 * index for index in range(5)}
SAMPLES = 200
LONGEST_S = 10.0


class Sample(NamedTuple):
    """The serving process after a number of reloads."""

    reloads: int
    mebibytes: float
    descriptors: int


def main(options: Sequence[str]) -> None:
    """Promote two versions in turn, each time until it answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reloads", type=int, default=10_000)
    parser.add_argument("--plot", type=Path, help="write an SVG picture there")
    chosen = parser.parse_args(options)
    with TemporaryDirectory() as folder:
        service = Service(Path(folder), settings={"LOGGING__LEVEL": "error"})
        registry = ModelRegistry(str(service.storage))
        for version in (1, 2):
            model = train(seed=version)
            registry.save_model(model, model_info(version=version), environment="production")
        with service, service.client() as client:
            samples = _soak(service, registry, client, chosen.reloads)
    settled, last = samples[len(samples) // 10], samples[-1]
    print(
        f"{last.reloads:,} reloads: memory {settled.mebibytes:.0f} MiB after {settled.reloads:,}, "
        f"{last.mebibytes:.0f} MiB at the end ({last.mebibytes / settled.mebibytes - 1:+.1%}); "
        f"descriptors {settled.descriptors} → {last.descriptors}"
    )
    if chosen.plot:
        along = f"{last.reloads:,} reloads"
        chosen.plot.write_text(picture(curves(samples), along=along), encoding="utf-8")


def _soak(service: Service, registry: ModelRegistry, client: Client, reloads: int) -> list[Sample]:
    serving = service.child("serving")
    samples = []
    for turn in range(reloads):
        promoted = registry.promote_model(f"{FAMILY}_v{1 + turn % 2}")
        returned = time.monotonic()
        while client.predict(FAMILY, ROW, log=False).build != promoted.build:
            assert time.monotonic() - returned < LONGEST_S, "the new build never answered"
        if turn % max(1, reloads // SAMPLES) == 0 or turn == reloads - 1:
            open_files = len(list(Path(f"/proc/{serving}/fd").iterdir()))
            samples.append(Sample(turn + 1, resident(serving) / MEBIBYTE, open_files))
    return samples


def curves(samples: Sequence[Sample]) -> list[Curve]:
    """Return memory and descriptors over reloads."""
    memory = [(float(sample.reloads), sample.mebibytes) for sample in samples]
    files = [(float(sample.reloads), float(sample.descriptors)) for sample in samples]
    return [Curve("resident memory, MiB", memory), Curve("descriptors", files)]
