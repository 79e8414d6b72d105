"""A latency histogram in constant memory: eight buckets to each doubling, from 1 µs up."""

from __future__ import annotations

SUB_BITS = 3
SUB_BUCKETS = 1 << SUB_BITS
NANOSECONDS_SHIFT = 10
"""Values are kept in units of 1,024 ns, so that an index takes shifts instead of divisions."""

DOUBLINGS = 32


class LatencyHistogram:
    """Counts durations; a percentile is exact to one bucket (12.5 %)."""

    def __init__(self) -> None:
        self.counts = [0] * (SUB_BUCKETS * DOUBLINGS)
        self.count = 0
        self.max_ns = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration in nanoseconds."""
        self.counts[_index(duration_ns >> NANOSECONDS_SHIFT)] += 1
        self.count += 1
        self.max_ns = max(self.max_ns, duration_ns)

    def percentile_us(self, fraction: float) -> float | None:
        """Return the upper bound of the bucket that holds the fraction, in µs."""
        if not self.count:
            return None
        rank = fraction * self.count
        seen = 0
        for index, count in enumerate(self.counts):
            seen += count
            if count and seen >= rank:
                bound_ns = _upper_bound(index) << NANOSECONDS_SHIFT
                return min(bound_ns, self.max_ns) / 1000
        return self.max_ns / 1000

    def summary(self) -> dict[str, float | int | None]:
        """Return count, p50, p99, p99.9 and max; times in µs."""
        return {
            "count": self.count,
            "p50_us": self.percentile_us(0.5),
            "p99_us": self.percentile_us(0.99),
            "p999_us": self.percentile_us(0.999),
            "max_us": self.max_ns / 1000 if self.count else None,
        }


def _index(units: int) -> int:
    shift = max(0, units.bit_length() - SUB_BITS - 1)
    return min((shift << SUB_BITS) + (units >> shift), SUB_BUCKETS * DOUBLINGS - 1)


def _upper_bound(index: int) -> int:
    shift = max(0, (index >> SUB_BITS) - 1)
    return ((index - (shift << SUB_BITS)) + 1) << shift
