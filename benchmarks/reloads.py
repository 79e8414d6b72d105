"""Promotions under steady load: errors, mixed replies, the tail of latency, and how soon."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.daemon import Service, model_info, train
from benchmarks.load import Load
from benchmarks.round_trip import percentile, request
from tickserve_registry.model_registry import ModelRegistry

FAMILY = "eurusd_1h_xgb_bench"
CLIENTS = 8
LONGEST_S = 10.0
PACE_S = 0.01
"""Between two requests of a client: a steady load, far from the most that the server can."""


def main(options: Sequence[str]) -> None:
    """Measure with and without reloads, a write-back every second in both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reloads", type=int, default=100)
    parser.add_argument("--pause", type=float, default=0.2, help="seconds between two promotions")
    chosen = parser.parse_args(options)
    with TemporaryDirectory() as folder:
        service = Service(Path(folder), writeback_seconds=1.0)
        registry = ModelRegistry(str(service.storage))
        registry.save_model(train(), model_info(), environment="production")
        registry.save_model(train(seed=8), model_info(version=2))
        with service:
            _measure(service, registry, reloads=chosen.reloads, pause_s=chosen.pause)


def _measure(service: Service, registry: ModelRegistry, *, reloads: int, pause_s: float) -> None:
    body = [msgspec.msgpack.encode(request(5))]
    load = Load(
        service.endpoints.predict, body, clients=CLIENTS, expect=b"prediction", pace_s=PACE_S
    )
    load.run(1.0)
    seconds = max(1.0, reloads * (pause_s + 0.05))
    before = load.run(seconds)
    load.begin(seconds)
    delays = list(_promotions(service, registry, reloads=reloads, pause_s=pause_s))
    during = load.end()
    after = load.run(seconds)
    load.close()
    quiet = before.durations + after.durations
    print(
        f"{len(delays)} reloads under {CLIENTS} clients ({during.rate:,.0f}/s): "
        f"{during.replies} replies, {during.wrong} errors"
    )
    for at in (0.5, 0.99, 0.999):
        loaded, base = percentile(during.durations, at), percentile(quiet, at)
        print(f"  p{at * 100:g} {loaded:.0f} µs, without {base:.0f} µs, ratio {loaded / base:.2f}")
    print(
        f"promotion returned → first reply by the new build: median "
        f"{statistics.median(delays) * 1000:.1f} ms, worst {max(delays) * 1000:.1f} ms"
    )


def _promotions(
    service: Service, registry: ModelRegistry, *, reloads: int, pause_s: float
) -> Iterator[float]:
    """Promote the two versions in turn; yield how long each took to answer, in seconds."""
    row = {f"f{index}": 0.1 * index for index in range(5)}
    with service.client() as client:
        for turn in range(reloads):
            version = 2 - turn % 2
            promoted = registry.promote_model(f"{FAMILY}_v{version}")
            returned = time.perf_counter()
            while client.predict(FAMILY, row, log=False).build != promoted.build:
                assert time.perf_counter() - returned < LONGEST_S, "the new build never answered"
            yield time.perf_counter() - returned
            time.sleep(pause_s)
