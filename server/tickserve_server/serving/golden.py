"""Golden rows: the inputs and outputs recorded when a model was saved, compared with now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


def golden_error(
    run: Callable[[Array], Array], inputs: Any, outputs: Any, *, row_shape: tuple[int, ...]
) -> float:
    """Return the largest |found − recorded| / max(1, |recorded|) over the golden rows.

    0 where there are none; NaN where an output is none of the recorded shape or no number.
    """
    rows: Array = np.array(inputs, dtype=np.float32).reshape(-1, *row_shape)
    if not len(rows):
        return 0.0
    wanted = np.array(outputs, dtype=np.float64).reshape(len(rows), -1)
    found = run(rows)
    if found.shape != wanted.shape:
        return float("nan")
    return float((np.abs(found - wanted) / np.maximum(1.0, np.abs(wanted))).max())
