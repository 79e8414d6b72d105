"""Hours of mixed load and small disasters: memory, descriptors and latency over time, as a plot."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import zmq

from benchmarks.daemon import Service, model_info, train
from benchmarks.many_models import MEBIBYTE, resident
from benchmarks.plot import Curve, picture
from tickserve_client import Client, ClientError, ServerError
from tickserve_registry.document import read_file
from tickserve_registry.model_registry import ModelRegistry

FAMILY = "eurusd_1h_xgb_bench"
HALTED_FAMILY = "us100_1h_xgb_bench"
ROW = {f"f{index}": 0.1 * index for index in range(5)}
VERSIONS = (1, 2)
BOTS = 4
PACE_S = 0.02
REPORT_EVERY = 10
SAMPLES = 360
FEWEST = 2
"""Durations of which percentiles can be told."""

SETTLED = 0.25
"""Of the time, after which memory should grow no more."""

AT_MS = 1_700_000_000_000
PNL = 0.25


class Sample(NamedTuple):
    """The daemon after some seconds: MiB and open descriptors of both processes, latencies."""

    seconds: float
    serving_mib: float
    recorder_mib: float
    serving_files: int
    recorder_files: int
    p50_us: float
    p99_us: float


class Soak:
    """Everything that happens at once, each on a thread of its own."""

    def __init__(self, service: Service, registry: ModelRegistry, seconds: float) -> None:
        self._service = service
        self._registry = registry
        self._seconds = seconds
        self._stopping = threading.Event()
        self._promoting = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._durations: list[float] = []
        self.answered = self.trades = 0
        self.errors: Counter[str] = Counter()
        self.acts: Counter[str] = Counter()
        self.samples: list[Sample] = []

    def run(self) -> None:
        """Let it happen, and sample the daemon meanwhile."""
        for bot in range(BOTS):
            self._begin(partial(self._trade, f"bot{bot}"))
        self._begin(self._ask_in_batches)
        self._begin(self._send_garbage)
        acts = (
            (15.0, self._promote),
            (40.0, self._halt_and_resume),
            (60.0, self._hang_up),
            (120.0, self._storm),
            (300.0, self._kill_recorder),
        )
        for period, act in acts:
            # However short the run, each happens at least twice.
            self._begin(partial(self._again, min(period, self._seconds / 3), act))
        began = time.monotonic()
        for number in range(SAMPLES):
            wait = began + (number + 1) * self._seconds / SAMPLES - time.monotonic()
            time.sleep(max(0.0, wait))
            self._sample(time.monotonic() - began)
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _begin(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work)
        self._threads.append(thread)
        thread.start()

    def _again(self, period: float, act: Callable[[], None]) -> None:
        while not self._stopping.wait(period):
            act()
            self.acts[act.__name__.strip("_")] += 1

    def _trade(self, name: str) -> None:
        """Ask at a pace, and report a trade after every few answers until it is acknowledged."""
        with self._service.client(bot=name, timeout=2.0) as client:
            number = 0
            while not self._stopping.wait(PACE_S):
                began = time.perf_counter()
                try:
                    build = client.predict(FAMILY, ROW).build
                except ClientError as error:
                    self.errors[f"predict: {type(error).__name__}"] += 1
                    continue
                self._durations.append(time.perf_counter() - began)
                self.answered += 1
                number += 1
                if number % REPORT_EVERY == 0:
                    self._report(client, str(number), build)

    def _report(self, client: Client, trade: str, build: str) -> None:
        while True:
            with contextlib.suppress(ClientError):
                ack = client.report(trade=trade, build=build, pnl=PNL, closed_at=AT_MS, timeout=1.0)
                if ack.status in {"recorded", "duplicate"}:
                    self.trades += 1
                    return
            time.sleep(0.1)

    def _ask_in_batches(self) -> None:
        with self._service.client(bot="batch", timeout=5.0) as client:
            rows = [[0.1 * index for index in range(5)]] * 500
            while not self._stopping.wait(0.5):
                try:
                    client.predict(FAMILY, rows, log=False)
                except ClientError as error:
                    self.errors[f"batch: {type(error).__name__}"] += 1

    def _send_garbage(self) -> None:
        """Connect, send what is no request, and leave without reading."""
        chance = random.Random(1)  # noqa: S311 - garbage, the same each time
        while not self._stopping.wait(0.2):
            with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
                socket.linger = 100
                socket.connect(self._service.endpoints.predict)
                for _ in range(5):
                    socket.send(chance.randbytes(chance.randrange(1, 2_000)))

    def _promote(self) -> None:
        with self._promoting:
            champion = self._registry.find(FAMILY, environment="production").model_id
            (other,) = {f"{FAMILY}_v{version}" for version in VERSIONS} - {champion}
            self._registry.promote_model(other)

    def _storm(self) -> None:
        for _ in range(20):
            self._promote()

    def _halt_and_resume(self) -> None:
        """Halt a model that nobody trades, see it halted, and lift the halt."""
        with self._service.client(timeout=2.0) as client:
            self._registry.halt_model(HALTED_FAMILY, reason="soak")
            time.sleep(0.5)
            try:
                client.predict(HALTED_FAMILY, ROW, log=False)
                self.errors["a halted model answered"] += 1
            except ServerError as error:
                if error.code != "halted":
                    self.errors[f"halted: {error.code}"] += 1
            self._registry.resume_model(HALTED_FAMILY)

    def _hang_up(self) -> None:
        os.kill(self._service.pid, signal.SIGHUP)

    def _kill_recorder(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._service.child("recorder"), signal.SIGKILL)

    def _sample(self, seconds: float) -> None:
        durations, self._durations = self._durations, []
        if len(durations) < FEWEST:
            return
        cuts = statistics.quantiles(durations, n=100)
        try:
            serving, recorder = (self._service.child(name) for name in ("serving", "recorder"))
            sample = Sample(
                seconds,
                resident(serving) / MEBIBYTE,
                resident(recorder) / MEBIBYTE,
                _open_files(serving),
                _open_files(recorder),
                cuts[49] * 1e6,
                cuts[98] * 1e6,
            )
        except (OSError, StopIteration, ValueError):
            return  # a process that was killed a moment ago
        self.samples.append(sample)


def _open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def main(options: Sequence[str]) -> None:
    """Run a daemon for some time, and say what it took and what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--plot", type=Path, help="write an SVG picture there")
    chosen = parser.parse_args(options)
    with TemporaryDirectory() as folder:
        service = Service(Path(folder), settings={"LOGGING__LEVEL": "error"})
        registry = ModelRegistry(str(service.storage))
        for version in VERSIONS:
            model = train(seed=version)
            registry.save_model(model, model_info(version=version), environment="production")
        other = model_info() | {"market": "us100"}
        registry.save_model(train(trees=5), other, environment="production")
        with service:
            soak = Soak(service, registry, chosen.seconds)
            soak.run()
            code = service.stop()
        trades, pnl = _live(registry)
    _tell(soak, seconds=chosen.seconds, trades=trades, pnl=pnl, code=code)
    if chosen.plot:
        along = f"{chosen.seconds / 60:.0f} minutes"
        chosen.plot.write_text(picture(curves(soak.samples), along=along), encoding="utf-8")


