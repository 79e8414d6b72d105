"""What a model is shown at each bar's close, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tickserve_bots.backtest import Span
from tickserve_registry.metadata import Input
from tickserve_registry.replay import Predict

BATCH_ROWS = 4_096

Rows = npt.NDArray[np.float32]
Outputs = npt.NDArray[np.float64]


class Inputs:
    """Rows of features [bars, features]; a bar's input is its row or the window it ends."""

    def __init__(self, rows: Rows, kind: Input, features: tuple[str, ...]) -> None:
        self._rows = rows
        self._length = kind.length if kind.kind == "window" else 1
        self._is_window = kind.kind == "window"
        self._complete = self._complete_bars(kind, features)

    def at(self, index: int) -> Rows:
        """Return the input at a bar."""
        first = index - self._length + 1
        return self._rows[first : index + 1] if self._is_window else self._rows[index]

    def answers(self, predict: Predict, span: Span) -> Outputs:
        """Return one output for each bar; NaN outside the span and where features have gaps."""
        outputs = np.full(len(self._rows), np.nan)
        asked = np.flatnonzero(self._complete[span.start : span.end]) + span.start
        for batch in _batches(asked):
            shown = np.stack([self.at(int(index)) for index in batch])
            outputs[batch] = np.asarray(predict(shown), dtype=np.float64).reshape(len(batch), -1)[
                :, 0
            ]
        return outputs

    def _complete_bars(self, kind: Input, features: tuple[str, ...]) -> npt.NDArray[np.bool_]:
        """Tell for each bar whether the daemon would accept its input."""
        allowed = kind.allow_nan
        nullable = np.array([allowed is True or name in _names(allowed) for name in features])
        fits = (np.isfinite(self._rows) | (np.isnan(self._rows) & nullable)).all(axis=1)
        complete = np.zeros(len(fits), dtype=bool)
        if len(fits) >= self._length:
            windows = np.lib.stride_tricks.sliding_window_view(fits, self._length)
            complete[self._length - 1 :] = windows.all(axis=1)
        return complete


def _batches(indices: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    for first in range(0, len(indices), BATCH_ROWS):
        yield indices[first : first + BATCH_ROWS]


def _names(allowed: bool | tuple[str, ...]) -> tuple[str, ...]:
    return () if isinstance(allowed, bool) else allowed
