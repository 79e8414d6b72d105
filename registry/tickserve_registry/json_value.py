"""Values that JSON can hold: Python's, numpy's and pandas' made plain, or refused by field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tickserve_registry.errors import MetadataRefused

DEEPEST = 64
LARGEST_INTEGER = 2**63 - 1
FEWEST_BYTES = 2
"""No value takes less: a digit and a comma."""

LONGEST_FIELD = 80


def plain(value: Mapping[str, Any], *, source: str, largest: int) -> dict[str, Any]:
    """Return a mapping as JSON has it, in fresh dicts and lists.

    Raises MetadataRefused naming the field: NaN, Infinity, no text, no time, other types, too
    deep nesting, and the field at which the whole takes more than `largest` bytes.
    """
    found: dict[str, Any] = _Walk(source, largest=largest).value(value, "", 0)
    return found


class _Walk:
    """One pass over a document, which ends where it grows too large.

    A few lists that hold each other stand for more values than any memory holds.
    """

    def __init__(self, source: str, *, largest: int) -> None:
        self._source = source
        self._largest = largest
        self._taken = 0

    def value(self, value: Any, path: str, depth: int) -> Any:
        """Return one value and all below it."""
        self._take(FEWEST_BYTES, path)
        if depth > DEEPEST:
            raise self._refusal(path, f"is nested deeper than {DEEPEST} levels")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, int | float):
            return self._number(value, path)
        if isinstance(value, Mapping):
            return self._object(value, path, depth)
        if isinstance(value, list | tuple):
            return [self.value(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)]
        return self.value(self._converted(value, path), path, depth + 1)

    def _object(self, value: Mapping[Any, Any], path: str, depth: int) -> dict[str, Any]:
        found = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise self._refusal(path, f"has a {type(key).__name__} as key, not a text")
            inner = f"{path}.{key}" if path else key
            found[self._text(key, inner)] = self.value(item, inner, depth + 1)
        return found

    def _text(self, value: str, path: str) -> str:
        """Return a text as `str` itself: numpy's is another."""
        self._take(len(value), path)
        text = str.__str__(value)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise self._refusal(path, f"is no text that UTF-8 can hold ({error.reason})") from error
        return text

    def _number(self, value: float, path: str) -> float:
        """Return a number as `int` or `float` itself: numpy's float64 is another."""
        if isinstance(value, int):
            if abs(value) > LARGEST_INTEGER:
                problem = "an integer of more than 64 bits, which readers of JSON lose"
                raise self._refusal(path, f"is {problem}; write it as text")
            return int(value)
        if not math.isfinite(value):
            raise self._refusal(path, f"is {float(value)}, which is no JSON number; use null")
        return float(value)

    def _converted(self, value: Any, path: str) -> Any:
        try:
            found = _converted(value)
        except Exception as error:
            raise self._refusal(path, f"cannot be read ({error})"[:200]) from error
        if found is NotImplemented:
            raise self._refusal(path, f"is a {type(value).__name__}, which is no JSON value")
        return found

    def _take(self, size: int, path: str) -> None:
        self._taken += size
        if self._taken > self._largest:
            problem = f"brings the whole over the limit, which is {self._largest} bytes"
            raise self._refusal(path, problem)

    def _refusal(self, path: str, problem: str) -> MetadataRefused:
        field = path[:LONGEST_FIELD].encode(errors="backslashreplace").decode()
        return MetadataRefused(source=self._source, field=field, problem=problem)


def _converted(value: Any) -> Any:
    """Return the plain value of a scalar, an array or a time; NotImplemented for anything else."""
    if isinstance(value, type):
        return NotImplemented
    if type(value).__module__ == "numpy" and value.dtype.kind == "M":
        return _numpy_times(value)
    if hasattr(value, "isoformat") and value != value:  # noqa: PLR0124 - pandas' NaT
        raise ValueError("is no time; use null")
    for method in ("tolist", "isoformat"):
        convert = getattr(value, method, None)
        if callable(convert):
            return convert()
    return NotImplemented


def _numpy_times(value: Any) -> Any:
    """Return ISO texts: numpy itself makes nanoseconds integers, and of NaT a null."""
    if value.ndim:
        return list(value)
    if value != value:  # noqa: PLR0124 - numpy's NaT
        raise ValueError("is no time; use null")
    return str(value)
