"""A model's input contract: turns named, listed or tensor features into float32 inputs."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from tickserve_server.serving.refusal import Refusal

Array = npt.NDArray[np.float32]
Row = Sequence[float | None]
MOST_NAMED = 100
"""Unexpected features that an error names; a message may hold tens of thousands."""

FLOAT32_MAX = float(np.finfo(np.float32).max)


class InputContract:
    """Checks what a bot sent against what the model was trained on, by name and by shape.

    `window` is 0 for row models, else the number of rows in one window. `nullable` names the
    features that may be missing (`null`), which become NaN. A message holds at most `max_rows`
    rows, a tensor frame `max_tensor_rows`.
    """

    def __init__(
        self,
        features: Sequence[str],
        *,
        window: int,
        nullable: frozenset[str],
        max_rows: int,
        max_tensor_rows: int,
    ) -> None:
        self.features = tuple(features)
        self.width = len(self.features)
        self.window = window
        self.nullable = nullable
        self.max_rows = max_rows
        self.max_tensor_rows = max_tensor_rows
        self.row_shape = (window, self.width) if window else (self.width,)
        self._known = frozenset(self.features)
        self.pick = _picker(self.features)
        self._pack = struct.Struct(f"<{self.width}f").pack_into
        self._nullable_columns = np.array([name in nullable for name in self.features])

    def write_row(self, features: dict[str, float | None], target: memoryview) -> None:
        """Write one row by name into `target` (width × 4 bytes, float32 little-endian).

        Raises Refusal: missing_features, unexpected_features or not_finite.
        """
        if features.keys() != self._known:
            raise self._names_refusal(features)
        self._pack(target, 0, *self._checked(self.pick(features)))

    def batch(
        self, features: dict[str, Any] | list[Any], *, known: frozenset[str] | None = None
    ) -> tuple[Array, bool]:
        """Return inputs [rows, …row_shape] and whether exactly one row was meant.

        `known` names what other models take from the same snapshot, which this one passes over.
        Raises Refusal for any shape, name or number that the model was not trained on.
        """
        depth = _depth(features)
        single = depth == len(self.row_shape)
        if not single and depth != len(self.row_shape) + 1:
            raise self._shape_refusal(_shape(features))
        items: Any = [features] if single else features
        if not items:
            raise self._shape_refusal([0])
        if len(items) > self.max_rows:
            raise Refusal(
                "too_large",
                f"{len(items)} rows in one message; send at most {self.max_rows}, "
                "or a tensor frame",
                rows=len(items),
                limit=self.max_rows,
            )
        rows = self._rows_of_windows(items) if self.window else items
        return self._array(rows, known or self._known).reshape(len(items), *self.row_shape), single

    def tensor(self, frame: bytes, shape: Sequence[int]) -> Array:
        """Read a raw little-endian float32 C-order tensor frame of the declared shape."""
        if len(shape) != len(self.row_shape) + 1 or tuple(shape[1:]) != self.row_shape:
            raise self._shape_refusal(list(shape))
        if shape[0] > self.max_tensor_rows:
            raise Refusal(
                "too_large",
                f"{shape[0]} rows in one request; send at most {self.max_tensor_rows}",
                rows=shape[0],
                limit=self.max_tensor_rows,
            )
        if shape[0] < 1 or len(frame) != 4 * math.prod(shape):
            raise Refusal(
                "wrong_shape",
                f"the tensor frame has {len(frame)} bytes, its shape {list(shape)} takes "
                f"{4 * math.prod(shape)}",
                expected=4 * math.prod(shape),
                given=len(frame),
            )
        array = np.frombuffer(frame, dtype="<f4").reshape(shape)
        self._require_finite(array)
        return array

    def _rows_of_windows(self, windows: Any) -> list[Any]:
        for window in windows:
            if not isinstance(window, list) or len(window) != self.window:
                raise self._shape_refusal(_shape(window))
        return [row for window in windows for row in window]

    def _array(self, rows: Sequence[Any], known: frozenset[str]) -> Array:
        """Return flat rows, by name or listed, as [rows, width]; gaps are NaN."""
        listed = [self._picked(row, known) if isinstance(row, dict) else row for row in rows]
        numbers = _numbers(listed, list[list[float | None]])
        for row in numbers:
            if len(row) != self.width:
                raise self._shape_refusal(_shape(row))
        with np.errstate(over="ignore"):  # what exceeds float32 becomes infinite, and is refused
            array = np.array(numbers, dtype=np.float64).astype(np.float32)
        self._require_finite(array)
        return array

    def _picked(self, row: dict[str, Any], known: frozenset[str]) -> Row:
        if not self._known <= row.keys() <= known:
            raise self._names_refusal(row, known)
        return self.pick(row)

    def _checked(self, values: Row) -> list[float]:
        """Return the values with allowed gaps as NaN; refuse every other non-finite one."""
        checked, refused = [], []
        for name, value in zip(self.features, values, strict=True):
            number = math.nan if value is None else float(value)
            gap_allowed = name in self.nullable and math.isnan(number)
            if not gap_allowed and not _fits_float32(number):
                refused.append(name)
            checked.append(number)
        if refused:
            raise _not_finite(refused)
        return checked

    def _require_finite(self, array: Array) -> None:
        finite = np.isfinite(array)
        if finite.all():
            return
        wrong = ~finite & ~(np.isnan(array) & self._nullable_columns)
        columns = np.flatnonzero(wrong.any(axis=tuple(range(array.ndim - 1))))
        if columns.size:
            raise _not_finite([self.features[column] for column in columns])

    def _names_refusal(self, given: dict[str, Any], known: frozenset[str] = frozenset()) -> Refusal:
        missing = [name for name in self.features if name not in given]
        unexpected = sorted(given.keys() - self._known - known)[:MOST_NAMED]
        if missing:
            message = f"features missing: {', '.join(missing)}"
            if unexpected:
                message += f" (and not known to this model: {', '.join(unexpected)})"
            return Refusal("missing_features", message, missing=missing, unexpected=unexpected)
        return Refusal(
            "unexpected_features",
            f"features not known to this model: {', '.join(unexpected)}",
            missing=missing,
            unexpected=unexpected,
        )

    def _shape_refusal(self, given: list[int]) -> Refusal:
        expected = list(self.row_shape)
        return Refusal(
            "wrong_shape",
            f"this model takes {expected} (or a list of such), the request has {given}",
            expected=expected,
            given=given,
            features=list(self.features),
        )


def _picker(names: tuple[str, ...]) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    if len(names) == 1:
        only = names[0]
        return lambda features: (features[only],)
    return itemgetter(*names)


def _fits_float32(number: float) -> bool:
    return math.isfinite(number) and abs(number) <= FLOAT32_MAX


def _not_finite(names: list[str]) -> Refusal:
    return Refusal(
        "not_finite",
        f"not a finite float32 number: {', '.join(names)}; this model does not allow gaps there",
        features=names,
    )


def _numbers(row: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(row, kind)
    except msgspec.ValidationError as error:
        raise Refusal("malformed", f"features: {error}") from error


def _depth(features: Any) -> int:
    """Nesting depth in rows: a row (by name or listed) is 1, a list of rows 2, of windows 3."""
    depth = 0
    while isinstance(features, list):
        depth += 1
        if not features:
            return depth
        features = features[0]
    return depth + 1 if isinstance(features, dict) else depth


def _shape(features: Any) -> list[int]:
    shape = []
    while isinstance(features, list | dict):
        shape.append(len(features))
        if isinstance(features, dict) or not features:
            break
        features = features[0]
    return shape
