"""Commands that change the registry: save, promote, archive, rollback, import."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tickserve_registry.document import read_strictly
from tickserve_registry.errors import PromotionRefused
from tickserve_registry.intake import Imported, candidates
from tickserve_registry.lifecycle import PromotionRecord
from tickserve_server.cli.output import (
    FAILURE,
    JsonFlag,
    cell,
    console,
    fail,
    print_json,
    printable,
)
from tickserve_server.cli.registry import (
    ALLOW_PICKLE,
    FAMILY,
    MODEL,
    REASON,
    STORAGE,
    complete_environments,
    create_registry,
    open_registry,
    require_environment,
)

POLICY_REFUSED = 3

FILE = typer.Argument(..., help="Model file; its first bytes tell its framework.")
INFO = typer.Option(..., "--info", help="JSON file with the metadata.")
INTO = typer.Option(
    "staging",
    "--environment",
    help="Where to save.",
    autocompletion=complete_environments,
    callback=require_environment,
)
SAMPLE = typer.Option(
    None, "--sample", help="Inputs like those of training, .npy or .csv, to prove the model on."
)
KEEP = typer.Option(False, "--keep", help="Leave the family's present production build there.")
FORCE = typer.Option(False, "--force", help="Overrule the promotion policy; needs --reason.")
FOLDER = typer.Argument(..., help="Folder with models and their JSON files.")
DRY_RUN = typer.Option(False, "--dry-run", help="Only say what would be imported.")


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(
        epilog="Example: tickserve save trained.ubj --info info.json --sample rows.csv\n\n"
        "Exit code 3: into production against the promotion policy.",
    )(save)
    app.command(
        epilog="Examples: tickserve promote eurusd_1h_xgb_trend_v2\n\n"
        "tickserve promote eurusd_1h_xgb_trend_v2 --force --reason 'a test on demo money'\n\n"
        "Exit code 3: the promotion policy is not met.",
    )(promote)
    app.command(epilog="Example: tickserve archive eurusd_1h_xgb_trend_v1")(archive)
    app.command(epilog="Example: tickserve rollback eurusd_1h_xgb_trend --reason 'v2 loses'")(
        rollback
    )
    app.command("import", epilog="Example: tickserve import ../old/model_storage --dry-run")(
        import_
    )


def save(  # noqa: PLR0917 - Typer passes options by name
    file: Path = FILE,
    info: Path = INFO,
    environment: str = INTO,
    sample: Path | None = SAMPLE,
    storage: str | None = STORAGE,
    allow_pickle: bool = ALLOW_PICKLE,
    as_json: bool = JsonFlag,
) -> None:
    """Save a model file with its metadata: compiled, proven, ready to be promoted."""
    registry = create_registry(storage, allow_pickle=allow_pickle)
    chosen: Any = environment
    try:
        document = read_strictly(info)
        rows = None if sample is None else _rows(sample)
        with _policy_shown(as_json=as_json):
            path, meta_path = registry.save_file(file, document, chosen, training_sample=rows)
    except FileNotFoundError as error:
        fail(f"{error.filename}: there is no such file")
    build = Path(path).stem
    serving = registry.metadata(build).serving
    if as_json:
        saved = {"build": build, "model_path": path, "metadata_path": meta_path}
        print_json(saved | {"serving": msgspec.to_builtins(serving)})
        return
    proof = f"error {serving.parity.max_abs_error:.1e}" if serving.parity.max_abs_error else "exact"
    why = f" ({serving.reason or f'{proof} over {serving.parity.probes} probes'})"
    console().print(f"{build} is in {environment}, served by {serving.engine}{why}", markup=False)


def promote(  # noqa: PLR0917 - Typer passes options by name
    model: str = MODEL,
    storage: str | None = STORAGE,
    keep: bool = KEEP,
    reason: str | None = REASON,
    force: bool = FORCE,
    as_json: bool = JsonFlag,
) -> None:
    """Move a build to production; a running daemon picks it up."""
    registry = open_registry(storage)
    with _policy_shown(as_json=as_json):
        record = registry.promote_model(model, keep=keep, reason=reason, force=force)
    _report(record, as_json=as_json)


def archive(
    model: str = MODEL,
    storage: str | None = STORAGE,
    reason: str | None = REASON,
    as_json: bool = JsonFlag,
) -> None:
    """Move a build to the archive; nothing is deleted."""
    _report(open_registry(storage).archive_model(model, reason=reason), as_json=as_json)


def rollback(
    family: str = FAMILY,
    storage: str | None = STORAGE,
    reason: str | None = REASON,
    as_json: bool = JsonFlag,
) -> None:
    """Put back what was in production before the family's champion."""
    _report(open_registry(storage).rollback(family, reason=reason), as_json=as_json)


