"""Network cut (namespaces) between bot and daemon: the bot is told in time, and goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.daemon import Service, model_info, train
from tickserve_client import read_keys
from tickserve_registry.model_registry import ModelRegistry
from tickserve_server.access.key_folder import KeyFolder

FAMILY = "eurusd_1h_xgb_bench"
TIMEOUT_S = 0.5
EXCESS_S = 0.2
CUT_S = 3.0
BACK_S = 6.0
SECONDS = 14.0


class Network(NamedTuple):
    """A namespace for the bot, this side's link to it, and this side's address."""

    namespace: str
    link: str
    address: str


def ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Set up a network."""
    command = ["ip", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def network() -> Iterator[Network]:
    """A network of two: this machine and a namespace; skipped where none can be made."""
    number = os.getpid() % 200 + 20
    made = Network(f"tickserve{number}", f"ts{number}a", f"10.213.{number}.1")
    far, far_address = f"ts{number}b", f"10.213.{number}.2"
    steps = (
        ("netns", "add", made.namespace),
        ("link", "add", made.link, "type", "veth", "peer", "name", far),
        ("link", "set", far, "netns", made.namespace),
        ("addr", "add", f"{made.address}/24", "dev", made.link),
        ("link", "set", made.link, "up"),
        ("-n", made.namespace, "addr", "add", f"{far_address}/24", "dev", far),
        ("-n", made.namespace, "link", "set", far, "up"),
    )
    try:
        for step in steps:
            done = ip(*step)
            if done.returncode:
                pytest.skip(f"no network namespace can be made here: {done.stderr.strip()}")
        yield made
    finally:
        ip("link", "del", made.link)
        ip("netns", "del", made.namespace)


def test_a_bot_is_told_in_time_and_goes_on(
    network: Network, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """Beyond loopback, with keys: no request takes longer than its timeout, then answers again."""
    service = Service(tmp_path, settings={"SECURITY__CURVE": "true"})
    predict, *others = (each.replace("127.0.0.1", network.address) for each in service.endpoints)
    service.endpoints = service.endpoints._replace(predict=predict)
    assert others
    keys = tmp_path / "bot.key.json"
    KeyFolder(service.storage / "keys").create("bot", out=keys)
    service.keys = read_keys(keys)
    registry = ModelRegistry(str(service.storage))
    registry.save_model(train(trees=5), model_info(), environment="production")
    with service:
        command = ["ip", "netns", "exec", network.namespace, sys.executable]
        command += [str(Path(__file__).with_name("remote_bot.py")), "--endpoint", predict]
        command += ["--keys", str(keys), "--model", FAMILY]
        command += ["--timeout", str(TIMEOUT_S), "--seconds", str(SECONDS)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as bot:
            time.sleep(4.0)
            cut_at = time.monotonic()
            assert ip("link", "set", network.link, "down").returncode == 0
            time.sleep(CUT_S)
            assert ip("link", "set", network.link, "up").returncode == 0
            healed_at = time.monotonic()
            assert bot.stdout is not None
            lines = [json.loads(line) for line in bot.stdout]
        assert service.stop() == 0
    answered = [line["at"] for line in lines if line["came"] == "answer"]
    failed = [line for line in lines if line["came"] != "answer"]
    assert len([at for at in answered if at < cut_at]) > 20
    assert failed
    assert all(cut_at - TIMEOUT_S < line["at"] < healed_at + BACK_S for line in failed)
    assert max(line["took"] for line in lines) < TIMEOUT_S + EXCESS_S
    back_s = min(at for at in answered if at > healed_at) - healed_at
    assert back_s < BACK_S
    longest = max(line["took"] for line in lines)
    figure(
        f"longest call {longest:.3f} s of {TIMEOUT_S:g} s; answered {back_s:.2f} s after the cut"
    )
