"""Decides what becomes of each feedback item, and stores what is to be kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

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
from tickserve_registry.track_record import ClosedTrade
from tickserve_server.parcel import Summary
from tickserve_server.recorder import schema
from tickserve_server.recorder.checks import (
    InvalidItem,
    check_equity,
    check_hello,
    check_label,
    check_outcome,
)
from tickserve_server.recorder.ledger import Ledger, base_of
from tickserve_server.recorder.live import Answered, Change, Labelled, LiveBook, Snapshot
from tickserve_server.recorder.predictions import Predicted, Predictions
from tickserve_server.recorder.reader import closed_trade
from tickserve_server.recorder.runs import UNREGISTERED, Run, Runs
from tickserve_server.recorder.turn import Row, Turn

Item = Hello | Outcome | Label | Equity
Told = Item | Batch
"""What a bot tells, in distinction to what it asks."""

UUID_DIGITS = 12
"""Hexadecimal digits of a UUID of version 7 that hold its time in ms."""


class _Checked(NamedTuple):
    """An item with its own time in ms, or the reason why it is refused."""

    item: Item
    at: int | None
    refusal: str | None


class Feedback:
    """Applies feedback inside the ledger's open transaction, and its effects to the live book.

    `knows_build` tells whether the registry has a build; `clock` returns ms since the epoch, and
    `latest` the same, or more where the clock has been set back: nothing later can have happened.
    """

    def __init__(
        self,
        ledger: Ledger,
        book: LiveBook,
        *,
        knows_build: Callable[[str], bool],
        clock: Callable[[], int],
        latest: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._latest = latest
        self._book = book
        self._knows_build = knows_build
        self._clock = clock
        self._predictions = Predictions(ledger)
        self._runs = Runs(ledger)
        self._parked: set[str] = set()
        self.counts: Counter[tuple[str, str]] = Counter()
        """Outcomes by build and status, counted whether or not their turn is committed."""

    def load(self) -> None:
        """Read from the ledger which predictions are waited for, and join those it has."""
        self._runs.forget()
        waiting = [*self._ledger.parked(schema.outcomes), *self._ledger.parked(schema.labels)]
        self._parked = {base_of(row["prediction_id"]) for row in waiting}
        known = {base for base in self._parked if self._predictions.find(base) is not None}
        self._join(known)

    @property
    def parked(self) -> int:
        """How many predictions are waited for."""
        return len(self._parked)

    def apply(self, requests: Sequence[Told]) -> list[Ack]:
        """Apply requests; return their acknowledgements, to be sent after the commit."""
        latest = self._latest()
        checked = [[self._check(item, latest) for item in _items(each)] for each in requests]
        valid = [each.item for items in checked for each in items if each.refusal is None]
        turn = Turn(self._ledger, valid, now=self._clock())
        acks = [
            _ack(request, [self._item(turn, each) for each in items])
            for request, items in zip(requests, checked, strict=True)
        ]
        turn.write()
        return acks

    def join(self, summaries: Iterable[tuple[Summary, bytes]]) -> None:
        """Attribute what waits for predictions that have now arrived."""
        if not self._parked:
            return
        for summary, body in summaries:
            near = {p for p in self._parked if summary.first_id <= p <= summary.last_id}
            if near:
                self._join(self._predictions.among(body, near))

    def _join(self, bases: set[str]) -> None:
        if not bases:
            return
        outcomes = self._ledger.parked(schema.outcomes, bases)
        turn = Turn(self._ledger, (), now=self._clock())
        turn.read_used({row["prediction_id"] for row in outcomes})
        for row in outcomes:
            predicted = self._predictions.find(row["prediction_id"])
            if predicted is not None:
                self._put(turn, row, row | {"build": predicted.build})
        for row in self._ledger.parked(schema.labels, bases):
            predicted = self._predictions.find(row["prediction_id"])
            if predicted is not None:
                self._put_label(turn, row, predicted)
        turn.write()
        self._parked -= bases

    def _check(self, item: Item, latest: int) -> _Checked:
        try:
            if isinstance(item, Outcome):
                return _Checked(item, check_outcome(item, latest), None)
            if isinstance(item, Label):
                return _Checked(item, check_label(item, latest), None)
            if isinstance(item, Equity):
                return _Checked(item, check_equity(item, latest), None)
            check_hello(item)
            return _Checked(item, None, None)
        except (InvalidItem, ProtocolError) as error:
            return _Checked(item, None, str(error))

    def _item(self, turn: Turn, checked: _Checked) -> AckItem:
        item, at, refusal = checked
        if refusal is not None:
            result = _invalid(refusal)
        elif isinstance(item, Outcome):
            result = self._outcome(turn, item, at)
        elif isinstance(item, Hello):
            result = self._hello(turn, item)
        elif isinstance(item, Label):
            result = self._label(turn, item, at or 0)
        else:
            result = self._equity(turn, item, at or 0)
        if isinstance(item, Outcome):
            self.counts[str(result.details.get("build", "")), result.status] += 1
        return result

    def _hello(self, turn: Turn, hello: Hello) -> AckItem:
        key = (str(hello.bot), str(hello.run))
        row: Row = {
            "bot": key[0],
            "run": key[1],
            "account": hello.account or "",
            "mode": hello.mode,
            "currency": hello.currency,
            "starting_equity": hello.starting_equity,
            "received_at": turn.now,
        }
        known = self._runs.find(key)
        if known is not None:
            return _repeated_hello(known, row)
        traded = self._runs.currency(key)
        if traded and hello.currency and traded != hello.currency:
            return _invalid(f"the run's trades are in {traded}, not in {hello.currency}")
        self._runs.register(row)
        self._open_account(key, hello.account or "", hello.starting_equity)
        capital = self._book.capital((key[0], hello.account or ""))
        return AckItem(status="recorded", details={"run": key[1], "starting_equity": capital})

    def _open_account(self, run: Run, account: str, stated: float | None) -> None:
        """Take the capital of a new account; what counted the run's trades before is outdated."""
        if stated is not None and self._runs.open_account(run[0], account, stated):
            self._book.set_capital((run[0], account), stated)
        self._book.outdate(self._runs.builds(run))

    def _outcome(self, turn: Turn, outcome: Outcome, closed_at: int | None) -> AckItem:
        content = _content(outcome)
        known = turn.get(schema.outcomes, (outcome.bot, outcome.run, outcome.trade))
        if known is not None and outcome.seq <= known["seq"]:
            return _repeated_outcome(turn, outcome, known, content)
        stated = self._runs.currency((outcome.bot, outcome.run))
        if stated and outcome.currency and stated != outcome.currency:
            return _invalid(f"currency {outcome.currency} disagrees with the run's {stated}")
        try:
            build = self._attribution(outcome)
        except InvalidItem as error:
            return _invalid(str(error))
        if known is not None:
            turn.keep(known)
        row = _outcome_row(outcome, build=build, closed_at=closed_at, content=content, now=turn.now)
        self._put(turn, known, row)
        if build is None:
            assert outcome.prediction_id is not None  # noqa: S101 - else _attribution refuses
            self._parked.add(base_of(outcome.prediction_id))
            return AckItem(status="parked", details={"waits_for": outcome.prediction_id})
        return AckItem(status="recorded", details={"build": build})

    def _attribution(self, outcome: Outcome) -> str | None:
        """Return the build that predicted: the one echoed, else the prediction's own."""
        if outcome.build is not None and self._knows_build(outcome.build):
            return outcome.build
        if outcome.prediction_id is None:
            raise InvalidItem(f"no build is called {outcome.build!r}")
        predicted = self._predictions.find(outcome.prediction_id)
        return None if predicted is None else predicted.build

    def _put(self, turn: Turn, known: Row | None, row: Row) -> None:
        """Store an outcome's newest revision, and have the figures follow."""
        position = self._ledger.next_position()
        run = (row["bot"], row["run"])
        before, after = self._counted(known), self._counted(row)
        old, new = None if known is None else known["build"], row["build"]
        if before is not None and old != new:
            self._book.change(Change(position, str(old), before, None))
            before = None
        if new is not None:
            if before is not None or after is not None:
                self._book.change(Change(position, new, before, after))
            if turn.is_first_of_prediction(row):
                lag = turn.now - served_at(row["prediction_id"], otherwise=turn.now)
                self._book.answer(Answered(new, lag))
        self._runs.note_trade(run, build=new, currency=row["currency"])
        turn.put(schema.outcomes, row | {"position": position})

    def _counted(self, row: Row | None) -> ClosedTrade | None:
        """Return the trade of a row as it enters the figures, None where it does not."""
        if row is None or row["build"] is None or not row["final"] or row["status"] != "closed":
            return None
        run = self._runs.find((row["bot"], row["run"])) or UNREGISTERED
        currency = row["currency"] or run["currency"]
        return closed_trade(row | {"account": run["account"], "currency": currency})

    def _label(self, turn: Turn, label: Label, at: int) -> AckItem:
        known = turn.get(schema.labels, (label.prediction_id,))
        if known is not None:
            if known["value"] != label.value:
                reason = f"this prediction is known with the label {known['value']:g}"
                return AckItem(status="conflict", details={"reason": reason})
            return AckItem(status="parked" if known["build"] is None else "duplicate")
        row = {
            "prediction_id": label.prediction_id,
            "value": label.value,
            "at": at,
            "received_at": turn.now,
            "build": None,
            "output": None,
            "position": 0,
        }
        predicted = self._predictions.find(label.prediction_id)
        if predicted is not None:
            self._put_label(turn, row, predicted)
            return AckItem(status="recorded", details={"build": predicted.build})
        turn.put(schema.labels, row)
        self._parked.add(base_of(label.prediction_id))
        return AckItem(status="parked", details={"waits_for": label.prediction_id})

    def _put_label(self, turn: Turn, row: Row, predicted: Predicted) -> None:
        position = self._ledger.next_position()
        stored = {"build": predicted.build, "output": predicted.output, "position": position}
        turn.put(schema.labels, row | stored)
        self._book.label(Labelled(position, predicted.build, row["value"], predicted.output))

    def _equity(self, turn: Turn, snapshot: Equity, at: int) -> AckItem:
        known = turn.get(schema.equity, (snapshot.bot, snapshot.run, at))
        if known is not None:
            if known["equity"] == snapshot.equity:
                return AckItem(status="duplicate")
            reason = f"equity at this time is known as {known['equity']:g}"
            return AckItem(status="conflict", details={"reason": reason})
        stated = self._runs.currency((snapshot.bot, snapshot.run))
        if stated and snapshot.currency and stated != snapshot.currency:
            return _invalid(f"currency {snapshot.currency} disagrees with the run's {stated}")
        turn.put(
            schema.equity,
            {
                "bot": snapshot.bot,
                "run": snapshot.run,
                "at": at,
                "equity": snapshot.equity,
                "currency": snapshot.currency,
                "received_at": turn.now,
            },
        )
        self._book.mark(Snapshot((snapshot.bot, snapshot.run), at, snapshot.equity))
        return AckItem(status="recorded")


