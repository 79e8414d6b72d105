"""Round trips with keys beside those without: what encryption costs."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import zmq

from benchmarks.daemon import Service, model_info, train
from tickserve_client import BotKeys, read_keys
from tickserve_registry.model_registry import ModelRegistry
from tickserve_server.access.key_folder import KeyFolder

FAMILY = "eurusd_1h_xgb_bench"
ROW = {f"f{index}": 0.1 * index for index in range(5)}
BLOCK = 500
WARM_UP = 500


def main(options: Sequence[str]) -> None:
    """Ask two daemons in turn, block by block, and compare their percentiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=40)
    chosen = parser.parse_args(options)
    with TemporaryDirectory() as folder:
        plain = _service(Path(folder) / "plain", curve=False)
        curve = _service(Path(folder) / "curve", curve=True)
        with plain, curve:
            found = _measure([plain, curve], chosen.blocks)
    middle = [statistics.quantiles(each, n=100) for each in found]
    for name, cuts in zip(("without keys", "with keys"), middle, strict=True):
        print(f"{name:<13} p50 {cuts[49] * 1e6:6.0f} µs, p99 {cuts[98] * 1e6:6.0f} µs")
    print(
        f"CURVE ÷ plain: p50 {middle[1][49] / middle[0][49]:.2f}, "
        f"p99 {middle[1][98] / middle[0][98]:.2f} ({chosen.blocks * BLOCK:,} round trips each)"
    )


def _service(folder: Path, *, curve: bool) -> Service:
    folder.mkdir()
    service = Service(folder, settings={"SECURITY__CURVE": str(curve).lower()})
    registry = ModelRegistry(str(service.storage))
    registry.save_model(train(), model_info(), environment="production")
    if curve:
        KeyFolder(service.storage / "keys").create("bot", out=folder / "bot.json")
        service.keys = read_keys(folder / "bot.json")
    return service


def _measure(services: Sequence[Service], blocks: int) -> list[list[float]]:
    """Return the durations of round trips in seconds, for each daemon."""
    message = {"op": "predict", "model": FAMILY, "features": ROW, "log": False}
    body = msgspec.msgpack.encode(message)
    with zmq.Context() as context:
        sockets = [_connected(context, each.endpoints.predict, each.keys) for each in services]
        durations: list[list[float]] = [[] for _ in sockets]
        for socket in sockets:
            _ask(socket, body, WARM_UP)
        for _ in range(blocks):
            for socket, kept in zip(sockets, durations, strict=True):
                kept.extend(_ask(socket, body, BLOCK))
        for socket in sockets:
            socket.close(0)
    return durations


def _connected(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, keys: BotKeys | None
) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    if keys is not None:
        keys.secure(socket)
    socket.connect(endpoint)
    return socket


def _ask(socket: zmq.Socket[bytes], body: bytes, times: int) -> list[float]:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        socket.send(body)
        reply = socket.recv()
        found.append(time.perf_counter() - began)
        assert b"error" not in reply[:40], reply
    return found
