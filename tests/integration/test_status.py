"""`tickserve status` against a running daemon, and the metric log's percentiles."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.daemon import Service, model_info, train
from tickserve_client import ServerError
from tickserve_registry.model_registry import ModelRegistry

ROW = {f"f{index}": 0.25 * index for index in range(5)}
FAMILY = "eurusd_1h_xgb_bench"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A daemon that logs metrics every second and has answered 20 rows and refused one."""
    made = Service(
        tmp_path_factory.mktemp("status"), settings={"RECORDER__METRIC_LOG_SECONDS": "1"}
    )
    registry = ModelRegistry(str(made.storage))
    registry.save_model(train(trees=5), model_info(), environment="production")
    with made, made.client() as client:
        for _ in range(20):
            client.predict(FAMILY, ROW)
        with pytest.raises(ServerError):
            client.predict(FAMILY, {"f0": 1.0})
        yield made


def run(service: Service, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "tickserve_server", "status", *options]
    command += ["--storage", str(service.storage)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=os.environ | {"COLUMNS": "150"},
    )


def test_status_is_a_page_for_people(service: Service) -> None:
    """Build, digest, answers, errors, percentiles and the last reload can be read off."""
    shown = run(service)
    assert shown.returncode == 0
    assert re.search(
        rf"{FAMILY}_v1_\d{{8}} +[0-9a-f]{{8}} +onnxruntime +[\d:]{{8}} +20 +1 ", shown.stdout
    )
    assert "1 missing_features" in shown.stdout
    assert f"+{FAMILY}_v1_" in shown.stdout


def test_status_is_json_for_scripts(service: Service) -> None:
    """The percentiles are numbers in order, and nothing is degraded."""
    shown = run(service, "--json")
    assert shown.returncode == 0
    report = json.loads(shown.stdout)
    (model,) = report["models"]
    latency = model["latency"]
    assert model["predictions"] == latency["count"] == 20
    assert 0 < latency["p50_us"] <= latency["p99_us"] <= latency["max_us"]
    assert (report["degraded"], report["jobs"]) == ([], 0)


def test_watching_prints_a_document_each_time(service: Service) -> None:
    """With --json each look is one line, until the command is ended."""
    command = [sys.executable, "-m", "tickserve_server", "status", "--watch", "--every", "0.1"]
    command += ["--json", "--storage", str(service.storage)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        reports = [json.loads(watching.stdout.readline()) for _ in range(3)]
        watching.terminate()
    assert {report["pid"] for report in reports} == {service.child("serving")}


def test_the_metric_log_shows_what_came_since_its_last_line(service: Service) -> None:
    """The requests of all lines add up to those made; later lines count no request twice."""

    def lines() -> list[dict[str, Any]]:
        found = [json.loads(line) for line in service.log.read_text().splitlines()]
        return [line for line in found if line["event"] == "live_metrics"]

    deadline = time.monotonic() + 15
    while sum(line["requests"] for line in lines()) < 20 and time.monotonic() < deadline:
        time.sleep(0.2)
    count = len(lines())
    while len(lines()) < count + 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert sum(line["requests"] for line in lines()) == 20
    busy = next(line for line in lines() if line["requests"])
    assert 0 < busy["latency_p50_us"] <= busy["latency_p999_us"] <= busy["latency_max_us"]
    assert lines()[-1]["latency_p50_us"] is None


def test_a_daemon_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    """Exit code 1 and the command that starts it."""
    command = [sys.executable, "-m", "tickserve_server", "status", "--timeout", "0.2"]
    command += ["--storage", str(tmp_path)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert shown.returncode == 1
    assert "tickserve serve" in shown.stderr
