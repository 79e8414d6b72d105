"""The demo's three bots as processes, and what their logs say so far."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from tickserve_bots.demo.storage import DemoFolder
from tickserve_bots.journal import read_lines
from tickserve_bots.training import LIVE

TREND = "eurusd_1h_xgb_trend"
BREAKOUT = "eurusd_1h_lstm_breakout"
STOP_S = 10.0


class Trader(NamedTuple):
    """One bot: its name, the model it asks and its exits."""

    name: str
    model: str
    stop_atr: float
    hold_bars: int


TRADERS = (
    Trader("trend-tight", TREND, stop_atr=1.5, hold_bars=6),
    Trader("trend-wide", TREND, stop_atr=3.0, hold_bars=12),
    Trader("breakout", BREAKOUT, stop_atr=2.0, hold_bars=6),
)


class Traders:
    """Runs all bots over the live span at one speed."""

    def __init__(self, folder: DemoFolder) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *, predict: str, bars: int, bars_per_second: float) -> None:
        """Start the bots on the first `bars` bars of the live span."""
        for trader in TRADERS:
            command = [sys.executable, "-m", "tickserve_bots.bot"]
            command += ["--name", trader.name, "--model", trader.model, "--predict", predict]
            command += ["--start", str(LIVE.start), "--end", str(LIVE.start + bars)]
            command += ["--bars-per-second", str(bars_per_second)]
            command += ["--stop-atr", str(trader.stop_atr), "--hold-bars", str(trader.hold_bars)]
            command += ["--folder", str(self._folder.bots)]
            self._processes.append(subprocess.Popen(command, start_new_session=True))

    @property
    def running(self) -> int:
        """How many bots still trade."""
        return sum(process.poll() is None for process in self._processes)

    @property
    def exit_codes(self) -> list[int | None]:
        """The bots' exit codes; None for one that still trades."""
        return [process.poll() for process in self._processes]

    def requests(self) -> list[dict[str, Any]]:
        """Return every logged request of all bots."""
        return self._logged("requests")

    def trades(self) -> list[dict[str, Any]]:
        """Return every closed trade of all bots."""
        return self._logged("trades")

    def stop(self) -> None:
        """End bots that still trade; they close and report their positions first."""
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()

    def _logged(self, kind: str) -> list[dict[str, Any]]:
        names: Sequence[str] = [trader.name for trader in TRADERS]
        paths = (self._folder.bots / f"{name}.{kind}.jsonl" for name in names)
        return [line for path in paths for line in read_lines(path)]
