"""What a monitoring system reads: the scraped metrics and the metric log."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.daemon import Service, model_info, train
from tickserve_client import ServerError
from tickserve_registry.model_registry import ModelRegistry

FAMILY = "eurusd_1h_xgb_bench"
ROW = {f"f{place}": 0.1 for place in range(5)}
MONDAY = 1_742_860_800_000
NAMES = {
    "tickserve_predictions",
    "tickserve_prediction_duration_seconds",
    "tickserve_outcomes",
    "tickserve_model_load_duration_seconds",
    "tickserve_model_info",
    "tickserve_live_sharpe_ratio",
    "tickserve_live_drawdown_ratio",
    "tickserve_live_win_ratio",
    "tickserve_live_profit_factor",
    "tickserve_writeback_age_seconds",
    "tickserve_ledger_commit_seconds",
    "tickserve_dropped_records",
    "tickserve_failed_turns",
    "tickserve_parked_predictions",
    "tickserve_events",
    "tickserve_build_info",
    "tickserve_ready",
    "tickserve_ledger_writable",
    "tickserve_models_served",
    "tickserve_models_failing",
    "tickserve_models_halted",
    "tickserve_serving_silence_seconds",
    "tickserve_reloads",
    "tickserve_model_load_failures",
    "tickserve_connections_refused",
    "tickserve_resident_memory_bytes",
    "tickserve_open_descriptors",
}


@pytest.fixture(scope="module")
def address() -> str:
    """A free address on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, address: str) -> Iterator[Service]:
    """A daemon that has answered 20 rows, refused one, and heard of a trade twice."""
    folder = tmp_path_factory.mktemp("metrics")
    made = Service(
        folder,
        writeback_seconds=0.5,
        settings={
            "OPS__LISTEN": address,
            "RECORDER__METRIC_LOG_SECONDS": "0.5",
            "RECORDER__METRIC_LOG_FILE": str(folder / "metrics.jsonl"),
        },
    )
    registry = ModelRegistry(str(made.storage))
    registry.save_model(train(trees=5), model_info(), environment="production")
    with made, made.client() as client:
        build = [client.predict(FAMILY, ROW).build for _ in range(20)][-1]
        with pytest.raises(ServerError):
            client.predict(FAMILY, {"f0": 1.0})
        for _ in range(2):
            client.report(trade="1", build=build, pnl=-2.0, opened_at=MONDAY, closed_at=MONDAY)
        deadline = time.monotonic() + 10
        while not _told(made) and time.monotonic() < deadline:
            time.sleep(0.2)
        yield made


def _told(service: Service) -> bool:
    """Whether the log has a line with the trade and all predictions."""
    lines = [line for line in _lines(service.log) if line["event"] == "live_metrics"]
    wanted = {"n_trades": 1, "predictions_total": 20, "errors_total": 1}
    return any(wanted.items() <= line.items() for line in lines)


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def scrape(address: str) -> dict[str, Any]:
    """Return the metric families by name."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as reply:
        text = reply.read().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_prometheus_reads_every_metric(service: Service, address: str) -> None:
    """Names, labels and values; what is undefined is left out."""
    found = scrape(address)
    assert set(found) == NAMES
    (entry,) = ModelRegistry(service.storage).production()
    predictions = {
        (each.labels["model"], each.labels["outcome"]): each.value
        for each in found["tickserve_predictions"].samples
    }
    assert predictions == {(entry.build, "ok"): 20, (entry.build, "missing_features"): 1}
    outcomes = {e.labels["status"]: e.value for e in found["tickserve_outcomes"].samples}
    assert outcomes == {"recorded": 1, "duplicate": 1}
    (info,) = found["tickserve_model_info"].samples
    assert (info.labels["model"], info.labels["engine"]) == (entry.build, "onnxruntime")
    assert found["tickserve_live_sharpe_ratio"].samples == []
    (drawdown,) = found["tickserve_live_drawdown_ratio"].samples
    assert drawdown.value == pytest.approx(2e-4)
    (age,) = found["tickserve_writeback_age_seconds"].samples
    assert 0 <= age.value < 5


def test_every_metric_is_documented(service: Service, address: str, project_root: Path) -> None:
    """docs/live-metrics.md lists each by the name that a scrape has."""
    assert service.pid
    text = (project_root / "docs" / "live-metrics.md").read_text()
    for name, family in scrape(address).items():
        shown = f"{name}_total" if family.type == "counter" else name
        assert f"`{shown}`" in text, shown


def test_durations_are_cumulative_from_10_us_to_100_ms(service: Service, address: str) -> None:
    """The last bucket holds all; each bound is a bucket's own."""
    assert service.pid
    samples = scrape(address)["tickserve_prediction_duration_seconds"].samples
    found = [(float(e.labels["le"]), e.value) for e in samples if e.name.endswith("_bucket")]
    bounds, counts = zip(*found, strict=True)
    assert list(bounds) == sorted(bounds)
    assert list(counts) == sorted(counts)
    assert counts[-1] == 20
    assert 10e-6 <= bounds[0] < 12e-6
    assert 0.1 <= bounds[-2] < 0.12


def test_the_metric_log_is_as_documented(service: Service, project_root: Path) -> None:
    """Each line meets the published schema, in the log and in the file; no line has a NaN."""
    text = (project_root / "docs" / "metric-log.schema.json").read_text()
    validator = jsonschema.Draft202012Validator(json.loads(text))
    in_log = [line for line in _lines(service.log) if line["event"] == "live_metrics"]
    in_file = _lines(service.storage.parent / "metrics.jsonl")
    assert in_log
    assert in_file
    for line in [*in_log, *in_file]:
        validator.validate(line)
    assert "NaN" not in service.log.read_text()
    last = in_file[-1]
    assert (last["market"], last["timeframe"], last["strategy"]) == ("eurusd", "1h", "bench")
    assert (last["n_trades"], last["net_pnl"], last["sharpe_ratio"]) == (1, -2.0, None)
    assert (last["predictions_total"], last["errors_total"]) == (20, 1)


def test_a_taken_address_is_named(service: Service, address: str, tmp_path: Path) -> None:
    """The second daemon says which setting is at fault and ends."""
    assert service.pid
    other = Service(tmp_path)
    run = subprocess.run(
        [*other.command(), "--ops", address],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 1
    assert f"cannot listen at {address} (ops)" in run.stderr
