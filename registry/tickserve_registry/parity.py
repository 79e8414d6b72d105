"""Proof that a compiled model answers as the native one does: probes, error, golden rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tickserve_registry.errors import MetadataRefused
from tickserve_registry.formats.native import Array, NativeModel, Splits
from tickserve_registry.metadata import Golden, Parity

TOLERANCE = 1e-5
"""Bound of |found − native| / max(1, |native|)."""

GOLDEN_ROWS = 8
RANDOM_ROWS = 512
MOST_THRESHOLDS = 4_000
EXTREMES = (0.0, 1.0, -1.0, 1e6, -1e6)
FAR = (1e30, -1e30)
"""Trees must sort any number; smooth models overflow there, each precision in its own way."""

SEED = 20_250_325


def probe_rows(
    native: NativeModel, *, shape: tuple[int, ...], sample: Any, allow_nan: bool
) -> Array:
    """Return inputs [rows, *shape] that try the model where a conversion may err.

    Rows like those of training where a sample is given, every split threshold and its float32
    neighbours one ulp away (sampled above `MOST_THRESHOLDS`), extremes, and gaps where allowed.
    """
    random = np.random.default_rng(SEED)
    base = _base_rows(random, shape=shape, sample=sample)
    extremes = EXTREMES + FAR if len(native.splits.columns) else EXTREMES
    parts = [base, *(np.full((1, *shape), value, dtype=np.float32) for value in extremes)]
    if len(native.splits.columns):
        parts.append(_threshold_rows(native.splits, random, base=base))
    rows = np.concatenate(parts).astype(np.float32)
    if allow_nan:
        gaps = rows[: len(base)].copy()
        gaps[random.random(gaps.shape) < 0.2] = np.nan  # noqa: PLR2004 - a fifth of the values
        rows = np.concatenate([rows, gaps])
    return rows


def measure(native: npt.NDArray[Any], compiled: npt.NDArray[Any]) -> Parity:
    """Compare outputs [rows, outputs]; an error that is no number counts as unequal."""
    if native.shape != compiled.shape:
        return Parity(probes=len(native), max_abs_error=None)
    scale = np.maximum(1.0, np.abs(native))
    error = np.abs(compiled.astype(np.float64) - native) / scale
    equal = (native == compiled) | (np.isnan(native) & np.isnan(compiled))
    worst = float(np.where(equal, 0.0, error).max(initial=0.0))
    return Parity(probes=len(native), max_abs_error=worst if np.isfinite(worst) else None)


def holds(parity: Parity) -> bool:
    """Whether the compiled model may answer."""
    return parity.max_abs_error is not None and parity.max_abs_error <= TOLERANCE


def golden_rows(native: NativeModel, rows: Array) -> Golden:
    """Return the first finite probe rows with the native model's own, finite outputs."""
    chosen = rows[np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))][: 2 * GOLDEN_ROWS]
    outputs = native.predict(chosen)
    finite = np.isfinite(outputs).all(axis=1)
    chosen, outputs = chosen[finite][:GOLDEN_ROWS], outputs[finite][:GOLDEN_ROWS]
    return Golden(
        inputs=tuple(chosen.tolist()), outputs=tuple(outputs.tolist()), tolerance=TOLERANCE
    )


def _base_rows(random: np.random.Generator, *, shape: tuple[int, ...], sample: Any) -> Array:
    if sample is None:
        return random.normal(size=(RANDOM_ROWS, *shape)).astype(np.float32)
    return np.asarray(sample[random.permutation(len(sample))[:RANDOM_ROWS]])


def usable_sample(
    sample: Any, *, features: tuple[str, ...], shape: tuple[int, ...], allow_nan: bool
) -> Array | None:
    """Return the rows of a training sample that can be probes, [rows, *shape] as float32.

    A data frame's columns are taken by name, anything else by place. Rows with gaps are left
    out where the model takes none. Raises MetadataRefused for what are no such rows.
    """
    if sample is None:
        return None
    if hasattr(sample, "columns"):
        missing = [name for name in features if name not in sample.columns]
        if missing:
            problem = f"has no column {', '.join(missing[:5])}"
            raise MetadataRefused(source="the new model", field="training_sample", problem=problem)
        sample = sample[list(features)]
    try:
        given = np.asarray(sample, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        problem = f"holds no numbers ({error})"
        raise MetadataRefused(
            source="the new model", field="training_sample", problem=problem
        ) from error
    if given.shape[1:] != shape:
        wanted = ", ".join(map(str, shape))
        problem = f"has the shape {list(given.shape)}, the model takes [rows, {wanted}]"
        raise MetadataRefused(source="the new model", field="training_sample", problem=problem)
    axes = tuple(range(1, given.ndim))
    usable = ~np.isinf(given).any(axis=axes) if allow_nan else np.isfinite(given).all(axis=axes)
    if not usable.any():
        problem = "has no row without gaps" if len(given) else "has no rows"
        raise MetadataRefused(source="the new model", field="training_sample", problem=problem)
    return given[usable]


def _threshold_rows(splits: Splits, random: np.random.Generator, *, base: Array) -> Array:
    chosen = random.permutation(len(splits.columns))[:MOST_THRESHOLDS]
    columns, thresholds = splits.columns[chosen], splits.thresholds[chosen]
    rows = []
    for values in (
        thresholds,
        np.nextafter(thresholds, np.float32(-np.inf)),
        np.nextafter(thresholds, np.float32(np.inf)),
    ):
        block = base[random.integers(len(base), size=len(values))].copy()
        block[np.arange(len(values)), columns] = values
        rows.append(block)
    return np.concatenate(rows)
