"""The histogram's promise: percentiles exact to one bucket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tickserve_server.latency import LatencyHistogram


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


@given(st.lists(st.integers(0, 10**9), min_size=1), st.lists(st.integers(0, 10**9), min_size=1))
def test_what_came_since_is_a_histogram_of_its_own(old: list[int], new: list[int]) -> None:
    """The difference of two states counts the later durations alone."""
    histogram, alone = LatencyHistogram(), LatencyHistogram()
    for duration in old:
        histogram.add(duration)
    earlier = LatencyHistogram.load(histogram.dump())
    for duration in new:
        histogram.add(duration)
        alone.add(duration)
    recent = histogram.since(earlier)
    assert recent.count == len(new)
    assert recent.dump()["counts"] == alone.dump()["counts"]
    longest = recent.summary()["max_us"]
    assert longest is not None
    assert max(new) / 1000 <= longest <= max(*old, *new) / 1000


def test_a_histogram_begun_anew_is_taken_whole() -> None:
    """A reloaded model counts from nothing; its line shows all it has counted."""
    old, new = LatencyHistogram(), LatencyHistogram()
    for _ in range(5):
        old.add(20_000)
    new.add(20_000)
    assert new.since(old).count == 1
    assert new.since(None).count == 1
