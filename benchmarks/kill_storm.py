"""A storm of `kill -9` on recorder and bots, with acknowledgements lost: each outcome once."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from math import fsum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.daemon import Service, model_info, train
from benchmarks.storm_bot import Journal, Told
from tickserve_registry.model_registry import ModelRegistry

BOTS = 4
ON_THE_RECORDER = 0.6
"""Share of the kills."""

FINISH_S = 60.0
FAMILY = "eurusd_1h_xgb_bench"


class Counts(NamedTuple):
    """What a storm was and what came of it."""

    recorder_kills: int
    bot_kills: int
    said: int
    acknowledged: int
    trades: int
    missing: int
    """Acknowledged and not in the ledger as acknowledged, right after everything was killed."""

    wrong: int
    """Trades that in the end are not in the ledger once, as last said."""

    pnl_difference: float
    """Between the bots' sum and that of the metadata."""

    figures_differ: int
    """Problems that `tickserve ledger verify` finds."""


def storm(folder: Path, *, seconds: float, seed: int) -> Counts:
    """Run a storm of so many seconds, kill everything, let the bots finish, and count."""
    chance = random.Random(seed)  # noqa: S311 - moments, no secrets
    service = Service(folder, writeback_seconds=0.5)
    registry = ModelRegistry(str(service.storage))
    registry.save_model(train(trees=5), model_info(), environment="production")
    (build,) = (entry.build for entry in registry.entries())
    kills = [0, 0]
    service.start()
    bots = [_start(service, build, folder, number) for number in range(BOTS)]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(chance.uniform(0.05, 1.5))
        if chance.random() < ON_THE_RECORDER:
            os.kill(service.child("recorder"), signal.SIGKILL)
            kills[0] += 1
        else:
            number = chance.randrange(BOTS)
            bots[number].kill()
            bots[number].wait()
            bots[number] = _start(service, build, folder, number)
            kills[1] += 1
    os.kill(service.child("recorder"), signal.SIGKILL)
    service.kill()
    for bot in bots:
        bot.kill()
        bot.wait()
    missing = _missing(service, folder)
    (folder / "finish").touch()
    service.await_end()
    with service:
        for number, bot in enumerate([_start(service, build, folder, n) for n in range(BOTS)]):
            if bot.wait(FINISH_S):
                raise RuntimeError(f"bot{number} failed; see {folder}")
    problems = _verified(service)
    return _counted(service, folder, kills, missing=missing, problems=problems)


def _start(service: Service, build: str, folder: Path, number: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.storm_bot", "--bot", f"bot{number}"]
    command += ["--endpoint", service.endpoints.feedback, "--build", build, "--folder", str(folder)]
    return subprocess.Popen([*command, "--seed", str(random.randrange(1 << 30))])  # noqa: S311


def _ledger(service: Service) -> dict[tuple[str, str], Told]:
    with sqlite3.connect(service.storage / "ledger" / "ledger.sqlite3") as ledger:
        rows = ledger.execute("select bot, trade, seq, pnl from outcomes").fetchall()
    found = {(bot, trade): Told(seq, pnl) for bot, trade, seq, pnl in rows}
    assert len(found) == len(rows)
    return found


def _journals(folder: Path) -> dict[str, Journal]:
    return {file.stem: Journal(file) for file in sorted(folder.glob("*.journal"))}


def _missing(service: Service, folder: Path) -> int:
    """Return how many acknowledged revisions the ledger has not, nor a newer one."""
    ledger, missing = _ledger(service), 0
    for name, journal in _journals(folder).items():
        for trade, told in journal.newest(iter(journal.acknowledged)).items():
            stored = ledger.get((name, trade))
            if (
                stored is None
                or stored.seq < told.seq
                or (stored.seq == told.seq and stored != told)
            ):
                missing += 1
    return missing


def _counted(
    service: Service, folder: Path, kills: list[int], *, missing: int, problems: int
) -> Counts:
    journals = _journals(folder)
    said = {
        (name, trade): told
        for name, journal in journals.items()
        for trade, told in journal.newest(iter(journal.meant)).items()
    }
    ledger = _ledger(service)
    wrong = sum(ledger.get(key) != told for key, told in said.items()) + len(ledger.keys() - said)
    document = ModelRegistry(str(service.storage)).metadata(FAMILY).document
    live = document["performance"]["live"]
    return Counts(
        recorder_kills=kills[0],
        bot_kills=kills[1],
        said=sum(len(journal.meant) for journal in journals.values()),
        acknowledged=sum(len(journal.acknowledged) for journal in journals.values()),
        trades=len(said),
        missing=missing,
        wrong=wrong + (live["n_trades"] != len(said)),
        pnl_difference=live["net_pnl"] - fsum(told.pnl for told in said.values()),
        figures_differ=problems,
    )


def _verified(service: Service) -> int:
    command = [sys.executable, "-m", "tickserve_server", "ledger", "verify", "--json"]
    command += ["--storage", str(service.storage)]
    shown = subprocess.run(command, capture_output=True, check=False)
    return len(json.loads(shown.stdout)["problems"])


def main(options: Sequence[str]) -> None:
    """Run a storm and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=5)
    chosen = parser.parse_args(options)
    with TemporaryDirectory() as folder_name:
        counts = storm(Path(folder_name), seconds=chosen.seconds, seed=chosen.seed)
    for name, value in counts._asdict().items():
        print(f"{name.replace('_', ' ')}: {value:g}")
