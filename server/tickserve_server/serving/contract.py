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
FLOAT32_MAX = float(np.finfo(np.float32).max)


class InputContract:
    """Checks what a bot sent against what the model was trained on, by name and by shape.

    `window` is 0 for row models, else the number of rows in one window. `nullable` names the
    features that may be missing (`null`), which become NaN.
    """

    def __init__(
        self, features: Sequence[str], *, window: int, nullable: frozenset[str], max_rows: int
    ) -> None:
        self.features = tuple(features)
        self.width = len(self.features)
        self.window = window
        self.nullable = nullable
        self.max_rows = max_rows
        self.row_shape = (window, self.width) if window else (self.width,)
        self._known = frozenset(self.features)
        self._pick = _picker(self.features)
        self._pack = struct.Struct(f"<{self.width}f").pack_into
        self._nullable_columns = np.array([name in nullable for name in self.features])

    def write_row(self, features: dict[str, float | None], target: memoryview) -> None:
        """Write one row by name into `target` (width × 4 bytes, float32 little-endian).

        Raises Refusal: missing_features, unexpected_features or not_finite.
        """
        if len(features) != self.width:
            raise self._names_refusal(features)
        try:
            values = self._pick(features)
            self._pack(target, 0, *values)
            if math.isfinite(sum(values)):
                return
        except KeyError:
            raise self._names_refusal(features) from None
        except (struct.error, OverflowError, TypeError):
            pass
        self._pack(target, 0, *self._checked(values))

    def batch(self, features: dict[str, Any] | list[Any]) -> tuple[Array, bool]:
        """Return inputs [rows, …row_shape] and whether exactly one row was meant.

        Raises Refusal for any shape, name or number that the model was not trained on.
        """
        depth = _depth(features)
        if depth == len(self.row_shape):
            return self._window_or_row(features)[None, ...], True
        if depth != len(self.row_shape) + 1:
            raise self._shape_refusal(_shape(features))
        if len(features) > self.max_rows:
            raise Refusal(
                "too_large",
                f"{len(features)} rows in one message; send at most {self.max_rows}, "
                "or a tensor frame",
                rows=len(features),
                limit=self.max_rows,
            )
        if not features:
            raise self._shape_refusal([0])
        return np.stack([self._window_or_row(item) for item in features]), False

    def tensor(self, frame: bytes, shape: Sequence[int]) -> Array:
        """Read a raw little-endian float32 C-order tensor frame of the declared shape."""
        if len(shape) != len(self.row_shape) + 1 or tuple(shape[1:]) != self.row_shape:
            raise self._shape_refusal(list(shape))
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

    def _window_or_row(self, item: Any) -> Array:
        rows = item if self.window else [item]
        if self.window and len(rows) != self.window:
            raise self._shape_refusal(_shape(item))
        filled = [self._row(row) for row in rows]
        array = np.array(filled, dtype=np.float32)
        return array if self.window else array[0]

    def _row(self, row: Any) -> list[float]:
        if isinstance(row, dict):
            named = _numbers(row, dict[str, float | None])
            if named.keys() != self._known:
                raise self._names_refusal(named)
            return self._checked(self._pick(named))
        listed: list[float | None] = _numbers(row, list[float | None])
        if len(listed) != self.width:
            raise self._shape_refusal(_shape(row))
        return self._checked(listed)

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

    def _names_refusal(self, given: dict[str, Any]) -> Refusal:
        missing = [name for name in self.features if name not in given]
        unexpected = sorted(given.keys() - self._known)
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
