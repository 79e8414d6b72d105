"""The metric log: one flat JSON line for each model and period."""

from __future__ import annotations

import datetime as dt
import logging.handlers
import sys
from importlib.metadata import version
from typing import Any

import msgspec

from tickserve_registry.naming import parse_build
from tickserve_server.latency import LatencyHistogram

EVENT = "live_metrics"
ROTATE_BYTES = 16 * 1024 * 1024
ROTATED_FILES = 5
LATENCIES = ("p50_us", "p99_us", "p999_us", "max_us")
FIGURES = (
    "sharpe_ratio",
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


class MetricLog:
    """Writes lines to standard error and, when configured, to a file that rotates."""

    def __init__(self, file: str | None) -> None:
        self._version = version("tickserve")
        self._seen: dict[str, LatencyHistogram] = {}
        self._file = (
            None
            if file is None
            else logging.handlers.RotatingFileHandler(
                file, maxBytes=ROTATE_BYTES, backupCount=ROTATED_FILES, encoding="utf-8"
            )
        )

    def write(self, build: str, block: dict[str, Any], latency: LatencyHistogram) -> None:
        """Write one model's line; undefined figures are null, never NaN.

        `latency` counts since the build was loaded; the line shows what came since its last one.
        """
        recent = latency.since(self._seen.get(build))
        self._seen[build] = latency
        line = msgspec.json.encode(self._fields(build, block, recent.summary())).decode()
        sys.stderr.write(line + "\n")
        if self._file is not None:
            self._file.emit(logging.makeLogRecord({"msg": line}))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _fields(self, build: str, block: dict[str, Any], latency: dict[str, Any]) -> dict[str, Any]:
        name, _ = parse_build(build)
        serving = block.get("serving", {})
        return {
            "timestamp": dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z"),
            "level": "info",
            "event": EVENT,
            "service": "tickserve",
            "version": self._version,
            "model_id": name.model_id,
            "build": build,
            "market": name.market,
            "timeframe": name.timeframe,
            "strategy": name.strategy,
            **{figure: block.get(figure) for figure in FIGURES},
            "predictions_total": serving.get("predictions", 0),
            "errors_total": sum(serving.get("errors", {}).values()),
            "requests": latency["count"],
            **{f"latency_{name}": latency[name] for name in LATENCIES},
        }
