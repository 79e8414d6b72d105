"""Input drift: the reference, the index, and how often chance alone exceeds the threshold."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from tickserve_registry.drift import (
    InputCounts,
    make_reference,
    null_threshold,
    psi,
    reference_of,
)

NAMES = ["a", "b"]


def rows(count: int, *, seed: int = 1, shift: float = 0.0) -> np.ndarray:
    """Normal rows of two features."""
    return np.random.default_rng(seed).normal(shift, size=(count, 2)).astype(np.float32)


def test_the_oracle() -> None:
    """Ten bins, half a row added to each."""
    current = [5, 8, 9, 10, 12, 10, 11, 13, 12, 10]
    assert psi([100] * 10, current) == pytest.approx(0.0504587246, abs=1e-9)
    assert psi([10] * 10, [10] * 10) == 0.0


def test_a_reference_has_ten_equal_bins_and_open_ends() -> None:
    """Whatever comes is counted in one of them."""
    reference = make_reference(rows(1_000), NAMES)
    assert reference.features["a"].counts == (100,) * 10
    counts = InputCounts(reference)
    counts.add(np.array([[-1e9, 0], [1e9, 0], [np.inf, 0]], dtype=np.float32))
    assert counts.dump()[0] == [1, *[0] * 8, 2, 0]


def test_few_values_make_few_bins_and_gaps_a_bin_of_their_own() -> None:
    """An hour of three values has three bins; a gap that was never trained on is drift."""
    values = np.array([[1, 0], [2, 0], [3, 0]] * 50, dtype=np.float32)
    reference = make_reference(values, NAMES)
    assert reference.features["a"].counts == (50, 50, 50)
    assert reference.features["b"].counts == (150,)
    counts = InputCounts(reference)
    counts.add(values[:60])
    assert counts.figures()["a"]["drifted"] is False
    assert counts.figures()["b"]["psi"] == 0.0
    counts.add(np.full((60, 2), np.nan, dtype=np.float32))
    assert counts.figures()["a"]["drifted"] is True
    empty = InputCounts(reference).figures()["a"]
    assert empty == {"psi": None, "threshold": None, "n": 0, "drifted": None}


def test_windows_count_by_their_newest_row() -> None:
    """The rows before it have been asked about already."""
    windows = np.stack([rows(300), rows(300, shift=5.0)], axis=1)
    assert make_reference(windows, NAMES) == make_reference(rows(300, shift=5.0), NAMES)


def test_chance_exceeds_the_threshold_once_in_a_hundred_times() -> None:
    """Of 2,000 pairs of samples of one distribution; half a deviation is nearly always seen."""
    drifted = shifted = 0
    for seed in range(1_000):
        reference = make_reference(rows(800, seed=seed), NAMES)
        counts = InputCounts(reference)
        counts.add(rows(300, seed=10_000 + seed))
        drifted += sum(each["drifted"] for each in counts.figures().values())
        moved = InputCounts(reference)
        moved.add(rows(300, seed=20_000 + seed, shift=0.5))
        shifted += sum(each["drifted"] for each in moved.figures().values())
    assert 8 <= drifted <= 40
    assert shifted >= 1_990
    assert null_threshold(1, 100, 100) == 0.0


def test_counts_survive_a_restart_and_a_changed_reference_does_not() -> None:
    """What was counted in other bins is not carried on."""
    reference = make_reference(rows(500), NAMES)
    counts = InputCounts(reference)
    counts.add(rows(100, seed=2))
    state = json.loads(json.dumps(counts.dump()))
    assert InputCounts.load(state, reference).figures() == counts.figures()
    other = make_reference(np.zeros((5, 2), dtype=np.float32), NAMES)
    assert InputCounts.load(state, other).figures()["a"]["n"] == 0


def test_only_a_whole_reference_is_used() -> None:
    """One of other features, or damaged, is as none."""
    reference = msgspec.to_builtins(make_reference(rows(50), NAMES))
    assert reference_of({"features": NAMES, "reference": reference}) is not None
    assert reference_of({"features": ["b", "a"], "reference": reference}) is None
    assert reference_of({"features": NAMES, "reference": {"rows": "many"}}) is None
    assert reference_of({"features": NAMES}) is None
    reference["features"]["a"]["counts"] = [1]
    assert reference_of({"features": NAMES, "reference": reference}) is None
