"""SIGTERM under load; SIGHUP; systemd watchdog; two daemons on one storage root and ledger."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.daemon import Service, model_info, train
from tests.service_manager import ServiceManager, descendants
from tickserve_client import ClientError
from tickserve_registry.model_registry import ModelRegistry
from tickserve_server.unit import user_files

FAMILY = "eurusd_1h_xgb_bench"
ROW = {f"f{index}": 0.25 * index for index in range(5)}
PATIENCE_S = 30.0
STUCK_S = 2.0
WATCHDOG_S = 4.0


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A daemon, not started, with one production model, that soon takes a process for stuck."""
    made = Service(tmp_path, settings={"SUPERVISOR__STUCK_SECONDS": str(STUCK_S)})
    registry = ModelRegistry(str(made.storage))
    registry.save_model(train(trees=5), model_info(), environment="production")
    return made


@pytest.fixture
def manager(service: Service, tmp_path: Path) -> Iterator[ServiceManager]:
    """The daemon as the unit of `tickserve install-service --user` runs it."""
    program = Path(sys.executable).parent / "tickserve"
    (unit,) = user_files(program, home=tmp_path, config=None, storage=service.storage)
    endpoints = {
        f"TICKSERVE_ENDPOINTS__{name.upper()}": endpoint
        for name, endpoint in service.endpoints._asdict().items()
    }
    environment = {**service.environment, **endpoints}
    with ServiceManager(
        unit.text, folder=tmp_path, environment=environment, watchdog_s=WATCHDOG_S
    ) as made:
        yield made


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def answers(service: Service) -> bool:
    """Whether a prediction is answered."""
    with service.client() as client:
        try:
            return client.predict(FAMILY, ROW).output is not None
        except ClientError:
            return False


def events(service: Service, name: str) -> list[dict[str, Any]]:
    """Return the log's events of a name."""
    log = service.log if service.log.exists() else service.log.with_name("service.log")
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


def child_of(pid: int, name: str) -> int | None:
    """Return the pid of a supervisor's child."""
    for each in descendants(pid):
        with contextlib.suppress(FileNotFoundError):
            if name in Path(f"/proc/{each}/cmdline").read_text().split("\0"):
                return each
    return None


def test_ready_is_told_when_it_answers_and_the_watchdog_is_fed(
    service: Service, manager: ServiceManager
) -> None:
    """READY=1 comes once, with the golden rows passed: the first request after it is answered."""
    until(lambda: manager.told("READY=1"))
    assert answers(service)
    until(lambda: len(manager.told("WATCHDOG=1")) > 5)
    assert len(manager.told("READY=1")) == 1
    assert (manager.starts, manager.watchdog_kills) == (1, 0)


def test_a_bad_model_is_never_ready(service: Service, manager: ServiceManager) -> None:
    """Where nothing can be served, READY=1 does not come and the start is tried again."""
    artefact = next((service.storage / "production").rglob("*.onnx"))
    artefact.chmod(0o600)
    artefact.write_bytes(b"no model")
    until(lambda: manager.starts > 2)
    assert manager.told("READY=1") == []


@pytest.mark.parametrize("name", ["serving", "recorder"])
def test_a_stuck_process_is_killed_and_started_again(
    service: Service, manager: ServiceManager, name: str, figure: Callable[[str], None]
) -> None:
    """It lives and gives no sign of life: the supervisor replaces it, systemd need not."""
    until(lambda: manager.told("READY=1"))
    stuck = child_of(manager.pid, name)
    assert stuck is not None
    os.kill(stuck, signal.SIGSTOP)
    stopped_at = time.monotonic()
    until(lambda: child_of(manager.pid, name) not in (stuck, None))
    until(lambda: answers(service))
    took = time.monotonic() - stopped_at
    assert took < 20.0
    figure(f"{name}: replaced {took:.1f} s after it was stopped, stuck_seconds being {STUCK_S:g}")
    assert [event["child"] for event in events(service, "child_stuck")] == [name]
    assert (manager.starts, manager.watchdog_kills) == (1, 0)


def test_a_stuck_supervisor_is_systemd_s_to_kill(
    service: Service, manager: ServiceManager, figure: Callable[[str], None]
) -> None:
    """Not fed in time, the watchdog kills the service with all its processes and starts it anew."""
    until(lambda: manager.told("READY=1"))
    first = manager.pid
    os.kill(first, signal.SIGSTOP)
    stopped_at = time.monotonic()
    until(lambda: manager.watchdog_kills == 1)
    until(lambda: manager.starts == 2 and len(manager.told("READY=1")) == 2)
    assert manager.pid != first
    assert answers(service)
    figure(
        f"watchdog of {WATCHDOG_S:g} s: killed, started and ready "
        f"{time.monotonic() - stopped_at:.1f} s after the supervisor was stopped"
    )


