"""The replay: what an evaluation hands to the trading side, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from tickserve_registry.errors import ReplayMissing
from tickserve_registry.metadata import Metadata

GROUP = "tickserve.replays"
"""Entry points under which a package offers its replay; the registry imports no trading code."""

Predict = Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]
"""Takes float32 inputs [rows, features] or [rows, window, features]; returns [rows, outputs]."""


class ReplayRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One model, bars by whatever name the replay knows, and which of them to trade.

    Bars that open from `start` on and before `end` are traded (ms since the epoch; None is the
    first or last there is); earlier ones may only warm features up.
    """

    metadata: Metadata
    predict: Predict
    bars: Any
    start: int | None = None
    end: int | None = None
    costs: Mapping[str, float] | None = None


class ReplayedTrade(msgspec.Struct, frozen=True, kw_only=True):
    """A closed trade; times in ms since the epoch, `pnl` net of all costs."""

    opened_at: int
    closed_at: int
    side: Literal["long", "short"]
    pnl: float


class ReplayedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One answer: when its bar closed (ms), what the model was shown, what it said."""

    time: int
    features: Any
    output: float


class BarsUsed(msgspec.Struct, frozen=True, kw_only=True):
    """The bars of a replay: `sha256` is of all, `count` how many of them were traded.

    On `unanswered` of these the model was not asked, for a gap in its features, or gave no
    number. `columns` are the features that the bars brought ready-made.
    """

    name: str
    sha256: str
    count: int
    unanswered: int
    columns: tuple[str, ...] = ()


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a replay; `start` and `end` (ms) are its first open and its last close."""

    trades: tuple[ReplayedTrade, ...]
    rows: tuple[ReplayedRow, ...]
    bars: BarsUsed
    start: int
    end: int
    costs: dict[str, float]
    strategy: dict[str, Any]


Replay = Callable[[ReplayRequest], Replayed]
"""Trades a model's answers on bars. May raise EvaluationRefused, BarsRefused, FeatureUnknown."""


def installed_replay() -> Replay:
    """Return the replay that is installed; raise ReplayMissing naming what to install."""
    for entry in entry_points(group=GROUP):
        try:
            found: Replay = entry.load()
        except ModuleNotFoundError as error:
            raise ReplayMissing(missing=str(error.name)) from error
        return found
    raise ReplayMissing(missing="a package that replays bars")
