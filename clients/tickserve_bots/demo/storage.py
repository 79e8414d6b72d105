"""The demo's folder: made fresh for each run, and never anybody else's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from tickserve_bots.bars import Bars
from tickserve_bots.training import (
    NAMED_BARS,
    TREND_V1,
    TREND_V2,
    VALIDATE,
    pretrained_breakout,
    train_trend,
)
from tickserve_registry.model_registry import ModelRegistry

MARKER = ".tickserve-demo"
TREND, BREAKOUT = "eurusd_1h_xgb_trend_v1", "eurusd_1h_lstm_breakout_v1"

POLICY = """\
# What a build must show before it may go to production; see config/promotion.toml.
enabled = true
min_validation_trades = 100
min_validation_sharpe = 0.5
max_validation_drawdown = 0.15
required_metadata = ["feature_definitions", "training_period.end"]
require_golden_rows = true
"""


class ForeignFolder(Exception):
    """The folder holds something that the demo has not made."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"{folder} exists and is no demo folder, so it is left alone; name another with --root"
        )
        self.folder = folder


class DemoFolder(NamedTuple):
    """Where everything of one run lies."""

    root: Path

    @property
    def storage(self) -> Path:
        """The storage root."""
        return self.root / "model_storage"

    @property
    def bots(self) -> Path:
        """The bots' trade and request logs."""
        return self.root / "bots"

    @property
    def log(self) -> Path:
        """The daemon's log."""
        return self.root / "daemon.log"


def prepare(root: Path) -> DemoFolder:
    """Empty the demo's folder of the last run; raise ForeignFolder rather than delete others'."""
    if root.exists() and any(root.iterdir()) and not (root / MARKER).exists():
        raise ForeignFolder(root)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    (root / MARKER).touch()
    return DemoFolder(root)


class Saved(NamedTuple):
    """The demo's registry, and what the promotion policy had against the network."""

    registry: ModelRegistry
    overruled: tuple[str, ...]


def save_models(folder: DemoFolder, bars: Bars) -> Saved:
    """Train, save and evaluate the models; trend v1 and the LSTM go live, trend v2 waits.

    The promotion policy is on. The LSTM does not meet it, and is promoted by force.
    """
    registry = ModelRegistry(folder.storage)
    (folder.storage / "promotion.toml").write_text(POLICY, encoding="utf-8")
    for recipe in (TREND_V1, TREND_V2):
        model, info, sample = train_trend(bars, recipe)
        registry.save_model(model, info, training_sample=sample)
    lstm, info, sample = pretrained_breakout(bars)
    registry.save_model(lstm, info, training_sample=sample)
    for entry in registry.entries():
        registry.evaluate(
            entry.build,
            NAMED_BARS,
            start=bars.opens(VALIDATE.start),
            end=bars.opens(VALIDATE.end),
        )
    registry.promote_model(TREND, reason="demo: first champion")
    forced = registry.promote_model(BREAKOUT, force=True, reason="demo: to watch a model lose")
    return Saved(registry, forced.overruled)