def served_at(prediction_id: str, *, otherwise: int) -> int:
    """Return when a prediction was made (ms), which its UUID of version 7 tells."""
    digits = prediction_id.replace("-", "")[:UUID_DIGITS]
    try:
        return int(digits, 16)
    except ValueError:
        return otherwise


def _items(request: Told) -> Sequence[Item]:
    return request.items if isinstance(request, Batch) else [request]


def _ack(request: Told, results: list[AckItem]) -> Ack:
    if isinstance(request, Batch):
        return Ack(id=request.id, status="recorded", results=results)
    (result,) = results
    return Ack(id=request.id, status=result.status, details=result.details)


def _invalid(reason: str) -> AckItem:
    return AckItem(status="invalid", details={"reason": reason})


def _repeated_hello(known: Row, row: Row) -> AckItem:
    stated = ("account", "mode", "currency", "starting_equity")
    other = [name for name in stated if row[name] not in (None, "", known[name])]
    if not other:
        return AckItem(status="duplicate", details={"run": row["run"]})
    reason = ", ".join(f"{name} is known as {known[name]!r}" for name in other)
    remedy = "; a run registers once, so give another bot or run its own name"
    return AckItem(status="conflict", details={"reason": reason + remedy, "run": row["run"]})


def _repeated_outcome(turn: Turn, outcome: Outcome, known: Row, content: str) -> AckItem:
    if outcome.seq == known["seq"]:
        if content != known["content"]:
            reason = f"seq {known['seq']} of this trade is known with other content"
            return AckItem(status="conflict", details={"reason": reason})
        status: AckStatus = "parked" if known["build"] is None else "duplicate"
        return AckItem(status=status)
    turn.keep(
        {
            "bot": outcome.bot,
            "run": outcome.run,
            "trade": outcome.trade,
            "seq": outcome.seq,
            "content": content,
            "received_at": turn.now,
        }
    )
    return AckItem(status="duplicate", details={"known_seq": known["seq"]})


def _outcome_row(
    outcome: Outcome, *, build: str | None, closed_at: int | None, content: str, now: int
) -> Row:
    return {
        "bot": outcome.bot,
        "run": outcome.run,
        "trade": outcome.trade,
        "seq": outcome.seq,
        "status": outcome.status,
        "final": outcome.final,
        "build": build,
        "prediction_id": outcome.prediction_id,
        "pnl": outcome.pnl,
        "currency": outcome.currency,
        "closed_at": closed_at,
        "content": content,
        "received_at": now,
    }


def _content(outcome: Outcome) -> str:
    """Return everything but v, op and id, which is what makes two messages the same."""
    fields = msgspec.to_builtins(outcome)
    for name in ("v", "op", "id"):
        fields.pop(name, None)
    return msgspec.json.encode(fields, order="sorted").decode()