def test_a_recorder_that_cannot_start_again_does_not_take_predictions_down(
    service: Service, manager: ServiceManager
) -> None:
    """It dies again and again; the supervisor tries on, the watchdog is fed, bots are answered."""
    until(lambda: manager.told("READY=1"))
    ledger = service.storage / "ledger"
    ledger.rename(service.storage / "away")
    ledger.write_text("in the way")
    victim = child_of(manager.pid, "recorder")
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    until_at = time.monotonic() + 2 * WATCHDOG_S
    while time.monotonic() < until_at:
        assert answers(service)
        time.sleep(0.1)
    assert len(events(service, "child_died")) > 2
    assert (manager.starts, manager.watchdog_kills) == (1, 0)
    ledger.unlink()
    (service.storage / "away").rename(ledger)
    with service.client() as client:
        until(lambda: _reports(client))


def _reports(client: Any) -> bool:
    try:
        at = 1_700_000_000_000
        return bool(client.report(trade="1", pnl=1.0, closed_at=at, build=None).status)
    except ClientError:
        return False


def test_a_hangup_rescans_and_opens_moved_logs(service: Service, tmp_path: Path) -> None:
    """SIGHUP: what failed to load is tried at once, lines go to a new file."""
    folder = tmp_path / "logs"
    service.environment |= {
        "TICKSERVE_LOGGING__FOLDER": str(folder),
        "TICKSERVE_SERVING__RETRY_SECONDS": "300",
        "TICKSERVE_SUPERVISOR__STUCK_SECONDS": "30",
        "TICKSERVE_RECORDER__METRIC_LOG_FILE": str(tmp_path / "metrics.jsonl"),
    }
    registry = ModelRegistry(str(service.storage))
    registry.save_model(train(trees=6), model_info(version=2))
    with service, service.client() as client:
        serving = service.child("serving")
        os.kill(serving, signal.SIGSTOP)
        registry.promote_model(f"{FAMILY}_v2")
        artefact = next((service.storage / "production").rglob("*_v2_*.onnx"))
        whole = artefact.read_bytes()
        artefact.chmod(0o600)
        artefact.write_bytes(whole[:100])
        os.kill(serving, signal.SIGCONT)
        until(lambda: "model_load_failed" in (folder / "serving.log").read_text())
        artefact.write_bytes(whole)
        (folder / "serving.log").rename(folder / "old.log")
        os.kill(service.pid, signal.SIGHUP)
        until(lambda: client.predict(FAMILY, ROW).model_id == f"{FAMILY}_v2")
        until(lambda: "models_reloaded" in (folder / "serving.log").read_text())
        assert service.child("serving") == serving
        assert service.stop() == 0
    lines = (folder / "supervisor.log").read_text().splitlines()
    assert {json.loads(line)["process"] for line in lines} == {"supervisor"}


def test_sigterm_under_load_drains_and_loses_nothing(
    service: Service, figure: Callable[[str], None]
) -> None:
    """Bots ask and report without pause: it ends within 10 s, what was acknowledged is there."""
    acknowledged: list[str] = []
    stopping = threading.Event()

    def trade(bot: int) -> None:
        with service.client(bot=f"bot{bot}", timeout=1.0) as client:
            number = 0
            while not stopping.is_set():
                number += 1
                try:
                    reply = client.predict(FAMILY, ROW)
                    at = 1_700_000_000_000
                    client.report(trade=str(number), pnl=1.0, closed_at=at, build=reply.build)
                except ClientError:
                    continue
                acknowledged.append(f"{bot}:{number}")

    with service:
        threads = [threading.Thread(target=trade, args=(bot,)) for bot in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(acknowledged) > 100)
        began = time.monotonic()
        code = service.stop()
        took = time.monotonic() - began
        stopping.set()
        for thread in threads:
            thread.join()
    assert (code, took < 10.0) == (0, True)
    (drained,) = events(service, "drained")
    assert (drained["uncommitted"], drained["dropped"]) == (0, 0)
    entry = ModelRegistry(str(service.storage)).find(FAMILY)
    live = json.loads((service.storage / entry.metadata_path).read_text())["performance"]["live"]
    assert live["n_trades"] >= len(acknowledged)
    assert live["n_trades"] <= len(acknowledged) + 4
    figure(f"ended in {took:.2f} s; {len(acknowledged)} trades acknowledged, all in the metadata")


def test_a_second_daemon_ends_at_once(
    service: Service, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """On the same root, or on another root with the same ledger, with a line that says so."""
    with service:
        other = Service(tmp_path / "other")
        other.storage.parent.mkdir()
        for storage, ledger in ((service.storage, None), (other.storage, service.storage)):
            command = other.command()
            command[command.index("--storage") + 1] = str(storage)
            if ledger is not None:
                command += ["--ledger", f"sqlite:///{ledger / 'ledger' / 'ledger.sqlite3'}"]
            began = time.monotonic()
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            assert done.returncode == 1
            took = time.monotonic() - began
            assert took < 10.0
            figure(f"refused after {took:.1f} s: {done.stderr.strip().splitlines()[-1][-60:]}")
            assert "already serves" in done.stderr or "another" in done.stderr
        assert answers(service)
        assert service.stop() == 0
