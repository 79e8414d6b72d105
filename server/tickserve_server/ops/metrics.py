"""Metrics for Prometheus, made when they are asked for."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tickserve_server.latency import LatencyHistogram
from tickserve_server.ops.health import Health
from tickserve_server.recorder.live import LiveBook

LATENCY_BOUNDS_US = [scale * each for scale in (10, 100, 1e3, 1e4) for each in (1, 2, 5)] + [1e5]
"""10 µs … 100 ms; each is moved up to the bound of the bucket that it lies in."""

LIVE = {
    "tickserve_live_sharpe_ratio": ("sharpe_ratio", "Annualised Sharpe ratio of live trades."),
    "tickserve_live_drawdown_ratio": ("max_drawdown", "Largest live drawdown, a fraction."),
    "tickserve_live_win_ratio": ("win_rate", "Share of live trades with a profit."),
    "tickserve_live_profit_factor": ("profit_factor", "Gross profit over gross loss, live."),
}


class Gauges(NamedTuple):
    """What the recorder tells of itself, each asked for anew."""

    outcomes: Callable[[], Mapping[tuple[str, str], int]]
    commits: Callable[[], LatencyHistogram]
    failed_turns: Callable[[], int]
    writeback_age_s: Callable[[], float]
    dropped: Callable[[], int]
    parked: Callable[[], int]
    events: Callable[[], int]
    refused: Callable[[], int]


class LiveMetrics(Collector):
    """Reads the live book and the recorder; `model` is the build. What is undefined is left out."""

    def __init__(self, book: LiveBook, gauges: Gauges, health: Health) -> None:
        self._book = book
        self._gauges = gauges
        self._health = health

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what there is depends on the models."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Return every metric."""
        yield from self._serving()
        yield from self._live()
        yield from self._recorder()
        yield from self._state()

    def _serving(self) -> Iterator[Metric]:
        predictions = CounterMetricFamily(
            "tickserve_predictions",
            "Rows answered, and refusals by code.",
            labels=["model", "outcome"],
        )
        durations = HistogramMetricFamily(
            "tickserve_prediction_duration_seconds", "Inside the serving process.", labels=["model"]
        )
        loads = GaugeMetricFamily(
            "tickserve_model_load_duration_seconds", "Time to load a model.", labels=["model"]
        )
        info = GaugeMetricFamily(
            "tickserve_model_info", "1 for each model served.", labels=["model", "digest", "engine"]
        )
        for build, tally in self._book.tallies().items():
            predictions.add_metric([build, "ok"], tally.answered)
            for code, count in sorted(tally.errors.items()):
                predictions.add_metric([build, code], count)
            durations.add_metric([build], buckets(tally.latency), None)
            if tally.served is not None:
                loads.add_metric([build], tally.served["load_seconds"])
                info.add_metric([build, tally.served["digest"], tally.served["engine"]], 1)
        yield from (predictions, durations, loads, info)

    def _live(self) -> Iterator[Metric]:
        now = time.time_ns() // 1_000_000
        blocks = {build: self._book.block(build, as_of=now) for build in self._book.builds()}
        for name, (figure, meaning) in LIVE.items():
            metric = GaugeMetricFamily(name, meaning, labels=["model"])
            for build, block in blocks.items():
                value = None if block is None else block[figure]
                if value is not None:
                    metric.add_metric([build], value)
            yield metric

    def _recorder(self) -> Iterator[Metric]:
        outcomes = CounterMetricFamily(
            "tickserve_outcomes", "Outcomes by what became of them.", labels=["model", "status"]
        )
        for (build, status), count in sorted(self._gauges.outcomes().items()):
            outcomes.add_metric([build, status], count)
        yield outcomes
        commits = HistogramMetricFamily("tickserve_ledger_commit_seconds", "Durable commits.")
        commits.add_metric([], buckets(self._gauges.commits()), None)
        yield commits
        for name, meaning, read in (
            ("tickserve_failed_turns", "Transactions undone.", self._gauges.failed_turns),
            ("tickserve_dropped_records", "Prediction records given up.", self._gauges.dropped),
            ("tickserve_events", "Events published.", self._gauges.events),
        ):
            yield CounterMetricFamily(name, meaning, value=read())
        for name, meaning, gauge in (
            ("tickserve_writeback_age_seconds", "Since the last.", self._gauges.writeback_age_s),
            ("tickserve_parked_predictions", "Waited for.", self._gauges.parked),
        ):
            yield GaugeMetricFamily(name, meaning, value=gauge())

    def _state(self) -> Iterator[Metric]:
        health, serving = self._health, self._health.serving
        info = GaugeMetricFamily("tickserve_build_info", "Always 1.", labels=["version"])
        info.add_metric([version("tickserve")], 1)
        yield info
        ready = health.readiness()["ready"]
        for name, meaning, value in (
            ("tickserve_ready", "1 when a model is served and the ledger takes feedback.", ready),
            ("tickserve_ledger_writable", "1 when the last commit succeeded.", health.is_writable),
            ("tickserve_models_served", "Builds that answer.", serving.good),
            ("tickserve_models_failing", "Production builds that cannot load.", serving.failing),
            ("tickserve_models_halted", "Builds that answer `halted`.", serving.halted),
            ("tickserve_serving_silence_seconds", "Since last heard.", health.serving_age_s),
        ):
            yield GaugeMetricFamily(name, meaning, value=float(value))
        refused = serving.connections_refused + self._gauges.refused()
        for name, meaning, count in (
            ("tickserve_reloads", "Changes of the set of models.", serving.reloads),
            ("tickserve_model_load_failures", "Attempts to load.", serving.load_failures),
            ("tickserve_connections_refused", "For their keys.", refused),
        ):
            yield CounterMetricFamily(name, meaning, value=count)
        yield from _processes({"recorder": os.getpid(), "serving": serving.pid})


def _processes(pids: Mapping[str, int]) -> Iterator[Metric]:
    """Return memory and open descriptors of processes; nothing of one that is away."""
    memory = GaugeMetricFamily(
        "tickserve_resident_memory_bytes", "Of a process.", labels=["process"]
    )
    descriptors = GaugeMetricFamily(
        "tickserve_open_descriptors", "Of a process.", labels=["process"]
    )
    for name, pid in pids.items():
        with contextlib.suppress(OSError):
            pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
            memory.add_metric([name], pages * resource.getpagesize())
            descriptors.add_metric([name], len(list(Path(f"/proc/{pid}/fd").iterdir())))
    yield from (memory, descriptors)


def buckets(latency: LatencyHistogram) -> list[Any]:
    """Return cumulative counts by upper bound in seconds, as Prometheus has them."""
    found = [(f"{bound / 1e6:.9g}", count) for bound, count in latency.below(LATENCY_BOUNDS_US)]
    return [*found, ("+Inf", latency.count)]
