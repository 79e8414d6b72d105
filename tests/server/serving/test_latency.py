"""The histogram's promise: percentiles exact to one bucket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tickserve_server.serving.latency import LatencyHistogram


@given(st.lists(st.integers(0, 10**11), min_size=1, max_size=300))
def test_percentiles_are_within_one_bucket(durations: list[int]) -> None:
    """A percentile is at least the exact one and at most 12.5 % (or 1 µs) above it."""
    histogram = LatencyHistogram()
    for duration in durations:
        histogram.add(duration)
    ordered = sorted(durations)
    for fraction in (0.5, 0.99):
        exact = ordered[max(0, -int(-fraction * len(ordered) // 1) - 1)] / 1000
        found = histogram.percentile_us(fraction)
        assert found is not None
        assert exact <= found <= exact * 1.126 + 1.1
    assert histogram.summary()["max_us"] == max(durations) / 1000


def test_an_empty_histogram_has_no_percentiles() -> None:
    """No figure is invented before the first request."""
    assert LatencyHistogram().summary()["p50_us"] is None
