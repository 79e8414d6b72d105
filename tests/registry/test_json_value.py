"""Tests of JSON values: what Python, numpy and pandas hold is made plain, or refused by field."""

from __future__ import annotations

import copy
import datetime as dt
import enum
import time
from collections import UserDict
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickserve_registry.errors import MetadataRefused
from tickserve_registry.json_value import DEEPEST, LARGEST_INTEGER, plain

LIMIT = 1 << 20
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-LARGEST_INTEGER, LARGEST_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


class Side(enum.StrEnum):
    """A text that is an enumeration's."""

    LONG = "long"


class Lots(enum.IntEnum):
    """An integer that is an enumeration's."""

    ONE = 1


class Stubborn:
    """An object whose conversion fails."""

    def tolist(self) -> list[Any]:
        """Raise."""
        raise RuntimeError("on a device that is gone")


def nested(levels: int) -> Any:
    """Return a dict in a dict, that deep."""
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def repeated(levels: int) -> Any:
    """Return a few lists that hold each other: 4 ** levels nulls if they are written out."""
    value: Any = None
    for _ in range(levels):
        value = [value] * 4
    return value


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_json_comes_back_equal_and_fresh(document: dict[str, Any]) -> None:
    """A JSON object is returned as it is, in new containers; the given one is not changed."""
    before = copy.deepcopy(document)
    found = plain(document, source="x", largest=LIMIT)
    assert found == before == document
    assert found is not document
    assert list(found) == list(document)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.float64(0.25), 0.25),
        (np.int8(-3), -3),
        (np.bool_(True), True),
        (np.str_("text"), "text"),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (np.array(2.5), 2.5),
        ((1, [2]), [1, [2]]),
        (UserDict(a=1), {"a": 1}),
        ({np.str_("key"): 1}, {"key": 1}),
        (Side.LONG, "long"),
        (Lots.ONE, 1),
        (dt.date(2025, 3, 25), "2025-03-25"),
        (pd.Timestamp("2025-03-25T14:30:00Z"), "2025-03-25T14:30:00+00:00"),
        (np.datetime64("2025-03-25T14:30", "s"), "2025-03-25T14:30:00"),
        (np.datetime64("2025-03-25", "ns"), "2025-03-25T00:00:00.000000000"),
        (np.array(["2025-03-25", "2025-03-26"], "M8[D]"), ["2025-03-25", "2025-03-26"]),
        (pd.Series([1, 2]), [1, 2]),
    ],
    ids=repr,
)
def test_other_libraries_values_become_plain(value: Any, expected: Any) -> None:
    """Scalars, arrays, texts, enumerations and times become JSON's own types, nothing near them."""
    found = plain({"a": value}, source="x", largest=LIMIT)["a"]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "field", "words"),
    [
        (float("nan"), "a", "use null"),
        ({"b": [1.0, float("-inf")]}, "a.b[1]", "use null"),
        (np.float32("nan"), "a", "use null"),
        (np.float64("inf"), "a", "use null"),
        (np.array([[1.0], [np.nan]]), "a[1][0]", "use null"),
        (pd.Series([1, None]), "a[1]", "use null"),
        (pd.NA, "a", "no JSON value"),
        (pd.NaT, "a", "no time"),
        (np.datetime64("NaT"), "a", "no time"),
        (np.array(["2025-03-25", "NaT"], "M8[ns]"), "a[1]", "no time"),
        (np.timedelta64(1, "s"), "a", "no JSON value"),
        (nested(DEEPEST + 1), "a.a.a", "nested deeper"),
        (nested(100_000), "a.a.a", "nested deeper"),
        ([[{1: 2}]], "a[0][0]", "int as key"),
        ({None: 1}, "a", "NoneType as key"),
        ("\ud800", "a", "UTF-8"),
        ({"\ud800": 1}, "a.\\ud800", "UTF-8"),
        (2**63, "a", "64 bits"),
        (-(10**5_000), "a", "64 bits"),
        ("x" * LIMIT, "a", "over the limit"),
        (["x" * 1_000] * 2_000, "a[", "over the limit"),
        (repeated(40), "a[0][0]", "over the limit"),
        ({1, 2}, "a", "set"),
        (b"bytes", "a", "bytes"),
        (object(), "a", "object"),
        (np.ndarray, "a", "type"),
        (dt.date, "a", "type"),
        (np.array([object()]), "a[0]", "object"),
        (np.complex64(1), "a", "complex"),
        (Stubborn(), "a", "a device that is gone"),
    ],
    ids=lambda each: None if isinstance(each, str) else type(each).__name__,
)
def test_anything_else_is_refused_naming_its_field(value: Any, field: str, words: str) -> None:
    """No other exception, no guess at what was meant, and no long wait."""
    start = time.monotonic()
    with pytest.raises(MetadataRefused, match=words) as refused:
        plain({"before": 1, "a": value}, source="x", largest=LIMIT)
    assert refused.value.field.startswith(field)
    assert len(refused.value.field) <= 100
    assert time.monotonic() - start < 5


def test_what_contains_itself_is_refused() -> None:
    """A dict in itself, a list in itself, and one in the other's."""
    first: dict[str, Any] = {}
    second: list[Any] = [first]
    first["second"] = second
    second.append(second)
    for value in (first, second):
        with pytest.raises(MetadataRefused, match="nested deeper"):
            plain({"a": value}, source="x", largest=LIMIT)