def _live(registry: ModelRegistry) -> tuple[int, float]:
    """Return trades and pnl of the family, over its versions, as the metadata has them."""
    blocks = []
    for entry in registry.entries():
        document = read_file(Path(registry.storage_root) / entry.metadata_path)
        blocks.append(document.get("performance", {}).get("live") or {"n_trades": 0, "net_pnl": 0})
    return sum(b["n_trades"] for b in blocks), sum(b["net_pnl"] for b in blocks)


def _tell(soak: Soak, *, seconds: float, trades: int, pnl: float, code: int) -> None:
    settled = [each for each in soak.samples if each.seconds > SETTLED * seconds]
    first, last = settled[: max(1, len(settled) // 10)], settled[-max(1, len(settled) // 10) :]
    print(f"{seconds:.0f} s: {soak.answered:,} answers, errors: {dict(soak.errors) or 'none'}")
    print(f"meanwhile: {', '.join(f'{count} × {name}' for name, count in soak.acts.items())}")
    print(
        f"trades acknowledged {soak.trades:,}, in the metadata {trades:,}; "
        f"pnl {soak.trades * PNL:,.2f}, {pnl:,.2f}; exit code {code}"
    )
    for name in Sample._fields[1:]:
        before = statistics.median(getattr(each, name) for each in first)
        after = statistics.median(getattr(each, name) for each in last)
        change = f" ({after / before - 1:+.1%})" if before else ""
        print(f"{name:<15} {before:8.1f} after a quarter, {after:8.1f} at the end{change}")


def curves(samples: Sequence[Sample]) -> list[Curve]:
    """Return memory, descriptors and latencies over time."""
    return [
        Curve("serving process, MiB", [(s.seconds, s.serving_mib) for s in samples]),
        Curve("descriptors", [(s.seconds, float(s.serving_files)) for s in samples]),
        Curve("p50, µs", [(s.seconds, s.p50_us) for s in samples]),
        Curve("p99, µs", [(s.seconds, s.p99_us) for s in samples]),
    ]
