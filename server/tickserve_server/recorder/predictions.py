"""Finds the build and the output of a prediction by its id, in the ledger's parcels."""

from __future__ import annotations

import sys
from array import array
from collections import OrderedDict
from typing import NamedTuple

import msgspec

from tickserve_server.recorder import schema
from tickserve_server.recorder.ledger import Key, Ledger

MOST_OPEN = 32
"""Parcels kept open; what comes together asks about predictions of about the same time."""


class Predicted(NamedTuple):
    """Who predicted, and what: None where one row has several outputs."""

    build: str
    output: float | None


class _Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The start of a parcel's record; its inputs are not read."""

    prediction_id: str
    build: str
    digest: str
    served_at_ms: int
    bar_time_ms: int | None
    server_us: int
    rows: int
    outputs: bytes

    def predicted(self, row: int | None) -> Predicted | None:
        """Return one row's prediction, None where there is no such row."""
        outputs = array("f", self.outputs)
        if sys.byteorder == "big":
            outputs.byteswap()
        if row is None and self.rows > 1:
            return Predicted(self.build, None)
        place = row or 0
        if not 0 <= place < self.rows:
            return None
        is_single = len(outputs) == self.rows
        return Predicted(self.build, outputs[place] if is_single else None)


class Predictions:
    """Looks predictions up inside the ledger's open transaction."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._decoder = msgspec.msgpack.Decoder(list[_Answer])
        self._open: OrderedDict[Key, dict[str, _Answer]] = OrderedDict()

    def find(self, prediction_id: str) -> Predicted | None:
        """Return the prediction with an id; row i of a batch is `<base>:<i>`."""
        base, _, row = prediction_id.partition(":")
        if row and not row.isdecimal():
            return None
        for key in self._ledger.parcels_around(base):
            answer = self._answers(key).get(base)
            if answer is not None:
                return answer.predicted(int(row) if row else None)
        return None

    def among(self, body: bytes, ids: set[str]) -> set[str]:
        """Return which of the base ids a parcel holds."""
        return {each.prediction_id for each in self._decoder.decode(body)} & ids

    def _answers(self, key: Key) -> dict[str, _Answer]:
        known = self._open.get(key)
        if known is None:
            found = self._ledger.find(schema.prediction_parcels, [key])
            body = found[key]["body"]
            known = {each.prediction_id: each for each in self._decoder.decode(body)}
            self._open[key] = known
            if len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return known
