"""`tickserve doctor`: what is wrong with a set-up, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer
from rich.text import Text

from tickserve_server.cli.output import FAILURE, JsonFlag, console, print_json, printable
from tickserve_server.cli.service import CONFIG, LEDGER, OPS, STORAGE, resolve
from tickserve_server.errors import SettingsError

if TYPE_CHECKING:
    from tickserve_server.cli.examination import Finding

MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "fault": ("✗", "red")}


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog="Example: tickserve doctor --config /etc/tickserve/tickserve.toml")(doctor)


def doctor(
    config: Path | None = CONFIG,
    storage: str | None = STORAGE,
    ledger: str | None = LEDGER,
    ops: str | None = OPS,
    as_json: bool = JsonFlag,
) -> None:
    """Check settings, storage, registry, ledger, ports, clock, limits and keys; change nothing.

    Run it as the user that runs the daemon. Exit code 0 without a fault, 1 with one.
    """
    from tickserve_server.cli.examination import Finding, examine

    try:
        flags = {"storage": storage, "ledger.url": ledger, "ops.listen": ops}
        settings = resolve(config, flags)
    except SettingsError as error:
        remedy = "correct it; config/tickserve.toml lists every setting"
        findings = [Finding(check="settings", level="fault", text=str(error), remedy=remedy)]
    else:
        where = "the defaults" if config is None else str(config)
        found = Finding(check="settings", level="ok", text=f"{where} can be used")
        findings = [found, *examine(settings)]
    if as_json:
        print_json(msgspec.to_builtins(findings))
    else:
        for each in findings:
            console().print(_line(each), soft_wrap=True)
    faults = sum(each.level == "fault" for each in findings)
    raise typer.Exit(FAILURE if faults else 0)


def _line(finding: Finding) -> Text:
    mark, style = MARKS[finding.level]
    remedy = f"\n    → {printable(finding.remedy)}" if finding.remedy else ""
    text = f"{finding.check:<9} {printable(finding.text)}{remedy}"
    return Text.assemble((f"{mark} ", style), text)
