"""The metric log: one flat JSON line for each model and period."""

from __future__ import annotations

import datetime as dt
import logging.handlers
import sys
from importlib.metadata import version
from typing import Any

import msgspec

from tickserve_registry.naming import parse_build

EVENT = "live_metrics"
ROTATE_BYTES = 16 * 1024 * 1024
ROTATED_FILES = 5
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
        self._file = (
            None
            if file is None
            else logging.handlers.RotatingFileHandler(
                file, maxBytes=ROTATE_BYTES, backupCount=ROTATED_FILES, encoding="utf-8"
            )
        )

    def write(self, build: str, block: dict[str, Any]) -> None:
        """Write one model's line; undefined figures are null, never NaN."""
        line = msgspec.json.encode(self._fields(build, block)).decode()
        sys.stderr.write(line + "\n")
        if self._file is not None:
            self._file.emit(logging.makeLogRecord({"msg": line}))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _fields(self, build: str, block: dict[str, Any]) -> dict[str, Any]:
        name, _ = parse_build(build)
        serving = block.get("serving", {})
        latency = serving.get("latency", {})
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
            "latency_p50_us": latency.get("p50_us"),
            "latency_p99_us": latency.get("p99_us"),
            "latency_p999_us": latency.get("p999_us"),
            "latency_max_us": latency.get("max_us"),
        }
