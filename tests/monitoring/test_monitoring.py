"""Alerts and dashboard: what Prometheus itself makes of them, over a real daemon's metrics."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from benchmarks.daemon import Service, model_info, train
from tickserve_client import ServerError
from tickserve_registry.model_registry import ModelRegistry

FOLDER = Path(__file__).parent
UNPACKED = FOLDER / ".prometheus" / "usr" / "bin"
NAME = re.compile(r"tickserve_[a-z_]+")
FAMILY = "eurusd_1h_xgb_bench"
ROW = {f"f{place}": 0.1 for place in range(5)}
PATIENCE_S = 30.0


def program(name: str) -> str:
    """Return the path of a program of Prometheus, or skip the test."""
    found = shutil.which(name) or shutil.which(UNPACKED / name)
    return found or missing(name)


def missing(name: str) -> NoReturn:
    """Skip for a program; where CI=true fail, unless `install` noted why."""
    noted = FOLDER / "unavailable"
    reason = noted.read_text() if noted.exists() else ""
    if os.environ.get("CI") == "true" and not reason:
        pytest.fail(f"{name} is missing where CI=true: run tests/monitoring/install first")
    pytest.skip(reason or f"{name} is missing: run tests/monitoring/install")


@pytest.fixture(scope="module")
def monitoring(project_root: Path) -> Path:
    """Return the folder of what is shipped."""
    return project_root / "config" / "monitoring"


def rules(monitoring: Path) -> dict[str, str]:
    """Return the expression of each alert."""
    document = yaml.safe_load((monitoring / "alerts.yml").read_text())
    return {rule["alert"]: rule["expr"] for group in document["groups"] for rule in group["rules"]}


def queries(monitoring: Path) -> dict[str, str]:
    """Return the expressions of the dashboard's panels, by panel, as Grafana would ask them."""
    dashboard = json.loads((monitoring / "grafana" / "tickserve.json").read_text())
    found = {}
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", "1m").replace("$model", ".*")
            found[f"{panel['title']} {target['refId']}"] = text
    return found


