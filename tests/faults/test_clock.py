"""A clock that is set back or forward while the daemon runs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.daemon import Service, model_info, train
from tests.faults.preload.library import preload
from tickserve_registry.model_registry import ModelRegistry

FAMILY = "eurusd_1h_xgb_bench"
ROW = {f"f{place}": 0.1 for place in range(5)}
HOUR = 3_600
DAY = 24 * HOUR
PERIODS_S = 8.0


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A daemon whose clock follows a file; it writes figures back every half second."""
    made = Service(
        tmp_path, writeback_seconds=0.5, settings={"RECORDER__METRIC_LOG_SECONDS": "0.5"}
    )
    made.environment |= {
        "LD_PRELOAD": preload("clock", tmp_path),
        "CLOCK_STEP": str(tmp_path / "step"),
    }
    registry = ModelRegistry(str(made.storage))
    registry.save_model(train(trees=5), model_info(), environment="production")
    with made:
        yield made


def trade(service: Service, number: int) -> None:
    """Let a bot trade once, by what it thinks is the time: that of the world."""
    with service.client(timeout=2.0) as client:
        prediction = client.predict(FAMILY, ROW)
        now = round(time.time() * 1000)
        ack = client.report(
            trade=str(number),
            prediction_id=prediction.prediction_id,
            build=prediction.build,
            pnl=1.0,
            opened_at=now - 1000,
            closed_at=now,
        )
        assert ack.status == "recorded", ack


def require_written(service: Service, trades: int) -> dict[str, Any]:
    """The figures of so many trades reach the metadata within a few periods."""
    deadline = time.monotonic() + PERIODS_S
    while True:
        document = ModelRegistry(service.storage).metadata(FAMILY).document
        live: dict[str, Any] = document.get("performance", {}).get("live", {})
        if live.get("n_trades") == trades:
            return live
        assert time.monotonic() < deadline, f"no write-back: {live.get('n_trades')}"
        time.sleep(0.1)


@pytest.mark.parametrize("seconds", [-HOUR, DAY, -DAY])
def test_write_back_goes_on(service: Service, tmp_path: Path, seconds: int) -> None:
    """After a step of the clock, and after the step back; no time is below zero."""
    trade(service, 1)
    require_written(service, 1)
    for number, step in ((2, seconds), (3, 0)):
        (tmp_path / "step").write_text(str(step))
        time.sleep(0.3)
        trade(service, number)
        live = require_written(service, number)
        assert _times(live)
        assert all(value >= 0 for value in _times(live))
    assert service.stop() == 0
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert sum(line["event"] == "clock_stepped" for line in lines) >= 2
    metrics = [line for line in lines if line["event"] == "live_metrics"]
    assert metrics
    assert all(value >= 0 for line in metrics for value in _times(line))


def _times(block: dict[str, Any]) -> list[float]:
    """Every latency, lag and age in a block."""
    found = []
    for name, value in block.items():
        if isinstance(value, dict):
            found += _times(value)
        elif name.endswith(("_us", "_ms", "_age_s")) and value is not None:
            found.append(value)
    return found
