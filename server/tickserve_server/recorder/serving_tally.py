"""What one build has answered, over all the processes that served it: a sum that survives them."""

from __future__ import annotations

from collections import Counter
from typing import Any, Self

import msgspec
import numpy as np

from tickserve_registry.drift import InputCounts, Reference
from tickserve_server.latency import LatencyHistogram
from tickserve_server.parcel import Record


class _Life(msgspec.Struct):
    """Figures of one build since it was loaded once; they only grow."""

    loaded_at: float = 0.0
    answered: int = 0
    errors: dict[str, int] = {}
    latency: dict[str, Any] = msgspec.field(default_factory=LatencyHistogram().sparse)


class ServingTally:
    """Counts recorded rows and their inputs, and adds up what serving processes report."""

    def __init__(self, reference: Reference | None) -> None:
        self.predictions = 0
        self._inputs = None if reference is None else InputCounts(reference)
        self._past = _Life()
        self._present = _Life()
        self.served: dict[str, Any] | None = None
        """What a serving process told last: digest, engine and how long it took to load."""

    def add_rows(self, rows: int, records: list[Record]) -> None:
        """Count recorded rows and, where there is a reference, the inputs of their records."""
        self.predictions += rows
        if self._inputs is not None and records:
            width = self._inputs.width
            self._inputs.add(np.concatenate([_newest_rows(each, width) for each in records]))

    def report(self, model: dict[str, Any]) -> None:
        """Take the newest figures of a serving process."""
        if model["loaded_at"] != self._present.loaded_at:
            self._past = self._both()
        self.served = model
        self._present = _Life(
            loaded_at=model["loaded_at"],
            answered=model["predictions"],
            errors=model["errors"],
            latency=LatencyHistogram.load(model["latency"]).sparse(),
        )

    @property
    def watches_inputs(self) -> bool:
        """Whether the model has a reference to compare its inputs with."""
        return self._inputs is not None

    @property
    def answered(self) -> int:
        """Rows answered, whether or not they are recorded."""
        return self._past.answered + self._present.answered

    @property
    def errors(self) -> dict[str, int]:
        """Refusals by code."""
        return self._both().errors

    @property
    def latency(self) -> LatencyHistogram:
        """Durations inside the serving process."""
        return LatencyHistogram.from_sparse(self._both().latency)

    def inputs(self) -> dict[str, Any]:
        """Return the drift of each feature; empty without a reference."""
        return {} if self._inputs is None else self._inputs.figures()

    def dump(self) -> bytes:
        """Return the state as JSON."""
        state = {
            "predictions": self.predictions,
            "inputs": None if self._inputs is None else self._inputs.dump(),
            "past": self._past,
            "present": self._present,
        }
        return msgspec.json.encode(state)

    @classmethod
    def load(cls, state: bytes | str, reference: Reference | None) -> Self:
        """Return what dump() gave away."""
        stored = msgspec.json.decode(state)
        tally = cls(reference)
        tally.predictions = stored["predictions"]
        if reference is not None and stored.get("inputs") is not None:
            tally._inputs = InputCounts.load(stored["inputs"], reference)
        tally._past = msgspec.convert(stored.get("past", {}), _Life)
        tally._present = msgspec.convert(stored.get("present", {}), _Life)
        return tally

    def _both(self) -> _Life:
        past, present = self._past, self._present
        latency = LatencyHistogram.from_sparse(past.latency).plus(
            LatencyHistogram.from_sparse(present.latency)
        )
        return _Life(
            answered=past.answered + present.answered,
            errors=dict(Counter(past.errors) + Counter(present.errors)),
            latency=latency.sparse(),
        )


def _newest_rows(record: Record, width: int) -> Any:
    """Return the inputs of a record as rows [rows, width]; of a window its last row."""
    flat = np.frombuffer(record.inputs, dtype="<f4")
    return flat.reshape(record.rows, -1, width)[:, -1, :]
