"""Model quality: how well predicted probabilities agree with the labels that came later."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import Any, Self

from tickserve_registry.exact import dump, load, number, units

CLIP = 1e-15
DECISION = 0.5
BINS = 10
MOST_OUTPUTS = 4096
"""Distinct outputs told apart for the AUC; beyond that they are counted on a grid."""

GRID = 4096


class Quality:
    """Counts labels y ∈ {0, 1} with outputs p ∈ [0, 1], at the same cost for each.

    Labels or outputs beyond these ranges are counted apart: the figures do not speak of them.
    """

    def __init__(self, bins: int = BINS) -> None:
        self.n = self.not_binary = self.not_probability = 0
        self._hits = 0
        self._squares = self._losses = 0
        self._in_bin = array("Q", bytes(8 * bins))
        self._positive_in_bin = array("Q", bytes(8 * bins))
        self._outputs_in_bin = [0] * bins
        self._by_output: dict[float, tuple[int, int]] = {}
        self._on_grid = False

    def add(self, label: float, output: float | None) -> None:
        """Take in a label and the output of its prediction, None where it had several."""
        if label not in {0.0, 1.0}:
            self.not_binary += 1
        elif output is None or not 0.0 <= output <= 1.0:
            self.not_probability += 1
        else:
            self._count(int(label), output)

    def figures(self) -> dict[str, Any]:
        """Return the figures; undefined ones are None.

        hit_rate: share of labels that p ≥ 0.5 decides rightly; brier: mean (p − y)² (Brier,
        1950); log_loss: mean of −ln p(y), p clipped by 1e-15; auc: chance that a positive has
        the higher output, ties half (Hanley and McNeil, 1982), None for one class;
        calibration_error: expected, over equal-width bins (Naeini et al., 2015), with the bins.
        """
        n = self.n
        return {
            "n": n,
            "n_positive": sum(self._positive_in_bin),
            "hit_rate": self._hits / n if n else None,
            "brier": number(self._squares) / n if n else None,
            "log_loss": number(self._losses) / n if n else None,
            "auc": self._auc(),
            "auc_resolution": 1 / GRID if self._on_grid else None,
            "calibration_error": self._calibration_error() if n else None,
            "calibration_bins": self._bins(),
            "n_label_not_binary": self.not_binary,
            "n_output_not_probability": self.not_probability,
        }

    def dump(self) -> dict[str, Any]:
        """Return the state, for JSON."""
        return {
            "n": self.n,
            "not_binary": self.not_binary,
            "not_probability": self.not_probability,
            "hits": self._hits,
            "squares": dump(self._squares),
            "losses": dump(self._losses),
            "in_bin": list(self._in_bin),
            "positive_in_bin": list(self._positive_in_bin),
            "outputs_in_bin": [dump(each) for each in self._outputs_in_bin],
            "by_output": [[output, *counts] for output, counts in self._by_output.items()],
            "on_grid": self._on_grid,
        }

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Self:
        """Return what dump() gave away."""
        quality = cls(bins=len(state["in_bin"]))
        quality.n, quality._hits = state["n"], state["hits"]
        quality.not_binary = state["not_binary"]
        quality.not_probability = state["not_probability"]
        quality._squares, quality._losses = load(state["squares"]), load(state["losses"])
        quality._in_bin = array("Q", state["in_bin"])
        quality._positive_in_bin = array("Q", state["positive_in_bin"])
        quality._outputs_in_bin = [load(each) for each in state["outputs_in_bin"]]
        quality._by_output = {
            float(output): (negatives, positives)
            for output, negatives, positives in state["by_output"]
        }
        quality._on_grid = state["on_grid"]
        return quality

    def _count(self, label: int, output: float) -> None:
        self.n += 1
        self._hits += (output >= DECISION) == bool(label)
        self._squares += units((output - label) ** 2)
        chance = output if label else 1 - output
        self._losses += units(-math.log(min(max(chance, CLIP), 1 - CLIP)))
        place = min(int(output * len(self._in_bin)), len(self._in_bin) - 1)
        self._in_bin[place] += 1
        self._positive_in_bin[place] += label
        self._outputs_in_bin[place] += units(output)
        self._rank(label, output)

    def _rank(self, label: int, output: float) -> None:
        self._add_output(output, 1 - label, label)
        if len(self._by_output) > MOST_OUTPUTS and not self._on_grid:
            self._on_grid = True
            exact, self._by_output = self._by_output, {}
            for each, (negatives, positives) in exact.items():
                self._add_output(each, negatives, positives)

    def _add_output(self, output: float, negatives: int, positives: int) -> None:
        key = round(output * GRID) / GRID if self._on_grid else output
        old = self._by_output.get(key, (0, 0))
        self._by_output[key] = (old[0] + negatives, old[1] + positives)

    def _auc(self) -> float | None:
        """Return the area under the ROC curve by the ranks of the positives."""
        below = positives = twice_won = 0
        for _, (no, yes) in sorted(self._by_output.items()):
            twice_won += yes * (2 * below + no)
            below += no
            positives += yes
        pairs = below * positives
        return twice_won / (2 * pairs) if pairs else None

    def _calibration_error(self) -> float:
        gaps = (
            abs(number(outputs) - positive)
            for outputs, positive in zip(self._outputs_in_bin, self._positive_in_bin, strict=True)
        )
        return math.fsum(gaps) / self.n

    def _bins(self) -> list[dict[str, Any]]:
        """Return the bins that hold labels: bounds, count, mean output, share of positives."""
        width = 1 / len(self._in_bin)
        return [
            {
                "from": round(place * width, 12),
                "to": round((place + 1) * width, 12),
                "n": n,
                "mean_output": number(outputs) / n,
                "positive_rate": positive / n,
            }
            for place, (n, positive, outputs) in enumerate(
                zip(self._in_bin, self._positive_in_bin, self._outputs_in_bin, strict=True)
            )
            if n
        ]
