"""`tickserve status`: what the daemon serves, since when, how fast, and what is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from tickserve_client.messages import Status, StatusReport
from tickserve_registry.halts import ALL_MODELS
from tickserve_server.cli.asking import TIMEOUT, ask
from tickserve_server.cli.output import JsonFlag, cell, console, print_json, printable
from tickserve_server.cli.service import CONFIG, STORAGE, resolve
from tickserve_server.errors import NotAnswering
from tickserve_server.latency import LatencyHistogram
from tickserve_server.runtime import Runtime

WATCH = typer.Option(False, "--watch", "-w", help="Show it anew again and again, until Ctrl-C.")
EVERY = typer.Option(1.0, "--every", min=0.1, help="Seconds between two looks of --watch.")
DIGEST_SHOWN = 8


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog="Example: tickserve status --storage model_storage --watch")(status)


def status(  # noqa: PLR0917 - Typer passes options by name
    config: Path | None = CONFIG,
    storage: str | None = STORAGE,
    timeout: float = TIMEOUT,
    watch: bool = WATCH,
    every: float = EVERY,
    as_json: bool = JsonFlag,
) -> None:
    """Show what the daemon serves: builds, digests, requests, errors, latency, last reload.

    Exit code 0 when all is as it should be, 1 when the daemon does not answer or is degraded.
    With --watch and --json together one document is printed on each line.
    """
    runtime = Runtime(resolve(config, {"storage": storage}).storage_root)

    def look() -> dict[str, Any]:
        serving: StatusReport = ask(runtime.admin_serving, Status(), timeout, StatusReport)
        report = _summarised(serving.report)
        try:
            recorder = ask(runtime.admin_recorder, Status(), timeout, StatusReport).report
        except NotAnswering as error:
            recorder = {"degraded": [f"the recorder: {error}"]}
        report["degraded"] += recorder["degraded"]
        return report | {"recorder": recorder}

    if watch:
        _watch(look, every=every, as_json=as_json)
        return
    report = look()
    if as_json:
        print_json(report)
    else:
        console().print(_page(report))
    raise typer.Exit(1 if report["degraded"] else 0)


def _summarised(report: dict[str, Any]) -> dict[str, Any]:
    """Replace each model's histogram by its percentiles."""
    for model in report["models"]:
        model["latency"] = LatencyHistogram.load(model["latency"]).summary()
    return report


def _watch(look: Callable[[], dict[str, Any]], *, every: float, as_json: bool) -> None:
    """Show the state until Ctrl-C; a daemon that does not answer is shown as that."""
    if as_json:
        while True:
            print_json(look(), indent=0)
            time.sleep(every)
    with Live(console=console(), auto_refresh=False, screen=console().is_terminal) as live:
        while True:
            live.update(_seen(look), refresh=True)
            time.sleep(every)


def _seen(look: Callable[[], dict[str, Any]]) -> RenderableType:
    try:
        return _page(look())
    except NotAnswering as error:
        return Text(printable(error), style="red")


def _page(report: dict[str, Any]) -> RenderableType:
    parts: list[RenderableType] = [_headline(report)]
    if "pid" in report["recorder"]:
        parts.append(_recorder_line(report["recorder"]))
    parts.append(_models(report["models"]))
    parts += [_halt(halt) for halt in report["halts"]]
    if report["last_reload"]:
        parts.append(_reload(report["last_reload"]))
    parts += [Text(f"degraded: {printable(why)}", style="red") for why in report["degraded"]]
    return Group(*parts)


def _headline(report: dict[str, Any]) -> Text:
    errors = ", ".join(f"{count} {code}" for code, count in sorted(report["errors"].items()))
    return Text(
        f"serving process {report['pid']}, up {_duration(time.time() - report['started_at'])}: "
        f"{report['requests']} requests, errors: {errors or 'none'}; under way: "
        f"{report['jobs']} large requests, {report['records_uncommitted']} records to commit, "
        f"{report['records_dropped']} dropped"
    )


def _recorder_line(report: dict[str, Any]) -> Text:
    commit = report["commit"]
    return Text(
        f"recorder process {report['pid']}, up {_duration(time.time() - report['started_at'])}: "
        f"{report['turns']} commits, p50 {_microseconds(commit['p50_us'])} µs, p99 "
        f"{_microseconds(commit['p99_us'])} µs; {report['parked']} predictions waited for; "
        f"live figures written {_duration(report['writeback_age_s'])} ago in "
        f"{report['writeback_took_s'] * 1000:.0f} ms"
    )


def _models(models: list[dict[str, Any]]) -> Table:
    build = Column("build", no_wrap=True)
    names = ("digest", "engine", "since", "answers", "errors", "p50 µs", "p99 µs", "max µs")
    columns = [Column(name, justify="right" if "µs" in name else "left") for name in names]
    table = Table(build, *columns, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for model in models:
        latency = model["latency"]
        table.add_row(
            cell(model["build"]),
            model["digest"][:DIGEST_SHOWN],
            model["engine"],
            _moment(model["loaded_at"]),
            str(model["predictions"]),
            str(sum(model["errors"].values())),
            *(_microseconds(latency[key]) for key in ("p50_us", "p99_us", "max_us")),
            style="red" if model["quarantined"] else None,
        )
    return table


def _halt(halt: dict[str, Any]) -> Text:
    model = "everything" if halt["model"] == ALL_MODELS else halt["model"]
    text = f"halted: {model}, by {halt['by']} since {halt['at']}: {halt['reason']}"
    return Text(printable(text), style="yellow")


def _reload(reload: dict[str, Any]) -> Text:
    changes = [f"+{build}" for build in reload["added"]] + [f"-{b}" for b in reload["removed"]]
    return Text(
        f"last reload at {_moment(reload['at'])}, {reload['seconds'] * 1000:.1f} ms: "
        f"{' '.join(changes)}"
    )


def _moment(seconds: float) -> str:
    """Return a time of today as a clock shows it, any other with its date; local time."""
    moment = datetime.fromtimestamp(seconds).astimezone()
    today = datetime.now().astimezone().date()
    return moment.strftime("%H:%M:%S" if moment.date() == today else "%Y-%m-%d %H:%M")


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _microseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"
