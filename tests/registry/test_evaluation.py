"""registry.evaluate: what is handed to the replay, what is written, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tickserve_registry.errors import ArtefactRefused, EvaluationRefused
from tickserve_registry.evaluation import MOST_TRADES
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.performance import comparability, figures
from tickserve_registry.replay import (
    BarsUsed,
    Replayed,
    ReplayedRow,
    ReplayedTrade,
    ReplayRequest,
)
from tickserve_registry.track_record import ClosedTrade

MODEL = "eurusd_1h_xgb_trend_v1"
DAY_MS = 86_400_000
MONDAY = 1_736_121_600_000
"""2025-01-06."""

ACTING = {"kind": "probability", "long_above": 0.55, "short_below": 0.45}
TRAINED = {"training_period": {"start": "2023-01-01", "end": "2024-12-31"}}
PNL = (120.0, -80.0, 45.0, -10.0)


class FixedTrades:
    """A replay of one's own: the same trades whatever the model says; keeps its requests."""

    def __init__(self, pnl: tuple[float, ...] = PNL) -> None:
        self.requests: list[ReplayRequest] = []
        self._pnl = pnl

    def __call__(self, request: ReplayRequest) -> Replayed:
        """Answer with a trade a day, and a row that the model answered."""
        self.requests.append(request)
        row = np.ones((1, len(request.metadata.features)), dtype=np.float32)
        answer = float(request.predict(row)[0, 0])
        return Replayed(
            trades=tuple(self._trade(number, pnl) for number, pnl in enumerate(self._pnl)),
            rows=(ReplayedRow(time=MONDAY, features=row[0].tolist(), output=answer),) * 9,
            bars=BarsUsed(name="mine", sha256="0" * 64, count=96, unanswered=3, columns=("x",)),
            start=MONDAY,
            end=MONDAY + 4 * DAY_MS,
            costs={"spread": 0.0001, "fee_rate": 0.0},
            strategy={"qty": 1.0},
        )

    @staticmethod
    def _trade(number: int, pnl: float) -> ReplayedTrade:
        opened = MONDAY + number * DAY_MS
        return ReplayedTrade(opened_at=opened, closed_at=opened + 3_600_000, side="long", pnl=pnl)


@pytest.fixture
def saved(registry: ModelRegistry, classifier: Any, info: Callable[..., Any]) -> ModelRegistry:
    """Return a registry with one model in staging that has thresholds and a training period."""
    registry.save_model(classifier, info(output=ACTING, **TRAINED))
    return registry


def test_the_block_is_written_whole_and_stands_beside_live(saved: ModelRegistry) -> None:
    """Figures, convention, costs, span, bars, trades, golden rows and digest; live may compare."""
    before = saved.metadata(MODEL)
    block = saved.evaluate(MODEL, replay=FixedTrades())
    after = saved.metadata(MODEL)
    assert after.document["performance"]["validation"] == block
    assert (after.revision, after.serving) == (before.revision + 1, before.serving)
    assert saved.verify()
    assert block["serving_digest"] == saved.find(MODEL).serving_digest
    assert (block["mode"], block["n_trades"], block["net_pnl"]) == ("validation", 4, sum(PNL))
    assert block["span"] == {"start": "2025-01-06T00:00:00Z", "end": "2025-01-10T00:00:00Z"}
    assert block["bars"]["sha256"] == "0" * 64
    assert block["trades"][1] == {
        "opened_at": MONDAY + DAY_MS,
        "closed_at": MONDAY + DAY_MS + 3_600_000,
        "side": "long",
        "pnl": -80.0,
    }
    live = figures(
        [ClosedTrade(MONDAY, 1.0)], starting_equity=1.0, currency="USD", calendar="weekdays"
    )
    assert comparability(live, block)["comparable"]


def test_the_replay_is_handed_what_serves_and_what_is_unseen(
    saved: ModelRegistry, inputs: Any
) -> None:
    """Predictions are the served model's; bars from the end of training on, costs as given."""
    replay = FixedTrades()
    saved.evaluate(MODEL, "my bars", replay=replay, costs={"spread": 0.5}, end="2025-06-30")
    (request,) = replay.requests
    model, _ = saved.load_model(MODEL)
    wanted = model.predict_proba(inputs)[:, 1]
    assert request.predict(inputs)[:, 0] == pytest.approx(wanted, abs=1e-6)
    assert (request.bars, request.costs) == ("my bars", {"spread": 0.5})
    assert request.start == 1_735_689_600_000
    assert request.end == request.start + 181 * DAY_MS


