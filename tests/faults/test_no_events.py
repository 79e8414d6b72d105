"""No inotify events (network file system): polling sees the promotion within two polls."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.daemon import Service, model_info, train
from tests.faults.preload.library import preload
from tickserve_registry.model_registry import ModelRegistry

FAMILY = "eurusd_1h_xgb_bench"
ROW = {f"f{index}": 0.25 * index for index in range(5)}
POLL_S = 1.0
LOAD_S = 0.5


def test_polling_sees_a_promotion(tmp_path: Path, figure: Callable[[str], None]) -> None:
    """Without a single event from the file system; the counter-check has events and is faster."""
    service = Service(tmp_path, settings={"SERVING__POLL_SECONDS": str(POLL_S)})
    registry = ModelRegistry(str(service.storage))
    for version in (1, 2):
        registry.save_model(train(trees=5 + version), model_info(version=version))
    registry.promote_model(f"{FAMILY}_v1")
    told = promotions(service, registry)
    assert min(told) < POLL_S / 4
    service.environment["LD_PRELOAD"] = preload("inotify", tmp_path)
    polled = promotions(service, registry)
    assert max(polled) < 2 * POLL_S + LOAD_S
    assert max(polled) > POLL_S / 4
    figure(f"with events {max(told):.2f} s, without {max(polled):.2f} s at polls of {POLL_S:g} s")


def promotions(service: Service, registry: ModelRegistry) -> list[float]:
    """Promote the two versions in turn; return how long each took to answer, in seconds."""
    took = []
    with service, service.client() as client:
        for _ in range(4):
            champion = client.predict(FAMILY, ROW).model_id
            (other,) = {f"{FAMILY}_v1", f"{FAMILY}_v2"} - {champion}
            registry.promote_model(other)
            began = time.monotonic()
            while client.predict(FAMILY, ROW).model_id != other:
                assert time.monotonic() - began < 10 * POLL_S
            took.append(time.monotonic() - began)
            time.sleep(0.3 * POLL_S)
        assert service.stop() == 0
    return took
