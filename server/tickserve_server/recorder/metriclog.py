"""The metric log: one flat JSON line for each model and period."""

from __future__ import annotations

import sys
from collections.abc import Mapping, MutableMapping
from importlib.metadata import version
from typing import Any

import msgspec
import structlog

from tickserve_registry.naming import parse_build
from tickserve_server.latency import LatencyHistogram
from tickserve_server.rotation import RotatingFile

log = structlog.get_logger(__name__)

EVENT = "live_metrics"
LATENCIES = ("p50_us", "p99_us", "p999_us", "max_us")
FIGURES = (
    "sharpe_ratio",
    "sharpe_status",
    "max_drawdown",
    "win_rate",
    "profit_factor",
    "n_trades",
    "n_wins",
    "n_losses",
    "n_days",
    "net_pnl",
    "current_drawdown",
    "expectancy",
    "annualization",
    "currency",
    "period_start",
    "period_end",
    "as_of",
)
QUALITY = ("hit_rate", "brier", "log_loss", "auc", "calibration_error")


class MetricLog:
    """Writes lines to standard error and, when configured, to a file that rotates."""

    def __init__(self, file: str | None) -> None:
        self._seen: dict[str, LatencyHistogram] = {}
        self._lines = _Lines(file)
        stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
        self._log = structlog.wrap_logger(
            self._lines,
            processors=[structlog.processors.add_log_level, stamp, _render],
            service="tickserve",
            version=version("tickserve"),
        )

    def write(
        self,
        build: str,
        block: Mapping[str, Any],
        latency: LatencyHistogram,
        *,
        writeback_age_s: float,
    ) -> None:
        """Write one model's line; undefined figures are null, never NaN.

        `latency` counts since the build was first served; the line shows what came since its last.
        """
        recent = latency.since(self._seen.get(build))
        self._seen[build] = latency
        fields = _fields(build, block, recent.summary())
        self._log.info(EVENT, **fields, writeback_age_s=round(writeback_age_s, 3))

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


class _Lines:
    """Where structlog's lines go; a file that cannot be written is reported once."""

    def __init__(self, file: str | None) -> None:
        self._broken = False
        self._file = None if file is None else RotatingFile(file)

    def info(self, line: str) -> None:
        sys.stderr.write(line + "\n")
        if self._file is None:
            return
        try:
            self._file.write_line(line)
        except OSError as error:
            if not self._broken:
                log.error("metric_log_unwritable", reason=str(error))
            self._broken = True
        else:
            self._broken = False

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _render(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> str:
    return msgspec.json.encode(fields).decode()


def _fields(build: str, block: Mapping[str, Any], latency: Mapping[str, Any]) -> dict[str, Any]:
    name, _ = parse_build(build)
    serving, quality, inputs = block["serving"], block["quality"], block["inputs"]
    drifts = [each["psi"] for each in inputs.values() if each["psi"] is not None]
    lag = serving["outcome_lag"]
    return {
        "model_id": name.model_id,
        "build": build,
        "market": name.market,
        "timeframe": name.timeframe,
        "strategy": name.strategy,
        **{figure: block[figure] for figure in FIGURES},
        "labels": quality["n"],
        **{figure: quality[figure] for figure in QUALITY},
        "inputs_drifted": sum(bool(each["drifted"]) for each in inputs.values()),
        "psi_max": max(drifts, default=None),
        "predictions_total": serving["predictions"],
        "predictions_without_outcome": serving["predictions_without_outcome"],
        "outcome_lag_p50_ms": lag["p50_ms"],
        "outcome_lag_p99_ms": lag["p99_ms"],
        "errors_total": sum(serving["errors"].values()),
        "requests": latency["count"],
        **{f"latency_{name}": latency[name] for name in LATENCIES},
    }