def test_golden_rows_are_answers_of_the_served_model(saved: ModelRegistry) -> None:
    """A few of the rows, each with its time, its features and the model's own output."""
    block = saved.evaluate(MODEL, replay=FixedTrades())
    model, document = saved.load_model(MODEL)
    assert len(block["golden"]) == 5
    row = block["golden"][0]
    assert row["time"] == "2025-01-06T00:00:00Z"
    features = np.array([row["features"]], dtype=np.float32)
    assert features.shape == (1, len(document["features"]))
    assert row["output"] == pytest.approx(float(model.predict_proba(features)[0, 1]), abs=1e-6)


def test_figures_follow_calendar_capital_and_currency(
    registry: ModelRegistry, classifier: Any, info: Callable[..., Any]
) -> None:
    """The argument, else the metadata, else the market says the calendar."""
    document = info(output=ACTING, **TRAINED, calendar="24x7", currency="EUR")
    registry.save_model(classifier, document)
    stated = registry.evaluate(MODEL, replay=FixedTrades())
    given = registry.evaluate(
        MODEL, replay=FixedTrades(), calendar="weekdays", starting_equity=1_000
    )
    assert (stated["annualization"], given["annualization"]) == (365, 252)
    assert (stated["currency"], stated["starting_equity"]) == ("EUR", 10_000)
    assert given["equity"] == 1_000 + sum(PNL)
    assert given["max_drawdown"] == pytest.approx(80 / 1120)
    assert registry.metadata(MODEL).document["performance"]["validation"] == given


def test_of_very_many_trades_the_latest_are_listed(saved: ModelRegistry) -> None:
    """All count in the figures; the list stays short, for every write-back writes it again."""
    pnl = (*([1.0] * MOST_TRADES), -7.0, 2.0)
    block = saved.evaluate(MODEL, replay=FixedTrades(pnl))
    assert block["n_trades"] == len(pnl)
    assert [trade["pnl"] for trade in block["trades"]] == list(pnl[-MOST_TRADES:])
    assert block["trades_omitted"] == 2


@pytest.mark.parametrize(
    ("changes", "arguments", "words"),
    [
        ({"output": {}}, {}, ("no thresholds", "long_above")),
        ({"training_period": None}, {}, ("no training_period", "--from")),
        ({}, {"start": "2024-01-01"}, ("2023-01-01 to 2024-12-31", "2025-01-01")),
        ({}, {"calendar": "always"}, ("always", "24x7, weekdays")),
        ({}, {"starting_equity": 0}, ("starting equity",)),
    ],
)
def test_a_refusal_names_the_remedy_and_writes_nothing(  # noqa: PLR0917 - parameters and fixtures
    changes: dict[str, Any],
    arguments: dict[str, Any],
    words: tuple[str, ...],
    registry: ModelRegistry,
    classifier: Any,
    info: Callable[..., Any],
) -> None:
    """The metadata stays as it was, and the replay is not asked."""
    registry.save_model(classifier, info(**{"output": ACTING, **TRAINED, **changes}))
    before, replay = registry.metadata(MODEL).document, FixedTrades()
    with pytest.raises(EvaluationRefused) as raised:
        registry.evaluate(MODEL, replay=replay, **arguments)
    for word in words:
        assert word in str(raised.value)
    assert not replay.requests
    assert registry.metadata(MODEL).document == before


def test_a_changed_model_is_not_evaluated(saved: ModelRegistry) -> None:
    """The digest is checked before anything is predicted."""
    entry = saved.find(MODEL)
    (path,) = Path(saved.storage_root).rglob(f"{entry.build}.onnx")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtefactRefused):
        saved.evaluate(MODEL, replay=FixedTrades())


def test_without_the_bots_the_error_names_their_extra() -> None:
    """A registry alone has no replay; what it says is the line to run."""
    code = (
        "import sys; sys.modules['talib'] = None\n"
        "from tickserve_registry.errors import ReplayMissing\n"
        "from tickserve_registry.replay import installed_replay\n"
        "try: installed_replay()\n"
        "except ReplayMissing as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert "talib" in run.stdout
    assert "pip install 'tickserve[bots]'" in run.stdout
