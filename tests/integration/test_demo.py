"""The demo end to end, and its figures recomputed from the bots' own logs."""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

DAY_MS = 86_400_000
STARTING_EQUITY = 10_000.0
LONGEST_S = 120.0


def start_demo(root: Path, *, bars: int, speed: float) -> subprocess.Popen[str]:
    """Start the demo as a user does."""
    command = [sys.executable, "-m", "tickserve_server", "demo", "--root", str(root), "--json"]
    return subprocess.Popen(
        [*command, "--bars", str(bars), "--speed", str(speed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(demo: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for the demo's end and return its result."""
    out, err = demo.communicate(timeout=LONGEST_S)
    assert demo.returncode == 0, err
    result: dict[str, Any] = json.loads(out)
    return result


def own_trades(root: Path) -> dict[str, list[dict[str, Any]]]:
    """Every closed trade in the bots' logs, by build."""
    trades: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in (root / "bots").glob("*.trades.jsonl"):
        for line in path.read_text().splitlines():
            trade = json.loads(line)
            trades[trade["build"]].append(trade)
    return trades


def live_blocks(root: Path) -> dict[str, dict[str, Any]]:
    """`performance.live` of every metadata file that has one."""
    documents = [json.loads(p.read_text()) for p in (root / "model_storage").glob("*/*/*/*.json")]
    return {
        document["build"]: document["performance"]["live"]
        for document in documents
        if "live" in document["performance"]
    }


def day_of(trade: dict[str, Any]) -> int:
    """The trade's UTC day, a weekend's being the Friday before it."""
    day = int(trade["closed_at"] // DAY_MS)
    weekday = (day + 3) % 7
    return day - (weekday - 4 if weekday > 4 else 0)


def recomputed(trades: list[dict[str, Any]]) -> dict[str, Any]:
    """The four seed figures by a second, plain implementation of their definitions."""
    trades = sorted(trades, key=lambda trade: trade["closed_at"])
    joins: dict[int, float] = defaultdict(float)
    first_trade: dict[str, dict[str, Any]] = {}
    for trade in trades:
        first_trade.setdefault(trade["account"], trade)
    opening = day_of(trades[0])
    equity = peak = drawdown = 0.0
    for trade in first_trade.values():
        if day_of(trade) == opening:
            equity += STARTING_EQUITY
        else:
            joins[trade["closed_at"]] += STARTING_EQUITY
    start, peak = equity, equity
    for trade in trades:
        joined = joins.pop(trade["closed_at"], 0.0)
        equity, peak = equity + joined + trade["pnl"], peak + joined
        peak = max(peak, equity)
        drawdown = max(drawdown, 1 - equity / peak)
    daily, before = [], start
    by_day: dict[int, float] = defaultdict(float)
    joined_on: dict[int, float] = defaultdict(float)
    for trade in trades:
        by_day[day_of(trade)] += trade["pnl"]
    for trade in first_trade.values():
        if day_of(trade) != opening:
            joined_on[day_of(trade)] += STARTING_EQUITY
    for day in range(min(by_day), max(by_day) + 1):
        if (day + 3) % 7 <= 4:
            before += joined_on[day]
            daily.append(by_day[day] / before)
            before += by_day[day]
    wins = [trade["pnl"] for trade in trades if trade["pnl"] > 0]
    losses = [-trade["pnl"] for trade in trades if trade["pnl"] < 0]
    return {
        "n_trades": len(trades),
        "sharpe_ratio": statistics.mean(daily) / statistics.stdev(daily) * math.sqrt(252),
        "max_drawdown": drawdown,
        "win_rate": len(wins) / len(trades),
        "profit_factor": sum(wins) / sum(losses),
    }


def test_the_demo_ends_with_figures_that_the_bots_logs_confirm(tmp_path: Path) -> None:
    """Live figures equal a recomputation to 1e-9; v1 answers, then v2, and nothing fails."""
    root = tmp_path / "demo"
    result = finish(start_demo(root, bars=240, speed=60))
    assert (result["failed"], result["late"], result["requests"]) == (0, 0, 3 * 240)
    change = result["change"]
    assert change["old_replies"] > 0
    assert change["new_replies"] > 0
    assert change["other_replies"] == change["old_after_new"] == change["failed"] == 0
    trades, blocks = own_trades(root), live_blocks(root)
    assert set(trades) == set(blocks)
    assert {build.rpartition("_")[0] for build in trades} == set(result["models"])
    assert sum(map(len, trades.values())) == result["trades"]
    for build, block in blocks.items():
        for name, value in recomputed(trades[build]).items():
            assert block[name] == pytest.approx(value, abs=1e-9), (build, name)
    again = finish(start_demo(root, bars=20, speed=100))
    assert again["requests"] == 3 * 20


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    """The demo empties only folders that it has made."""
    (tmp_path / "thesis.txt").write_text("years of work")
    demo = start_demo(tmp_path, bars=20, speed=100)
    _, err = demo.communicate(timeout=LONGEST_S)
    assert demo.returncode == 1
    assert "--root" in err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_killing_the_recorder_loses_nothing(tmp_path: Path) -> None:
    """The supervisor restarts it; every trade in the bots' logs counts exactly once."""
    root = tmp_path / "demo"
    demo = start_demo(root, bars=240, speed=40)
    settings_of = f"tickserve-{os.getuid()}-"
    kills = 0
    deadline = time.monotonic() + LONGEST_S
    while kills < 2 and time.monotonic() < deadline and demo.poll() is None:
        if sum(map(len, own_trades(root).values())) > 10 * (kills + 1):
            pid = recorder_of(root / "model_storage", settings_of)
            os.kill(pid, signal.SIGKILL)
            kills += 1
        time.sleep(0.1)
    result = finish(demo)
    assert kills == 2
    assert (root / "daemon.log").read_text().count("child_restarted") == kills
    assert result["failed"] == 0
    trades, blocks = own_trades(root), live_blocks(root)
    for build, own in trades.items():
        assert blocks[build]["n_trades"] == len(own)
        total = math.fsum(trade["pnl"] for trade in own)
        assert blocks[build]["net_pnl"] == pytest.approx(total, abs=1e-9)


def recorder_of(storage: Path, settings_of: str) -> int:
    """The recorder's pid, from the command lines of this storage root's daemon."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"recorder" in command and any(settings_of.encode() in part for part in command):
            settings = Path(command[command.index(b"--settings") + 1].decode())
            if json.loads(settings.read_text())["storage"] == str(storage):
                return int(folder.name)
    raise AssertionError("no recorder runs")
