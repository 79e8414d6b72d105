"""Input drift: what a model is asked about, compared with what it was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

BINS = 10
SMOOTHING = 0.5
CONFIDENCE = 0.99


class FeatureReference(msgspec.Struct, frozen=True, kw_only=True):
    """A feature at training: the edges between its quantile bins, and how many fell in each."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    missing: int = 0

    @property
    def rows(self) -> int:
        """How many rows there were."""
        return sum(self.counts) + self.missing


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """All features of a model at training; the bins at both ends are open."""

    rows: int
    features: dict[str, FeatureReference]


def make_reference(sample: NDArray[np.float32], features: Sequence[str]) -> Reference:
    """Return the reference of inputs [rows, features], or of the last row of each window.

    A feature with few values gets fewer than ten bins.
    """
    rows = latest(sample)
    described = {name: _feature(rows[:, place]) for place, name in enumerate(features)}
    return Reference(rows=len(rows), features=described)


def latest(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return inputs by row; of windows the last row, since those before it were asked before."""
    return inputs[:, -1, :] if inputs.ndim > 2 else inputs  # noqa: PLR2004 - rows and features


class InputCounts:
    """Counts the inputs of one build in the bins of its reference."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        features = reference.features.values()
        self._edges = [np.asarray(each.edges, dtype=np.float64) for each in features]
        self._counts = [np.zeros(len(each.counts) + 1, dtype=np.int64) for each in features]

    @property
    def width(self) -> int:
        """How many features there are."""
        return len(self._edges)

    def add(self, rows: NDArray[np.float32]) -> None:
        """Count rows [rows, features] in the order of the reference."""
        for place, (edges, counts) in enumerate(zip(self._edges, self._counts, strict=True)):
            values = rows[:, place]
            missing = np.isnan(values)
            bins = np.searchsorted(edges, values[~missing], side="right")
            self._counts[place] = counts + np.bincount(bins, minlength=len(counts))
            self._counts[place][-1] += int(missing.sum())

    def figures(self) -> dict[str, Any]:
        """Return the drift of each feature: `psi`, its null `threshold`, `n` and `drifted`.

        Between two samples of the same distribution the PSI exceeds the threshold once in a
        hundred times, if rows are independent; see null_threshold.
        """
        return {
            name: self._feature(reference, counts)
            for (name, reference), counts in zip(
                self._reference.features.items(), self._counts, strict=True
            )
        }

    def dump(self) -> list[list[int]]:
        """Return the state, for JSON."""
        return [counts.tolist() for counts in self._counts]

    @classmethod
    def load(cls, state: Sequence[Sequence[int]], reference: Reference) -> Self:
        """Return what dump() gave away; begins anew where the reference is another."""
        counts = cls(reference)
        if [len(each) for each in state] == [len(each) for each in counts._counts]:
            counts._counts = [np.asarray(each, dtype=np.int64) for each in state]
        return counts

    def _feature(self, reference: FeatureReference, counts: NDArray[np.int64]) -> dict[str, Any]:
        before, now = [*reference.counts, reference.missing], [int(each) for each in counts]
        if not before[-1] and not now[-1]:
            before, now = before[:-1], now[:-1]
        n = sum(now)
        if not n:
            return {"psi": None, "threshold": None, "n": 0, "drifted": None}
        found, threshold = psi(before, now), null_threshold(len(now), sum(before), n)
        return {"psi": found, "threshold": threshold, "n": n, "drifted": found > threshold}


def psi(reference: Sequence[int], current: Sequence[int]) -> float:
    """Return the population stability index of two counts over the same bins.

    Σ (q − p)·ln(q / p) of the bins' shares p and q, half a row added to each bin.
    """
    before = sum(reference) + SMOOTHING * len(reference)
    now = sum(current) + SMOOTHING * len(current)
    shares = (
        ((old + SMOOTHING) / before, (new + SMOOTHING) / now)
        for old, new in zip(reference, current, strict=True)
    )
    return math.fsum((q - p) * math.log(q / p) for p, q in shares)


def null_threshold(
    bins: int, reference: int, current: int, confidence: float = CONFIDENCE
) -> float:
    """Return what the PSI of two samples of one distribution stays below, at that confidence.

    The PSI is then about (1/N + 1/n) times chi-squared with bins − 1 degrees of freedom
    (Yurdakul and Naranjo, 2020); the quantile is that of Wilson and Hilferty (1931). Rows that
    resemble their neighbours, as bars do, drift more by chance than this tells.
    """
    freedom = bins - 1
    if freedom < 1:
        return 0.0
    spread = 2 / (9 * freedom)
    normal = NormalDist().inv_cdf(confidence)
    quantile = freedom * (1 - spread + normal * math.sqrt(spread)) ** 3
    return (1 / reference + 1 / current) * quantile


def reference_of(document: Mapping[str, Any]) -> Reference | None:
    """Return the reference in a metadata document, None where there is no usable one."""
    try:
        found = msgspec.convert(document.get("reference"), Reference)
    except msgspec.ValidationError:
        return None
    fits = all(len(each.counts) == len(each.edges) + 1 for each in found.features.values())
    return found if fits and list(found.features) == list(document.get("features", ())) else None


def _feature(values: NDArray[np.float32]) -> FeatureReference:
    present = values[~np.isnan(values)].astype(np.float64)
    if not len(present):
        return FeatureReference(edges=(), counts=(0,), missing=len(values))
    quantiles = np.quantile(present, np.arange(1, BINS) / BINS)
    edges = np.unique(quantiles[quantiles > present.min()])
    counts = np.bincount(np.searchsorted(edges, present, side="right"), minlength=len(edges) + 1)
    return FeatureReference(
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        missing=len(values) - len(present),
    )
