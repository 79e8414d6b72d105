"""Decides what becomes of each feedback item, and stores what is to be kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from tickserve_client.codec import milliseconds
from tickserve_client.errors import ProtocolError
from tickserve_client.messages import (
    Ack,
    AckItem,
    AckStatus,
    Batch,
    Equity,
    Hello,
    Label,
    Outcome,
)
from tickserve_server.parcel import open_parcel
from tickserve_server.recorder.ledger import Ledger, Row
from tickserve_server.recorder.live import Capital, Trade

LARGEST_INTEGER = 2**63 - 1
FUTURE_MS = 60_000
"""How far ahead of our clock a trade time may be before it counts as the future."""


class Effects(NamedTuple):
    """What a committed turn changes in the live figures."""

    trades: list[Trade]
    capital: list[Capital]


class InvalidItem(Exception):
    """An item that breaks a rule of the protocol; nothing of it is stored."""


class Feedback:
    """Applies feedback inside the ledger's open transaction.

    `knows_build` tells whether the registry has a build; `clock` returns ms since the epoch.
    """

    def __init__(
        self, ledger: Ledger, *, knows_build: Callable[[str], bool], clock: Callable[[], int]
    ) -> None:
        self._ledger = ledger
        self._knows_build = knows_build
        self._clock = clock
        self.effects = Effects([], [])

    def begin(self) -> None:
        """Forget the effects of the turn before."""
        self.effects = Effects([], [])

    def apply(self, request: Hello | Outcome | Label | Equity | Batch) -> Ack:
        """Apply one request and return its acknowledgement, to be sent after the commit."""
        if isinstance(request, Batch):
            results = [self._item(item) for item in request.items]
            return Ack(id=request.id, status="recorded", results=results)
        item = self._item(request)
        return Ack(id=request.id, status=item.status, details=item.details)

    def join(self, parcels: Sequence[bytes]) -> None:
        """Attribute parked outcomes to the builds of predictions that have now arrived."""
        waiting = self._ledger.waiting() if parcels else []
        if not waiting:
            return
        builds = {
            record.prediction_id: record.build
            for parcel in parcels
            for record in open_parcel(parcel)
        }
        for row in waiting:
            build = builds.get(row.prediction_id.partition(":")[0])
            if build is not None:
                self._ledger.attribute(row, build=build)
                self._count(row.bot, row.run, row.trade, row, build=build)

    def _item(self, item: Hello | Outcome | Label | Equity) -> AckItem:
        try:
            if isinstance(item, Outcome):
                return self._outcome(item)
            if isinstance(item, Hello):
                return self._hello(item)
            if isinstance(item, Label):
                return self._label(item)
            return self._equity(item)
        except (InvalidItem, ProtocolError) as error:
            return AckItem(status="invalid", details={"reason": str(error)})

    def _hello(self, hello: Hello) -> AckItem:
        if not hello.bot or not hello.run:
            raise InvalidItem("a run registers with `bot` and `run`")
        _require_finite("starting_equity", hello.starting_equity, positive=True)
        account = hello.account or ""
        new = self._ledger.add_run(hello, account=account, at=self._clock())
        if new and hello.starting_equity is not None:
            capital = Capital(hello.bot, hello.run, account, hello.starting_equity)
            self.effects.capital.append(capital)
        elif new:
            self.effects.capital.append(Capital(hello.bot, hello.run, account, None))
        status: AckStatus = "recorded" if new else "duplicate"
        return AckItem(status=status, details={"run": hello.run})

    def _outcome(self, outcome: Outcome) -> AckItem:
        now = self._clock()
        closed_at = self._checked(outcome, now)
        content = _content(outcome)
        known = self._ledger.outcome(outcome.bot, outcome.run, outcome.trade)
        if known is not None and outcome.seq <= known.seq:
            return self._repeated(outcome, known, content, now)
        build = self._attribution(outcome)
        self._ledger.put_outcome(outcome, build=build, closed_at=closed_at, content=content, at=now)
        stored = self._ledger.outcome(outcome.bot, outcome.run, outcome.trade)
        if known is not None and known.build not in (None, build):
            self._discount(known)
        if stored is not None and build is not None:
            self._count(outcome.bot, outcome.run, outcome.trade, stored, build=build)
        if build is None:
            return AckItem(status="parked", details={"waits_for": outcome.prediction_id})
        return AckItem(status="recorded", details={"build": build})

    def _repeated(self, outcome: Outcome, known: Row, content: str, now: int) -> AckItem:
        if outcome.seq == known.seq:
            if content != known.content:
                reason = f"seq {known.seq} of this trade is known with other content"
                return AckItem(status="conflict", details={"reason": reason})
            return AckItem(status="parked" if known.build is None else "duplicate")
        self._ledger.keep_revision(outcome, content=content, at=now)
        return AckItem(status="duplicate", details={"known_seq": known.seq})

    def _checked(self, outcome: Outcome, now: int) -> int | None:
        """Refuse what cannot be true; return the closing time in ms."""
        if not outcome.bot or not outcome.run or not outcome.trade:
            raise InvalidItem("an outcome needs `bot`, `run` and `trade`")
        if abs(outcome.seq) > LARGEST_INTEGER:
            raise InvalidItem(f"seq {outcome.seq} does not fit 64 bits")
        for name in ("qty", "entry_price", "exit_price", "pnl", "fees", "swap", "return_"):
            _require_finite(name, getattr(outcome, name))
        opened = _time("opened_at", outcome.opened_at, now)
        closed = _time("closed_at", outcome.closed_at, now)
        if opened is not None and closed is not None and closed < opened:
            raise InvalidItem("closed_at lies before opened_at")
        if outcome.final and outcome.status == "closed" and None in (closed, outcome.pnl):
            raise InvalidItem("a final closed trade needs `pnl` and `closed_at`")
        if outcome.prediction_id is None and outcome.build is None:
            raise InvalidItem("name the `prediction_id` or the `build` that the trade follows")
        run = self._ledger.run(outcome.bot, outcome.run)
        stated = None if run is None else run.currency
        if stated and outcome.currency and stated != outcome.currency:
            raise InvalidItem(f"currency {outcome.currency} disagrees with the run's {stated}")
        return closed

    def _attribution(self, outcome: Outcome) -> str | None:
        """Return the build that predicted: the one echoed, else the prediction's own."""
        if outcome.build is not None and self._knows_build(outcome.build):
            return outcome.build
        if outcome.prediction_id is None:
            raise InvalidItem(f"no build is called {outcome.build!r}")
        return self._ledger.build_of(outcome.prediction_id)

    def _label(self, label: Label) -> AckItem:
        _require_finite("value", label.value)
        when = _instant("at", label.at, self._clock())
        status: Any = self._ledger.add_label(label, when=when, at=self._clock())
        if status == "conflict":
            reason = "this prediction has another label already"
            return AckItem(status=status, details={"reason": reason})
        return AckItem(status=status)

    def _equity(self, snapshot: Equity) -> AckItem:
        _require_finite("equity", snapshot.equity)
        new = self._ledger.add_equity(snapshot, when=_instant("at", snapshot.at, self._clock()))
        return AckItem(status="recorded" if new else "duplicate")

    def _count(self, bot: str, run: str, trade: str, row: Row, *, build: str) -> None:
        counts = row.final and row.status == "closed"
        self.effects.trades.append(
            Trade(
                build=build,
                key=(bot, run, trade),
                closed_at=row.closed_at if counts else None,
                pnl=row.pnl if counts else None,
                currency=row.currency,
            )
        )

    def _discount(self, row: Row) -> None:
        """Take a trade out of the build it counted for, since its newest revision names another."""
        key = (row.bot, row.run, row.trade)
        self.effects.trades.append(Trade(row.build, key, None, None, row.currency))


def _content(outcome: Outcome) -> str:
    """Return everything but v, op and id, which is what makes two messages the same."""
    fields = msgspec.to_builtins(outcome)
    for name in ("v", "op", "id"):
        fields.pop(name, None)
    return msgspec.json.encode(fields, order="sorted").decode()


def _require_finite(name: str, value: float | None, *, positive: bool = False) -> None:
    if value is not None and (not math.isfinite(value) or (positive and value <= 0)):
        raise InvalidItem(f"{name.rstrip('_')} is {value}")


def _time(name: str, value: int | str | None, now: int) -> int | None:
    return None if value is None else _instant(name, value, now)


def _instant(name: str, value: int | str, now: int) -> int:
    at = milliseconds(value)
    if not -LARGEST_INTEGER <= at <= now + FUTURE_MS:
        raise InvalidItem(f"{name} lies in the future, or is no time")
    return at
