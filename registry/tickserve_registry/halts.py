"""halts.json: which models are to give no predictions until somebody lets them go on, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from tickserve_registry.catalog import Entry
from tickserve_registry.errors import HaltsUnreadable, NotHalted, ReasonMissing
from tickserve_registry.history import Change, new_change, record
from tickserve_registry.layout import Layout
from tickserve_registry.store import RootLock, read_plain, write_atomic
from tickserve_registry.transaction import new_transaction

ALL_MODELS = "*"
"""The name that stands for all models, also those promoted later."""

LARGEST_BYTES = 1 << 24


class Halt(msgspec.Struct, frozen=True, kw_only=True):
    """A standing order: `model` is a family, model_id or build, or `*`; `at` is UTC."""

    model: str
    reason: str
    by: str
    at: str


class Halts:
    """The halts of one moment, never changed; false when there are none."""

    def __init__(self, halts: Iterable[Halt] = ()) -> None:
        self.standing = tuple(halts)
        self._by_name = {halt.model: halt for halt in self.standing}

    def __bool__(self) -> bool:
        return bool(self.standing)

    def of(self, entry: Entry) -> Halt | None:
        """Return the widest halt that a build is under, if any."""
        for name in (ALL_MODELS, entry.family, entry.model_id, entry.build):
            halt = self._by_name.get(name)
            if halt is not None:
                return halt
        return None


class HaltFile:
    """Reads and replaces halts.json of a storage root; each change is in the audit trail."""

    def __init__(self, layout: Layout) -> None:
        self.path = layout.halts
        self._history = layout.history
        self._lock = RootLock(layout.lock)

    def read(self) -> Halts:
        """Return the halts; none where there is no file. Raises HaltsUnreadable."""
        return Halts(self._read())

    def halt(self, name: str, *, reason: str) -> Halt:
        """Halt what goes by a name; a second time replaces the reason. Raises ReasonMissing."""
        if not reason.strip():
            raise ReasonMissing(action="a halt")
        change = _change("halt", name, target="halted", reason=reason)
        halt = Halt(model=name, reason=reason, by=change.who, at=change.at)
        self._replace(lambda halts: (*(h for h in halts if h.model != name), halt), [change])
        return halt

    def resume(self, name: str, *, reason: str | None = None) -> tuple[Halt, ...]:
        """Lift the halt of exactly this name, or with `*` all of them; return what was lifted.

        Raises NotHalted.
        """
        lifted: list[Halt] = []

        def without(halts: tuple[Halt, ...]) -> tuple[Halt, ...]:
            lifted.extend(halt for halt in halts if name in (ALL_MODELS, halt.model))
            if not lifted:
                raise NotHalted(name=name, halted=[halt.model for halt in halts])
            return tuple(halt for halt in halts if halt not in lifted)

        self._replace(without, [_change("resume", name, target="serving", reason=reason)])
        return tuple(lifted)

    def _replace(
        self, change: Callable[[tuple[Halt, ...]], tuple[Halt, ...]], trail: list[Change]
    ) -> None:
        """Write the trail first: a crash may leave a line too many there, never one too few."""
        with self._lock.held():
            halts = sorted(change(self._read()), key=lambda halt: halt.model)
            document = msgspec.json.format(msgspec.json.encode({"halts": halts}), indent=2)
            record(self._history, trail)
            write_atomic(self.path, document + b"\n")

    def _read(self) -> tuple[Halt, ...]:
        try:
            return parse_halts(read_plain(self.path, largest=LARGEST_BYTES), path=self.path)
        except FileNotFoundError:
            return ()
        except OSError as error:
            problem = error.strerror or str(error)
            raise HaltsUnreadable(path=self.path, problem=problem) from error


class _Document(msgspec.Struct, frozen=True):
    halts: tuple[Halt, ...]


def parse_halts(data: bytes, *, path: Path) -> tuple[Halt, ...]:
    """Return what a halts.json holds; raise HaltsUnreadable."""
    try:
        return msgspec.json.decode(data, type=_Document).halts
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HaltsUnreadable(path=path, problem=str(error)) from error


def _change(action: str, name: str, *, target: str, reason: str | None) -> Change:
    return new_change(
        transaction=new_transaction(),
        action=action,
        build=name,
        origin=None,
        target=target,
        digest="",
        reason=reason,
    )
