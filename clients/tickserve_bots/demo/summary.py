"""What the demo has to show at its end, from the metadata files and the bots' own logs."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Column, Table

from tickserve_bots.bot import DEADLINE_S
from tickserve_bots.demo.promotion import Change
from tickserve_bots.demo.storage import DemoFolder
from tickserve_registry.model_registry import ModelRegistry

FIGURES = ("sharpe_ratio", "max_drawdown", "win_rate", "profit_factor", "n_trades")
PHASES = ("validation", "live")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """The run's result; `ok` when nothing failed and the change of version was clean."""

    models: dict[str, dict[str, dict[str, Any]]]
    change: dict[str, Any]
    requests: int
    failed: int
    late: int
    latency_us: dict[str, float]
    trades: int
    files: dict[str, str]

    @property
    def ok(self) -> bool:
        """Whether every request was answered in time and every reply named the right model."""
        counts = [self.change[name] for name in ("other_replies", "old_after_new", "failed")]
        return not any((*counts, self.failed, self.late)) and self.change["new_replies"] > 0


def summarise(
    registry: ModelRegistry,
    folder: DemoFolder,
    change: Change,
    *,
    requests: list[dict[str, Any]],
    trades: list[dict[str, Any]],
) -> Summary:
    """Read the figures back from the files that the run has left."""
    latencies = sorted(line["latency_us"] for line in requests if "latency_us" in line)
    models = {
        entry.model_id: _phases(registry.metadata(entry.build).document)
        for entry in registry.entries()
    }
    return Summary(
        models=models,
        change=change._asdict(),
        requests=len(requests),
        failed=sum("error" in line for line in requests),
        late=sum(latency > DEADLINE_S * 1e6 for latency in latencies),
        latency_us={
            name: latencies[int(fraction * (len(latencies) - 1))] if latencies else 0.0
            for name, fraction in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
        },
        trades=len(trades),
        files={
            "models and metadata": str(folder.storage),
            "bots' own logs": str(folder.bots),
            "daemon's log": str(folder.log),
        },
    )


def show(summary: Summary, out: Console) -> None:
    """Print the result for a person."""
    headings = ("model", "phase", "Sharpe", "max dd", "win rate", "pf", "trades")
    columns = [Column(heading, no_wrap=True) for heading in headings]
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for model_id, phases in summary.models.items():
        for phase in PHASES:
            block = phases[phase]
            table.add_row(model_id, phase, *(_cell(name, block.get(name)) for name in FIGURES))
        table.add_section()
    out.print(table)
    latency, change = summary.latency_us, summary.change
    out.print(
        f"{summary.requests} predictions; round trip as the bots saw it: p50 "
        f"{latency['p50']:.0f} µs, p99 {latency['p99']:.0f} µs, max {latency['max']:.0f} µs",
        highlight=False,
        soft_wrap=True,
    )
    out.print(
        f"promotion took {change['promote_ms']:.0f} ms, first reply by v2 "
        f"{change['reload_ms']:.0f} ms after it; {change['old_replies']} replies by v1, then "
        f"{change['new_replies']} by v2, {change['other_replies']} by others",
        highlight=False,
        soft_wrap=True,
    )
    failed = summary.failed + change["failed"]
    out.print(f"requests failed: {failed}, late: {summary.late}", highlight=False)
    for name, path in summary.files.items():
        out.print(f"{name}: {path}", highlight=False, soft_wrap=True)


def _phases(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    performance = document.get("performance") or {}
    blocks = {phase: performance.get(phase) or {} for phase in PHASES}
    return {phase: {name: block.get(name) for name in FIGURES} for phase, block in blocks.items()}


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name == "n_trades":
        return str(value)
    return f"{value:.1%}" if name in {"max_drawdown", "win_rate"} else f"{value:.2f}"
