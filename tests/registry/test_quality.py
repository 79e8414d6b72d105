"""Model quality against published figures and its own definitions."""

from __future__ import annotations

import json
import random

import pytest

from tickserve_registry.quality import MOST_OUTPUTS, Quality

LABELS = [1, 0, 1, 1, 0, 0, 1, 0, 1, 0]
OUTPUTS = [0.9, 0.2, 0.7, 0.6, 0.4, 0.55, 0.8, 0.1, 0.45, 0.3]


def filled(labels: list[int], outputs: list[float], *, bins: int = 10) -> Quality:
    """Quality of some labels."""
    quality = Quality(bins=bins)
    for label, output in zip(labels, outputs, strict=True):
        quality.add(label, output)
    return quality


def test_the_oracle() -> None:
    """Brier, log loss, AUC, hit rate and calibration error with five bins."""
    found = filled(LABELS, OUTPUTS, bins=5).figures()
    assert found["brier"] == pytest.approx(0.1205, abs=1e-12)
    assert found["log_loss"] == pytest.approx(0.3989024662, abs=1e-9)
    assert found["auc"] == pytest.approx(0.96, abs=1e-12)
    assert found["hit_rate"] == pytest.approx(0.8, abs=1e-12)
    assert found["calibration_error"] == pytest.approx(0.2, abs=1e-12)
    assert [each["n"] for each in found["calibration_bins"]] == [1, 2, 3, 2, 2]


def test_order_and_restarts_change_nothing() -> None:
    """Stored and loaded in the middle, shuffled: the very same figures."""
    chance = random.Random(3)  # noqa: S311 - an order, no secrets
    outputs = [chance.random() for _ in range(500)]
    labels = [int(chance.random() < output) for output in outputs]
    whole = filled(labels, outputs).figures()
    order = chance.sample(range(500), 500)
    quality = filled([labels[n] for n in order[:250]], [outputs[n] for n in order[:250]])
    quality = Quality.load(json.loads(json.dumps(quality.dump())))
    for place in order[250:]:
        quality.add(labels[place], outputs[place])
    assert quality.figures() == whole


def test_what_is_undefined_is_none() -> None:
    """No labels, one class, ties, labels and outputs that are no probabilities."""
    empty = Quality().figures()
    assert (empty["n"], empty["brier"], empty["auc"], empty["calibration_error"]) == (
        0,
        *[None] * 3,
    )
    assert filled([1, 1], [0.2, 0.9]).figures()["auc"] is None
    assert filled([1, 0], [0.5, 0.5]).figures()["auc"] == 0.5
    quality = filled([1], [1.0])
    quality.add(0.5, 0.5)
    quality.add(1, 1.5)
    quality.add(1, None)
    found = quality.figures()
    assert (found["n"], found["n_label_not_binary"], found["n_output_not_probability"]) == (1, 1, 2)
    assert 0 < filled([1], [0.0]).figures()["log_loss"] < 35


def test_many_outputs_are_ranked_on_a_grid() -> None:
    """Memory is bounded, the step is told, and the AUC hardly moves."""
    chance = random.Random(4)  # noqa: S311 - outputs, no secrets
    outputs = [chance.random() for _ in range(2 * MOST_OUTPUTS)]
    labels = [int(chance.random() < output) for output in outputs]
    found = filled(labels, outputs).figures()
    pairs = sorted(zip(outputs, labels, strict=True))
    below = won = 0
    for _, label in pairs:
        won += label * below
        below += 1 - label
    assert found["auc_resolution"] == pytest.approx(1 / 4096)
    assert found["auc"] == pytest.approx(won / (below * (len(labels) - below)), abs=2e-4)
