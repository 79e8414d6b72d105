"""`tickserve demo`: the whole service once, in about a minute, on real bars."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path

import typer
from rich.console import Console

from tickserve_bots.bars import BarsMissing, eurusd_hours
from tickserve_bots.demo.promotion import Change, promote_watched
from tickserve_bots.demo.service import DaemonFailed, DemoDaemon
from tickserve_bots.demo.storage import DemoFolder, ForeignFolder, prepare, save_models
from tickserve_bots.demo.summary import Summary, show, summarise
from tickserve_bots.demo.traders import TRADERS, Traders
from tickserve_bots.demo.view import DemoView
from tickserve_bots.features import matrix
from tickserve_bots.training import FEATURES, LIVE
from tickserve_registry.model_registry import ModelRegistry

ROOT = typer.Option(Path(".demo"), "--root", help="Folder of the demo; emptied at each start.")
BARS = typer.Option(1_200, "--bars", min=20, max=LIVE.end - LIVE.start, help="Bars to trade.")
SPEED = typer.Option(40.0, "--speed", min=1.0, help="Bars a second.")
KEEP = typer.Option(False, "--keep-running", help="Leave the daemon up until Ctrl-C.")
AS_JSON = typer.Option(False, "--json", help="Print the result as JSON.")
TICK_S = 0.25
FAILED = 1


def demo(
    root: Path = ROOT,
    bars: int = BARS,
    speed: float = SPEED,
    keep_running: bool = KEEP,
    as_json: bool = AS_JSON,
) -> None:
    """Train, serve, trade, promote and measure: the whole way, once.

    Trains two versions of a trend model, takes a pretrained LSTM, starts a daemon, lets three
    bots trade bars that no model has seen, promotes version 2 half-way and shows what the live
    figures say beside the validation. Example: tickserve demo --bars 400 --speed 80
    """
    out = Console(stderr=as_json)
    try:
        summary = run(root, bars=bars, speed=speed, keep_running=keep_running, out=out)
    except (BarsMissing, ForeignFolder, DaemonFailed) as error:
        sys.stderr.write(f"tickserve: {error}\n")
        raise typer.Exit(FAILED) from error
    if as_json:
        sys.stdout.write(json.dumps(dataclasses.asdict(summary), indent=2) + "\n")
    raise typer.Exit(0 if summary.ok else FAILED)


def run(root: Path, *, bars: int, speed: float, keep_running: bool, out: Console) -> Summary:
    """Run the demo and return its result; ends everything that it has started."""
    folder = prepare(root)
    daemon, traders = DemoDaemon(folder), Traders(folder)
    try:
        with DemoView(out) as view:
            registry, change = _trade(folder, daemon, traders, view, bars=bars, speed=speed)
        if keep_running:
            summary = _summary(registry, folder, change, traders)
            show(summary, out)
            _keep_running(daemon, folder, out)
            return summary
        daemon.stop()
        summary = _summary(registry, folder, change, traders)
        show(summary, out)
        return summary
    finally:
        traders.stop()
        daemon.stop()


def _trade(
    folder: DemoFolder,
    daemon: DemoDaemon,
    traders: Traders,
    view: DemoView,
    *,
    bars: int,
    speed: float,
) -> tuple[ModelRegistry, Change]:
    history = eurusd_hours()
    view.step(f"training on {history.date(0)} … {history.date(LIVE.start - 1)}, EURUSD hours")
    registry, overruled = save_models(folder, history)
    view.step("in production: trend v1 (XGBoost) and breakout v1 (LSTM); trend v2 waits in staging")
    for rule in overruled:
        view.step(f"breakout v1 by force only, against the policy's {rule}")
    daemon.start()
    predict = daemon.endpoints["predict"]
    view.step(f"the daemon answers at {predict}")
    traders.start(predict=predict, bars=bars, bars_per_second=speed)
    view.step(
        f"{len(TRADERS)} bots trade {bars} bars from {history.date(LIVE.start)} on, "
        f"{speed:g} a second, which no model has seen"
    )
    expected = bars * len(TRADERS)
    _watch(traders, view, expected=expected, until=expected // 2)
    features = matrix(history, FEATURES)[LIVE.start]
    view.step("promoting trend v2 while they trade")
    change = promote_watched(registry, predict, dict(zip(FEATURES, features.tolist(), strict=True)))
    view.step(f"v2 answers {change.reload_ms:.0f} ms after its promotion")
    _watch(traders, view, expected=expected, until=None)
    if any(traders.exit_codes):
        raise DaemonFailed(f"a bot failed (exit codes {traders.exit_codes}); see {folder.log}")
    view.step("the bots are done")
    return registry, change


def _watch(traders: Traders, view: DemoView, *, expected: int, until: int | None) -> None:
    """Show progress until that many requests were made, or until all bots have ended."""
    while traders.running:
        requests = traders.requests()
        view.progress(requests, traders.trades(), expected=expected)
        if until is not None and len(requests) >= until:
            return
        time.sleep(TICK_S)


def _summary(
    registry: ModelRegistry, folder: DemoFolder, change: Change, traders: Traders
) -> Summary:
    return summarise(registry, folder, change, requests=traders.requests(), trades=traders.trades())


def _keep_running(daemon: DemoDaemon, folder: DemoFolder, out: Console) -> None:
    """Leave the daemon to the user until Ctrl-C."""
    for name, endpoint in daemon.endpoints.items():
        out.print(f"{name}: {endpoint}", highlight=False)
    out.print(
        f"try: tickserve status --storage {folder.storage}\nCtrl-C ends it",
        highlight=False,
        soft_wrap=True,
    )
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        out.print("ending the daemon")
