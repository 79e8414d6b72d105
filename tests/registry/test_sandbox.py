"""Tests of the sandbox: what one trial has proven, and what it has not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tickserve_registry.errors import FormatRefused
from tickserve_registry.metadata import Golden
from tickserve_registry.sandbox import Request, Sandbox

HERE = Path("a.model")


def request(classifier: Any, inputs: Any, *, error: float = 0.0) -> Request:
    """Return a request with golden rows that are off by an error."""
    rows = inputs[:3]
    answers = classifier.predict_proba(rows)[:, 1:] + error
    golden = Golden(inputs=tuple(rows.tolist()), outputs=tuple(answers.tolist()))
    return Request(framework="xgboost", native_class="XGBClassifier", golden=golden)


def test_a_trial_proves_bytes_for_what_they_were_said_to_be(classifier: Any, inputs: Any) -> None:
    """The same bytes under other golden rows, or of another class, are tried again."""
    sandbox = Sandbox()
    data = bytes(classifier.get_booster().save_raw("ubj"))
    right = request(classifier, inputs)
    sandbox.prove(data, right, path=HERE)
    wrong = request(classifier, inputs, error=0.5)
    with pytest.raises(FormatRefused, match="golden rows"):
        sandbox.prove(data, wrong, path=HERE)
    unknown = Request(framework="unheard of", native_class="X", golden=right.golden)
    with pytest.raises(FormatRefused):
        sandbox.prove(data, unknown, path=HERE)


def test_own_bytes_are_not_tried(classifier: Any, inputs: Any) -> None:
    """What this process has made is known; one byte less is not."""
    sandbox = Sandbox()
    data = bytes(classifier.get_booster().save_raw("ubj"))
    sandbox.trust(data)
    sandbox.prove(data, request(classifier, inputs, error=np.inf), path=HERE)
    with pytest.raises(FormatRefused):
        sandbox.prove(data[:-1], request(classifier, inputs), path=HERE)
