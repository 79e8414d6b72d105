"""Sums and moments of floats without rounding: whole multiples of the smallest float.

Every float is an integer times 2⁻¹⁰⁷⁴, and Python's integers have no bounds, so a sum depends
neither on the order nor on the number of its terms. Only its reading as a float rounds, once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

EXPONENT = 1074
UNIT = 1 << EXPONENT


def units(value: float) -> int:
    """Return a finite float as a multiple of 2⁻¹⁰⁷⁴."""
    numerator, denominator = value.as_integer_ratio()
    return numerator << (EXPONENT + 1 - denominator.bit_length())


def number(total: int) -> float:
    """Return the float that is nearest to a multiple of 2⁻¹⁰⁷⁴."""
    return total / UNIT


def dump(total: int) -> str:
    """Return an integer as text, without the zeros at the end of its binary digits."""
    zeros = max((total & -total).bit_length() - 1, 0)
    return f"{total >> zeros:x}*2^{zeros}"


def load(text: str) -> int:
    """Return the integer that dump() gave away."""
    digits, _, zeros = text.partition("*2^")
    return int(digits, 16) << int(zeros)


class Moments:
    """The first four moments of a series, from exact sums of its powers.

    A term costs the same however many there were, and k zeros cost one addition.
    """

    def __init__(self, n: int = 0, sums: Sequence[int] = (0, 0, 0, 0)) -> None:
        self.n = n
        self._sums = tuple(sums)

    def add(self, value: float) -> None:
        """Take in one term."""
        first = units(value)
        second = first * first
        powers = (first, second, second * first, second * second)
        self._sums = tuple(old + new for old, new in zip(self._sums, powers, strict=True))
        self.n += 1

    def add_zeros(self, count: int) -> None:
        """Take in `count` terms that are 0."""
        self.n += count

    def copy(self) -> Moments:
        """Return moments that go on by themselves from here."""
        return Moments(self.n, self._sums)

    @property
    def varies(self) -> bool:
        """Whether two terms differ, exactly."""
        return self._spread > 0

    @property
    def mean_over_deviation(self) -> float:
        """Mean over sample deviation (ddof 1); needs terms that differ."""
        square = self._sums[0] ** 2 * (self.n - 1) / (self._spread * self.n)
        return math.sqrt(square) if self._sums[0] >= 0 else -math.sqrt(square)

    @property
    def skew(self) -> float:
        """The population's third standardised moment; needs terms that differ."""
        n, (first, second, third, _) = self.n, self._sums
        central = n * n * third - 3 * n * first * second + 2 * first**3
        skew = math.sqrt(central**2 / self._spread**3)
        return skew if central >= 0 else -skew

    @property
    def kurtosis(self) -> float:
        """The population's fourth standardised moment, 3 for a normal; needs terms that differ."""
        n, (first, second, third, fourth) = self.n, self._sums
        central = (
            n**3 * fourth - 4 * n * n * first * third + 6 * n * first**2 * second - 3 * first**4
        )
        return central / self._spread**2

    @property
    def _spread(self) -> int:
        """n² times the population's variance, in squared units."""
        return self.n * self._sums[1] - self._sums[0] ** 2

    def dump(self) -> list[int | str]:
        """Return the state, for JSON."""
        return [self.n, *(dump(each) for each in self._sums)]

    @classmethod
    def load(cls, state: Sequence[int | str]) -> Moments:
        """Return the moments that dump() gave away."""
        n, *sums = state
        return cls(int(n), [load(str(each)) for each in sums])