def import_(
    folder: Path = FOLDER,
    storage: str | None = STORAGE,
    allow_pickle: bool = ALLOW_PICKLE,
    dry_run: bool = DRY_RUN,
    as_json: bool = JsonFlag,
) -> None:
    """Bring in models laid out by the naming convention's own utility, reporting each.

    Exit code 1 when a model is refused; the others are imported all the same.
    """
    registry = create_registry(storage, allow_pickle=allow_pickle)
    found = registry.import_folder(folder, dry_run=dry_run)
    outcomes = list(_with_progress(found, total=len(candidates(folder))))
    if as_json:
        print_json([msgspec.to_builtins(each) for each in outcomes])
    else:
        _print_outcomes(outcomes)
    refused = any(each.outcome == "refused" for each in outcomes)
    raise typer.Exit(FAILURE if refused else 0)


@contextlib.contextmanager
def _policy_shown(*, as_json: bool) -> Iterator[None]:
    """Show what the promotion policy asks and finds, and end with its own exit code."""
    try:
        yield
    except PromotionRefused as error:
        _show_refusal(error, as_json=as_json)


def _show_refusal(error: PromotionRefused, *, as_json: bool) -> NoReturn:
    if as_json:
        print_json({"refused": error.build, "unmet": msgspec.to_builtins(error.unmet)})
    else:
        table = Table("rule", "asked", "found", box=box.SIMPLE_HEAD, pad_edge=False)
        for each in error.unmet:
            table.add_row(cell(each.rule), cell(each.asked), cell(each.found))
        Console(stderr=True).print(table)
    fail(
        f"{error.build} does not meet the promotion policy; overrule it with --force --reason",
        POLICY_REFUSED,
    )


def _rows(path: Path) -> Any:
    import numpy as np

    try:
        if path.suffix == ".csv":
            import pandas as pd

            return pd.read_csv(path)
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        fail(f"{path} holds no rows of numbers: {error}")


def _report(record: PromotionRecord, *, as_json: bool) -> None:
    if as_json:
        print_json(msgspec.to_builtins(record))
        return
    out = console()
    out.print(f"{record.build} went from {record.origin} to {record.target}", highlight=False)
    for build in record.archived:
        out.print(f"{build} is in the archive", highlight=False)
    for rule in record.overruled:
        out.print(f"overruled: {printable(rule)}", highlight=False, markup=False)


def _with_progress(found: Iterable[Imported], *, total: int) -> Iterator[Imported]:
    quiet = not sys.stderr.isatty()
    with Progress(console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task("importing", total=total)
        for each in found:
            yield each
            bar.advance(task)


def _print_outcomes(outcomes: list[Imported]) -> None:
    out = console()
    for each in outcomes:
        where = "" if each.outcome == "refused" else f" ({each.environment})"
        out.print(f"{each.outcome}: {each.build}{where}", highlight=False, markup=False)
        for note in (*each.notes, *([each.reason] if each.reason else [])):
            out.print(f"    {note}", highlight=False, markup=False)
    counts = Counter(each.outcome for each in outcomes)
    summary = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    out.print(summary or "no models found", highlight=False)
