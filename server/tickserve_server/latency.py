"""A latency histogram in constant memory: eight buckets to each doubling, from 1 µs up."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, Self

SUB_BITS = 3
SUB_BUCKETS = 1 << SUB_BITS
NANOSECONDS_SHIFT = 10
"""Values are kept in units of 1,024 ns, so that an index takes shifts instead of divisions."""

DOUBLINGS = 32
EMPTY = bytes(8 * SUB_BUCKETS * DOUBLINGS)


class LatencyHistogram:
    """Counts durations; a percentile is exact to one bucket (12.5 %)."""

    def __init__(self, counts: bytes = EMPTY, max_ns: int = 0) -> None:
        self._counts = array("Q", counts)
        self._max_ns = max_ns

    @classmethod
    def load(cls, state: dict[str, Any]) -> Self:
        """Return the histogram that dump() gave away."""
        return cls(state["counts"], state["max_ns"])

    def dump(self) -> dict[str, Any]:
        """Return the state as bytes, at no more cost than to copy them."""
        return {"counts": self._counts.tobytes(), "max_ns": self._max_ns}

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self._counts)

    def add(self, duration_ns: int) -> None:
        """Count one duration in nanoseconds."""
        self._counts[_index(duration_ns >> NANOSECONDS_SHIFT)] += 1
        self._max_ns = max(self._max_ns, duration_ns)

    def sparse(self) -> dict[str, Any]:
        """Return the state for JSON: the counts of the buckets that have any."""
        counts = {str(index): count for index, count in enumerate(self._counts) if count}
        return {"counts": counts, "max_ns": self._max_ns}

    @classmethod
    def from_sparse(cls, state: dict[str, Any]) -> Self:
        """Return the histogram that sparse() gave away."""
        histogram = cls(max_ns=state["max_ns"])
        for index, count in state["counts"].items():
            histogram._counts[int(index)] = count
        return histogram

    def plus(self, other: LatencyHistogram) -> LatencyHistogram:
        """Return what both have counted."""
        both = array("Q", (a + b for a, b in zip(self._counts, other._counts, strict=True)))
        return LatencyHistogram(both.tobytes(), max(self._max_ns, other._max_ns))

    def below(self, bounds_us: Sequence[float]) -> list[tuple[float, int]]:
        """Return how many durations lie below each bound, moved up to a bucket's own bound, in µs.

        Several bounds in one bucket are one.
        """
        found: dict[float, int] = {}
        for bound in bounds_us:
            last = next(index for index in range(len(self._counts)) if _bound_us(index) >= bound)
            found[_bound_us(last)] = sum(self._counts[: last + 1])
        return sorted(found.items())

    def since(self, earlier: LatencyHistogram | None) -> LatencyHistogram:
        """Return what has been counted since an earlier state of the same histogram.

        Its maximum is exact to one bucket. A histogram that has begun anew is returned whole.
        """
        if earlier is None:
            return self
        before = array("Q", earlier.dump()["counts"])
        if any(now < then for now, then in zip(self._counts, before, strict=True)):
            return self
        recent = array("Q", [now - then for now, then in zip(self._counts, before, strict=True)])
        highest = max((index for index, count in enumerate(recent) if count), default=-1)
        bound_ns = _upper_bound(highest) << NANOSECONDS_SHIFT
        return type(self)(recent.tobytes(), min(self._max_ns, bound_ns) if highest >= 0 else 0)

    def percentile_us(self, fraction: float) -> float | None:
        """Return the upper bound of the bucket that holds the fraction, in µs."""
        total = self.count
        if not total:
            return None
        rank = fraction * total
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if count and seen >= rank:
                bound_ns = _upper_bound(index) << NANOSECONDS_SHIFT
                return min(bound_ns, self._max_ns) / 1000
        return self._max_ns / 1000

    def summary(self) -> dict[str, float | int | None]:
        """Return count, p50, p99, p99.9 and max; times in µs."""
        return {
            "count": self.count,
            "p50_us": self.percentile_us(0.5),
            "p99_us": self.percentile_us(0.99),
            "p999_us": self.percentile_us(0.999),
            "max_us": self._max_ns / 1000 if any(self._counts) else None,
        }


def _index(units: int) -> int:
    shift = max(0, units.bit_length() - SUB_BITS - 1)
    return min((shift << SUB_BITS) + (units >> shift), SUB_BUCKETS * DOUBLINGS - 1)


def _bound_us(index: int) -> float:
    return (_upper_bound(index) << NANOSECONDS_SHIFT) / 1000


def _upper_bound(index: int) -> int:
    shift = max(0, (index >> SUB_BITS) - 1)
    return ((index - (shift << SUB_BITS)) + 1) << shift
