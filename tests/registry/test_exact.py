"""Exact sums and moments against fractions."""

from __future__ import annotations

import json
import math
import statistics
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickserve_registry.exact import Moments, dump, load, number, units

finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
returns = st.lists(
    st.floats(-0.5, 0.5, allow_nan=False).map(lambda each: round(each, 12)), min_size=2, max_size=40
)


@given(st.lists(finite.filter(lambda each: abs(each) < 1e300), max_size=30))
def test_a_sum_is_rounded_once(values: list[float]) -> None:
    """Whatever their order and size; its text gives it back."""
    total = sum(units(value) for value in values)
    assert number(total) == float(sum((Fraction(value) for value in values), Fraction()))
    assert load(dump(total)) == total


@given(returns, st.integers(0, 9))
def test_moments_are_those_of_the_definition(values: list[float], zeros: int) -> None:
    """Zeros only counted, stored and loaded in between: as if all had been there at once."""
    moments = Moments()
    for value in values:
        moments.add(value)
    moments = Moments.load(json.loads(json.dumps(moments.dump())))
    moments.add_zeros(zeros)
    exact = [Fraction(value) for value in values] + [Fraction()] * zeros
    assert moments.varies == (len(set(exact)) > 1)
    if not moments.varies:
        return
    mean = sum(exact, Fraction()) / len(exact)
    second, third, fourth = (
        sum(((each - mean) ** power for each in exact), Fraction()) / len(exact)
        for power in (2, 3, 4)
    )
    deviation = statistics.stdev(exact)
    assert moments.mean_over_deviation == pytest.approx(float(mean) / deviation, rel=1e-12)
    skew = math.copysign(math.sqrt(float(third**2 / second**3)), third)
    assert moments.skew == pytest.approx(skew, rel=1e-12, abs=1e-15)
    assert moments.kurtosis == pytest.approx(float(fourth / second**2), rel=1e-12)


def test_a_series_that_hardly_varies_keeps_its_digits() -> None:
    """One in 2⁵² above the rest: floats would see no deviation, or a wrong one."""
    moments = Moments()
    for value in (0.01, 0.01, math.nextafter(0.01, 1)):
        moments.add(value)
    assert moments.varies
    assert moments.mean_over_deviation == pytest.approx(0.01 / 1.0014e-18, rel=1e-3)
    assert moments.kurtosis == pytest.approx(1.5)
