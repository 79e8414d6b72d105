"""The halt switch of a running daemon: commands, answers, events, restarts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from benchmarks.daemon import Service, model_info, train
from tickserve_client import Client, ServerError
from tickserve_registry.model_registry import ModelRegistry

FAMILY = "eurusd_1h_xgb_bench"
ROW = {f"f{index}": 0.25 * index for index in range(5)}
EFFECT_S = 0.1
PATIENCE_S = 10.0


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A daemon with v1 in production and v2 in staging."""
    made = Service(tmp_path)
    registry = ModelRegistry(str(made.storage))
    registry.save_model(train(trees=5), model_info(), environment="production")
    registry.save_model(train(trees=6), model_info(version=2))
    with made:
        yield made
        assert made.stop() == 0


def tickserve(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the daemon's storage."""
    command = [sys.executable, "-m", "tickserve_server", *arguments]
    command += ["--storage", str(service.storage)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def refusal(client: Client, model: str = FAMILY) -> ServerError | None:
    """Return what a prediction is refused with, if it is."""
    try:
        client.predict(model, ROW)
    except ServerError as error:
        return error
    return None


def seconds_until(client: Client, *, halted: bool) -> float:
    """Ask without pause until the answer is as wanted; return how long that took."""
    began = time.monotonic()
    while (refusal(client) is not None) != halted:
        assert time.monotonic() - began < PATIENCE_S
    return time.monotonic() - began


def test_a_halt_holds_within_a_tenth_of_a_second_and_across_restarts(service: Service) -> None:
    """Bots are told who, why and since when, under every name, until it is lifted."""
    registry = ModelRegistry(str(service.storage))
    with service.client() as client:
        durations = []
        for _ in range(5):
            registry.halt_model(FAMILY, reason="spread widened")
            durations.append(seconds_until(client, halted=True))
            registry.resume_model(FAMILY)
            durations.append(seconds_until(client, halted=False))
        assert sorted(durations)[len(durations) // 2] < EFFECT_S
        registry.halt_model(FAMILY, reason="spread widened")
        seconds_until(client, halted=True)
        assert service.stop() == 0
    service.start()
    with service.client() as client:
        for name in (FAMILY, f"{FAMILY}_v1", registry.production()[0].build):
            error = refusal(client, name)
            assert error is not None
            assert (error.code, error.details["reason"]) == ("halted", "spread widened")
            assert error.details["halted"] == FAMILY
        rows = {"features": [[0.0] * 5] * 300}
        with pytest.raises(ServerError, match="halted"):
            client.predict(FAMILY, rows["features"])
        registry.promote_model(f"{FAMILY}_v2")
        deadline = time.monotonic() + PATIENCE_S
        while client.models()[0].model_id != f"{FAMILY}_v2":
            assert time.monotonic() < deadline
        assert refusal(client) is not None
        registry.resume_model(FAMILY)
        seconds_until(client, halted=False)


def test_the_commands_say_what_they_did(service: Service) -> None:
    """halt, halts, status and resume, for people and for scripts; wrong use says what is wrong."""
    done = tickserve(service, "halt", FAMILY, "--reason", "news")
    assert (done.returncode, done.stdout) == (0, f"{FAMILY} answers `halted` now\n")
    listed = json.loads(tickserve(service, "halts", "--json").stdout)["halts"]
    assert [(each["model"], each["reason"]) for each in listed] == [(FAMILY, "news")]
    assert f"halted: {FAMILY}, by" in tickserve(service, "status").stdout
    again = json.loads(tickserve(service, "halt", "--all", "--reason", "x", "--json").stdout)
    assert again["halt"]["model"] == "*"
    assert again["effective_s"] < PATIENCE_S
    for wrong in (("halt", "--reason", "x"), ("halt", FAMILY, "--all", "--reason", "x")):
        assert tickserve(service, *wrong).returncode == 1
    assert "did you mean" in tickserve(service, "halt", FAMILY + "x", "--reason", "x").stderr
    assert tickserve(service, "resume", "--all").stdout.startswith("every model, ")
    refused = tickserve(service, "resume", FAMILY)
    assert (refused.returncode, "nothing is" in refused.stderr) == (1, True)
    assert tickserve(service, "halts").stdout == "nothing is halted\n"
    service.stop()
    idle = tickserve(service, "halt", FAMILY, "--reason", "night")
    assert "from the daemon's next start" in idle.stdout
    service.start()


def test_subscribers_are_told(service: Service) -> None:
    """A halt of all reaches each model's topic, a promotion under it the new one's, too."""
    registry = ModelRegistry(str(service.storage))
    seen: list[tuple[str, dict[str, Any]]] = []
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.linger = 0
        socket.rcvtimeo = 5_000
        for topic in (b"heartbeat", b"halt."):
            socket.subscribe(topic)
        socket.connect(service.endpoints.events)
        socket.recv_multipart()

        def told(model: str, state: str) -> None:
            while True:
                topic, body = socket.recv_multipart()
                event = json.loads(body)
                seen.append((topic.decode(), event))
                if (topic.decode(), event.get("state")) == (f"halt.{model}", state):
                    return

        registry.halt_model(reason="exchange is down")
        told(f"{FAMILY}_v1", "halted")
        assert seen[-1][1]["reason"] == "exchange is down"
        registry.promote_model(f"{FAMILY}_v2")
        told(f"{FAMILY}_v2", "halted")
        registry.resume_model()
        told(f"{FAMILY}_v2", "resumed")


def test_a_damaged_file_halts_nothing_more_and_nothing_less(service: Service) -> None:
    """Running, the daemon keeps what stood; started with such a file it halts everything."""
    registry = ModelRegistry(str(service.storage))
    file = service.storage / "metadata" / "halts.json"
    with service.client() as client:
        file.write_bytes(b"{")
        time.sleep(EFFECT_S)
        assert refusal(client) is None
        assert "holds no halts" in tickserve(service, "status").stdout
        service.stop()
    service.start()
    with service.client() as client:
        error = refusal(client)
        assert error is not None
        assert error.details["reason"] == "halts.json cannot be read"
        file.unlink()
        seconds_until(client, halted=False)
    registry.halt_model(FAMILY, reason="mended")
