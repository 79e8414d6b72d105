"""Input contracts by name, order, shape and number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tickserve_server.serving.contract import InputContract
from tickserve_server.serving.refusal import Refusal

NAMES = ("rsi_14", "ema_20", "atr_14")


def contract(*, window: int = 0, nullable: tuple[str, ...] = ()) -> InputContract:
    """The contract of a small model."""
    return InputContract(
        NAMES, window=window, nullable=frozenset(nullable), max_rows=4, max_tensor_rows=1_000
    )


def written(rules: InputContract, features: dict[str, Any]) -> list[float]:
    """What write_row puts into a row buffer."""
    row = np.full((1, 3), 99, dtype=np.float32)
    rules.write_row(features, row.data.cast("B"))
    values: list[float] = row[0].tolist()
    return values


def test_names_decide_the_order() -> None:
    """A row by name lands in the metadata's order, however the bot orders it."""
    assert written(contract(), {"atr_14": 3.0, "rsi_14": 1.0, "ema_20": 2.0}) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("features", "code", "details"),
    [
        ({"rsi_14": 1.0, "ema_20": 2.0}, "missing_features", {"missing": ["atr_14"]}),
        (
            {"rsi_14": 1.0, "ema_20": 2.0, "atr14": 3.0},
            "missing_features",
            {"unexpected": ["atr14"]},
        ),
        ({**dict.fromkeys(NAMES, 1.0), "x": 1.0}, "unexpected_features", {"unexpected": ["x"]}),
        ({**dict.fromkeys(NAMES, 1.0), "ema_20": math.nan}, "not_finite", {"features": ["ema_20"]}),
        ({**dict.fromkeys(NAMES, 1.0), "ema_20": math.inf}, "not_finite", {"features": ["ema_20"]}),
        ({**dict.fromkeys(NAMES, 1.0), "ema_20": None}, "not_finite", {"features": ["ema_20"]}),
        ({**dict.fromkeys(NAMES, 1.0), "ema_20": 1e300}, "not_finite", {"features": ["ema_20"]}),
    ],
)
def test_a_wrong_row_is_refused_by_name(
    features: dict[str, Any], code: str, details: dict[str, Any]
) -> None:
    """The refusal names each feature, alone and in a batch alike."""
    for attempt in (lambda: written(contract(), features), lambda: contract().batch([features])):
        with pytest.raises(Refusal) as caught:
            attempt()
        assert caught.value.code == code
        assert details.items() <= caught.value.details.items()


def test_a_gap_is_nan_where_the_metadata_allows_it() -> None:
    """`null` becomes NaN for an allowed feature and only there; infinity never passes."""
    rules = contract(nullable=("ema_20",))
    assert math.isnan(written(rules, {"rsi_14": 1.0, "ema_20": None, "atr_14": 3.0})[1])
    assert math.isnan(rules.batch([1.0, None, 3.0])[0][0, 1])
    with pytest.raises(Refusal, match="rsi_14"):
        written(rules, {"rsi_14": None, "ema_20": None, "atr_14": 3.0})
    with pytest.raises(Refusal, match="ema_20"):
        written(rules, {"rsi_14": 1.0, "ema_20": math.inf, "atr_14": 3.0})


def test_lists_are_rows_or_lists_of_rows() -> None:
    """Depth tells one row from several; named and listed rows mix."""
    one, single = contract().batch([1.0, 2.0, 3.0])
    assert (one.shape, single) == ((1, 3), True)
    two, single = contract().batch([[1, 2, 3], {"atr_14": 6, "ema_20": 5, "rsi_14": 4}])
    assert (two.tolist(), single) == ([[1, 2, 3], [4, 5, 6]], False)


def test_windows_are_lists_of_rows() -> None:
    """A window model takes one window, or a list of windows."""
    rules = contract(window=2)
    one, single = rules.batch([[1, 2, 3], [4, 5, 6]])
    assert (one.shape, single) == ((1, 2, 3), True)
    several, single = rules.batch([[[1, 2, 3], [4, 5, 6]]] * 3)
    assert (several.shape, single) == ((3, 2, 3), False)
    with pytest.raises(Refusal) as caught:
        rules.batch([[1, 2, 3]] * 5)
    assert caught.value.details["expected"] == [2, 3]
    assert caught.value.details["given"] == [5, 3]


@pytest.mark.parametrize("features", [[1.0, 2.0], [], [[]], [[[1.0]]], [[1, 2, 3], [1, 2]]])
def test_a_wrong_shape_is_refused_with_both_shapes(features: list[Any]) -> None:
    """What was expected and what came stand in the details."""
    with pytest.raises(Refusal) as caught:
        contract().batch(features)
    assert caught.value.code == "wrong_shape"
    assert caught.value.details["expected"] == [3]


@pytest.mark.parametrize("features", [[1.0, 2.0, "3"], [True, 2.0, 3.0], [[1, 2, 3], 4]])
def test_what_is_no_number_is_malformed(features: list[Any]) -> None:
    """Text, booleans and ragged nesting never become numbers."""
    with pytest.raises(Refusal) as caught:
        contract().batch(features)
    assert caught.value.code == "malformed"


def test_rows_in_one_message_are_bounded() -> None:
    """Beyond the limit a bot is told to send a tensor frame."""
    with pytest.raises(Refusal) as caught:
        contract().batch([[1, 2, 3]] * 5)
    assert (caught.value.code, caught.value.details["limit"]) == ("too_large", 4)


def test_tensor_frames_have_exactly_their_size() -> None:
    """A frame is read as float32 rows, and refused when its size or shape is off."""
    rows = np.arange(6, dtype="<f4").reshape(2, 3)
    assert contract().tensor(rows.tobytes(), [2, 3]).tolist() == rows.tolist()
    for frame, shape in (
        (rows.tobytes()[:-1], [2, 3]),
        (rows.tobytes(), [3, 2]),
        (rows.tobytes(), [2, 3, 1]),
        (b"", [0, 3]),
        (rows.tobytes(), [-2, 3]),
    ):
        with pytest.raises(Refusal) as caught:
            contract().tensor(frame, shape)
        assert caught.value.code == "wrong_shape"
    rows[1, 2] = np.nan
    with pytest.raises(Refusal) as caught:
        contract().tensor(rows.tobytes(), [2, 3])
    assert caught.value.details["features"] == ["atr_14"]
