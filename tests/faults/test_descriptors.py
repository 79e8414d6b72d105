"""File descriptors exhausted: who is connected is answered as before, and no core is burnt."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.daemon import Service, model_info, train
from tickserve_client import ClientError
from tickserve_registry.model_registry import ModelRegistry

FAMILY = "eurusd_1h_xgb_bench"
ROW = {f"f{index}": 0.25 * index for index in range(5)}
ALLOWED = 300
CONNECTIONS = 500
PATIENCE_S = 20.0
BUSY = 0.4
"""Of a core: without anything to do the serving process takes 0.02, spinning it takes 1."""


class Limited(Service):
    """A daemon whose processes may each open a few files only."""

    def command(self) -> list[str]:
        """Return the command line."""
        prlimit = shutil.which("prlimit")
        assert prlimit is not None
        return [prlimit, f"--nofile={ALLOWED}:{ALLOWED}", *super().command()]


def seconds_of(pid: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit is not installed")
@pytest.mark.parametrize("endpoint", ["predict", "feedback"])
def test_a_flood_of_connections_burns_nothing_and_harms_nobody(
    tmp_path: Path, endpoint: str, figure: Callable[[str], None]
) -> None:
    """More connections than descriptors: turned away, and let in again once there are some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * CONNECTIONS)), hard))
    service = Limited(tmp_path)
    registry = ModelRegistry(str(service.storage))
    registry.save_model(train(trees=5), model_info(), environment="production")
    registry.save_model(train(trees=6), model_info(version=2))
    name = "serving" if endpoint == "predict" else "recorder"
    with service, service.client() as bot:
        build = bot.predict(FAMILY, ROW).build
        at = 1_700_000_000_000
        assert bot.report(trade="0", build=build, pnl=1.0, closed_at=at).status == "recorded"
        pid = service.child(name)
        host, _, port = getattr(service.endpoints, endpoint)[len("tcp://") :].rpartition(":")
        flood = [connecting(host, int(port)) for _ in range(CONNECTIONS)]
        try:
            time.sleep(0.5)
            before, began = seconds_of(pid), time.monotonic()
            while time.monotonic() - began < 2.0:
                bot.predict(FAMILY, ROW)
                time.sleep(0.01)
            busy = (seconds_of(pid) - before) / (time.monotonic() - began)
            assert busy < BUSY
            figure(f"{CONNECTIONS} connections, {ALLOWED} descriptors: {busy:.2f} of a core")
            assert bot.report(trade="1", build=build, pnl=1.0, closed_at=at).status == "recorded"
            assert events(service, "connections_turned_away")
        finally:
            for each in flood:
                each.close()
        until_let_in(service)
        registry.promote_model(f"{FAMILY}_v2")
        deadline = time.monotonic() + PATIENCE_S
        while bot.predict(FAMILY, ROW).model_id != f"{FAMILY}_v2":
            assert time.monotonic() < deadline
        assert service.child(name) == pid
        assert service.stop() == 0


def connecting(host: str, port: int) -> socket.socket:
    """Begin a connection that will never say anything."""
    made = socket.socket()
    made.setblocking(False)
    made.connect_ex((host, port))
    return made


def events(service: Service, name: str) -> list[object]:
    """Return the log's events of a name."""
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    return [line for line in lines if line["event"] == name]


def until_let_in(service: Service) -> None:
    """Connect anew until both endpoints answer."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with service.client(bot="new") as client:
            try:
                client.report(trade="0", pnl=1.0, closed_at=1_700_000_000_000)
            except ClientError:
                assert time.monotonic() < deadline
            else:
                return