def test_every_alert_fires_when_it_should_and_not_before(monitoring: Path) -> None:
    """Promtool runs the rules' unit tests, which name every alert with and without cause."""
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(FOLDER / "alerts_test.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tested = (FOLDER / "alerts_test.yml").read_text()
    for alert in rules(monitoring):
        entries = re.findall(rf"alertname: {alert}\b(.*\n +exp_alerts)?", tested)
        assert any(entries), f"{alert} is never seen to fire"


def test_the_configuration_is_sound(monitoring: Path) -> None:
    """Promtool finds nothing in prometheus.yml and the rules it names."""
    command = [program("promtool"), "check", "config", str(monitoring / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def ops() -> str:
    """Return a free address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, ops: str) -> Iterator[Service]:
    """A daemon that has answered, refused and recorded."""
    folder = tmp_path_factory.mktemp("monitoring")
    made = Service(folder, writeback_seconds=0.5, settings={"OPS__LISTEN": ops})
    registry = ModelRegistry(str(made.storage))
    registry.save_model(train(trees=5), model_info(), environment="production")
    with made:
        work(made, trades=2)
        yield made


def work(service: Service, *, trades: int) -> None:
    """Ask, be refused, and report a win and a loss on different days."""
    with service.client(timeout=10.0) as client:
        build = [client.predict(FAMILY, ROW).build for _ in range(20)][-1]
        with pytest.raises(ServerError):
            client.predict(FAMILY, {"f0": 1.0})
        for number in range(trades):
            at = 1_742_860_800_000 + 86_400_000 * number
            pnl = -1.0 if number % 2 else 2.0
            client.report(
                trade=f"{time.time()}", build=build, pnl=pnl, opened_at=at, closed_at=at, timeout=10
            )


def get(where: str, token: str | None = None) -> tuple[int, str]:
    """Return status and text of the page at an address and path."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"http://{where}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:  # noqa: S310 - always http
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_every_name_that_is_asked_for_is_exported(
    monitoring: Path, service: Service, ops: str
) -> None:
    """No panel and no alert asks for a metric that there is not."""
    assert service.pid
    _, text = get(f"{ops}/metrics")
    types = re.findall(r"^# TYPE (\S+) (\S+)$", text, flags=re.MULTILINE)
    exported = {name for name, _ in types}
    exported |= {f"{name}_bucket" for name, kind in types if kind == "histogram"}
    expressions = {**rules(monitoring), **queries(monitoring)}
    for where, expression in expressions.items():
        asked = set(NAME.findall(re.sub(r'"[^"]*"', "", expression)))
        assert asked <= exported, where
    shown = {name for each in expressions.values() for name in NAME.findall(each)}
    unseen = {name for name in exported if name.removesuffix("_bucket") not in shown}
    unseen = {name for name in unseen if f"{name}_bucket" not in shown}
    assert unseen <= {
        "tickserve_build_info",
        "tickserve_model_info",
        *(name for name in exported if name.endswith("_bucket")),
    }


def test_prometheus_answers_every_query(
    monitoring: Path, service: Service, ops: str, tmp_path: Path
) -> None:
    """A real Prometheus scrapes the daemon: each panel's query has data, each rule is healthy."""
    server = program("prometheus")
    config = yaml.safe_load((monitoring / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(monitoring / "alerts.yml")]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [ops]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [server, f"--config.file={tmp_path / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address={address}"]
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(command, stderr=log, stdout=log)
    try:
        empty = set(queries(monitoring))
        deadline = time.monotonic() + PATIENCE_S
        while empty and time.monotonic() < deadline:
            work(service, trades=2)
            time.sleep(1.0)
            found = {name: ask(address, queries(monitoring)[name]) for name in empty}
            empty = {name for name, result in found.items() if not result}
        assert empty == set()
        _, text = get(f"{address}/api/v1/rules")
        groups = json.loads(text)["data"]["groups"]
        health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
        assert health == dict.fromkeys(rules(monitoring), "ok")
        firing = ask(address, 'ALERTS{alertstate="firing"}')
        assert firing == []
    finally:
        running.terminate()
        running.wait(PATIENCE_S)


def ask(address: str, query: str) -> list[Any]:
    """Return the result of an instant query; nothing while the server is starting."""
    parameters = urllib.parse.urlencode({"query": query})
    try:
        status, text = get(f"{address}/api/v1/query?{parameters}")
    except OSError:
        return []
    if status != 200:
        assert status == 503, f"{query}: {text}"
        return []
    result: list[Any] = json.loads(text)["data"]["result"]
    return result


def test_panels_lie_beside_each_other(monitoring: Path) -> None:
    """No two cover each other, each says what it shows, all ask the chosen source."""
    dashboard = json.loads((monitoring / "grafana" / "tickserve.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["description"].endswith(".")
        assert panel["datasource"]["uid"] == "${datasource}"


def test_probes_tell_what_is_wrong(service: Service, ops: str) -> None:
    """Alive and ready; a halt is told; without the ledger it is not ready and says why."""
    status, text = get(f"{ops}/healthz")
    assert (status, json.loads(text)["alive"]) == (200, True)
    status, text = get(f"{ops}/readyz")
    assert (status, json.loads(text)) == (
        200,
        {"ready": True, "reasons": [], "degraded": [], "models": 1, "failing": 0, "halted": 0},
    )
    assert get(f"{ops}/other")[0] == 404
    registry = ModelRegistry(str(service.storage))
    registry.halt_model(FAMILY, reason="test")
    until(lambda: json.loads(get(f"{ops}/readyz")[1])["halted"] == 1)
    registry.resume_model(FAMILY)


def until(condition: Any) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_beyond_loopback_only_with_a_token(tmp_path: Path) -> None:
    """Without one the daemon does not start; with one, only probes answer strangers."""
    made = Service(tmp_path, settings={"OPS__LISTEN": "0.0.0.0:0"})
    registry = ModelRegistry(str(made.storage))
    registry.save_model(train(trees=5), model_info(), environment="production")
    with pytest.raises(RuntimeError, match=r"ops\.token_file"):
        made.start()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = tmp_path / "token"
    token.write_text("x\n")
    made.environment |= {
        "TICKSERVE_OPS__LISTEN": f"127.0.0.1:{port}",
        "TICKSERVE_OPS__TOKEN_FILE": str(token),
    }
    with pytest.raises(RuntimeError, match="less than 16 characters"):
        made.start()
    token.write_text("correct horse battery staple\n")
    with made:
        base = f"127.0.0.1:{port}"
        assert get(f"{base}/metrics")[0] == 401
        assert get(f"{base}/metrics", "wrong")[0] == 401
        assert get(f"{base}/metrics", "correct horse battery staple")[0] == 200
        until(lambda: get(f"{base}/readyz") == (200, "{}\n"))
        assert json.loads(get(f"{base}/readyz", "correct horse battery staple")[1])["ready"]


def test_scrapers_cannot_hold_the_server(service: Service, ops: str) -> None:
    """Connections that say nothing are a few at most, and do not keep others out for long."""
    assert service.pid
    host, _, port = ops.rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(30)]
    try:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                if get(f"{ops}/healthz")[0] == 200:
                    break
            except OSError:
                time.sleep(0.2)
        else:
            pytest.fail("the server answers nobody")
    finally:
        for each in silent:
            each.close()
    with service.client() as client:
        assert client.predict(FAMILY, ROW).output
