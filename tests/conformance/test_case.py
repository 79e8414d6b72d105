"""What the bots are compared with: the Python client's answers are the native model's."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.conformance.conftest import Case


def test_the_python_client_gets_what_the_native_model_says(case: Case, booster: Any) -> None:
    """The answers that every other language must match are right ones."""
    native = booster.predict_proba(np.array(case.rows, dtype="<f4"))[:, 1]
    assert np.abs(native - case.outputs).max() < 1e-6
    assert len(set(case.outputs)) == len(case.rows)
