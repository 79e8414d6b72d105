"""Kills one lifecycle change at each of its steps on disk, and says what each crash left.

Run as a script, so that it forks from a process with a single thread and no model library:
`python crashing.py TEMPLATE SCRATCH NEW_BUILD SCENARIO`. Each step that names, links, syncs,
writes or removes a file is a crash point before it and after it; a write is also torn in half.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tickserve_registry.build import NewBuild
from tickserve_registry.errors import CatalogUnreadable
from tickserve_registry.model_registry import ModelRegistry

STEPS = ("open", "write", "fsync", "replace", "rename", "link", "unlink", "mkdir")
FAMILY = "eurusd_1h_xgb_trend"
LIVE = {"sharpe_ratio": 1.25, "n_trades": 7}

Scenario = Callable[[ModelRegistry, NewBuild], object]
SCENARIOS: dict[str, Scenario] = {
    "save": lambda registry, new: registry._lifecycle.store(new, environment="staging"),
    "save to production": lambda registry, new: registry._lifecycle.store(
        new, environment="production"
    ),
    "promote": lambda registry, _: registry.promote_model(f"{FAMILY}_v3", reason="better"),
    "promote and keep": lambda registry, _: registry.promote_model(f"{FAMILY}_v3", keep=True),
    "archive": lambda registry, _: registry.archive_model(f"{FAMILY}_v2", reason="tired"),
    "rollback": lambda registry, _: registry.rollback(FAMILY, reason="worse"),
    "write-back": lambda registry, _: registry.record_live_performance(
        registry.find(f"{FAMILY}_v2").build, LIVE
    ),
    "rebuild": lambda registry, _: registry.rebuild(),
}


class Killer:
    """Counts the steps of a process and kills it at one of them; 0 only counts.

    Points come three to a step: before it, in the middle of it (a write is torn, another step
    is killed before it again) and after it.
    """

    def __init__(self, point: int) -> None:
        self.point = point
        self.passed = 0

    def install(self) -> None:
        """Stand in front of the system calls of this process."""
        for name in STEPS:
            setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            if name == "open" and not args[1] & os.O_CREAT:
                return call(*args, **options)
            self._pass()
            if name == "write":
                if self.passed + 1 == self.point:
                    call(args[0], args[1][: len(args[1]) // 2])
                self._pass()
            result = call(*args, **options)
            self._pass()
            return result

        return step

    def _pass(self) -> None:
        self.passed += 1
        if self.passed == self.point:
            os.kill(os.getpid(), signal.SIGKILL)


def run(root: Path, new: NewBuild, scenario: str, point: int) -> int | None:
    """Run a scenario in a child that dies at a point; return how many points it passed alive."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        killer = Killer(point)
        registry = ModelRegistry(root)
        killer.install()
        SCENARIOS[scenario](registry, new)
        with open(writing, "w", encoding="utf-8") as out:  # noqa: PTH123 - a pipe has no path
            out.write(str(killer.passed))
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with open(reading, encoding="utf-8") as told:  # noqa: PTH123 - a pipe has no path
        text = told.read()
    if os.WIFSIGNALED(status):
        return None
    assert os.waitstatus_to_exitcode(status) == 0, f"{scenario} failed without a kill"
    return int(text)


def state_of(registry: ModelRegistry) -> dict[str, Any]:
    """Return what a reader sees: environments by index and by metadata, and live figures.

    Every model file is read and its digest checked on the way.
    """
    state = {}
    for entry in registry.entries():
        metadata, _ = registry._reader.with_artefact(entry.build, served=False)
        registry.serving_model(entry)
        live = (metadata.document.get("performance") or {}).get("live")
        state[entry.build] = [entry.environment, metadata.document["status"], live]
    return state


def history_of(registry: ModelRegistry) -> list[list[Any]]:
    """Return the audit trail's changes without times and transactions."""
    return [[c.action, c.build, c.origin, c.target, c.reason] for c in registry.history()]


def examine(root: Path, scenario: str) -> dict[str, Any]:
    """Read a crashed root as it is, repair it both ways, and return what is found."""
    registry = ModelRegistry(root)
    try:
        seen = {build: each[0] for build, each in state_of(registry).items()}
    except CatalogUnreadable:
        seen = None
    clean = bool(registry.verify())
    other = root.with_name("other")
    shutil.copytree(root, other, symlinks=True)
    rebuilt = registry.rebuild()
    problems = [*rebuilt.problems, *registry.verify().problems]
    pairs = Counter((c.transaction, c.build) for c in registry.history())
    problems += [f"{pair} is in the audit trail {n} times" for pair, n in pairs.items() if n > 1]
    if scenario != "rebuild":  # which only another rebuild can end
        problems += _settled_by_a_writer(other, state_of(registry))
    result = {
        "seen": seen,
        "clean": clean,
        "problems": problems,
        "after": state_of(registry),
        "history": history_of(registry),
    }
    shutil.rmtree(other)
    return result


def _settled_by_a_writer(root: Path, rebuilt: dict[str, Any]) -> list[str]:
    """Let the next writer settle it instead; temporary files, which nothing reads, may stay."""
    writer = ModelRegistry(root)
    writer.record_live_performance(next(iter(rebuilt)), {"n_trades": 1})
    problems = [each for each in writer.verify().problems if "was left by a crash" not in each]
    if [each[0] for each in state_of(writer).values()] != [each[0] for each in rebuilt.values()]:
        problems.append("a writer and a rebuild settle it differently")
    return problems


def prepared(template: str, root: Path, scenario: str) -> None:
    """Make a fresh root; one to be rebuilt has a torn index and an older copy of v2."""
    shutil.copytree(template, root)
    if scenario != "rebuild":
        return
    index = root / "metadata" / "registry.json"
    index.write_bytes(index.read_bytes()[:100])
    folder = root / "staging" / "eurusd" / "v2"
    shutil.copytree(root / "production" / "eurusd" / "v2", folder, dirs_exist_ok=True)
    (copy,) = folder.glob("*.json")
    older = {"environment": "staging", "status": "staging", "revision": 1}
    copy.write_text(json.dumps(json.loads(copy.read_text()) | older))


def main() -> None:
    """Print as JSON what each crash point of a scenario left, and the whole change's outcome."""
    template, scratch, new_path, scenario = sys.argv[1:]
    new = msgspec.msgpack.decode(Path(new_path).read_bytes(), type=NewBuild)
    root = Path(scratch) / "root"
    prepared(template, root, scenario)
    points = run(root, new, scenario, 0)
    assert points
    done = examine(root, scenario)
    shutil.rmtree(root)
    crashes = []
    for point in range(1, points + 1):
        prepared(template, root, scenario)
        assert run(root, new, scenario, point) is None, f"point {point} was not reached"
        crashes.append(examine(root, scenario))
        shutil.rmtree(root)
    json.dump({"done": done, "crashes": crashes}, sys.stdout)


if __name__ == "__main__":
    main()
