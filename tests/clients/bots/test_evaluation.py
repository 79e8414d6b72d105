"""The replay: figures that a plain recomputation confirms, or a refusal that says what to do."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost

from tickserve_bots.bars import Bars, eurusd_hours
from tickserve_bots.training import TREND_V1, VALIDATE, train_trend
from tickserve_registry.errors import BarsRefused, EvaluationRefused, FeatureUnknown
from tickserve_registry.model_registry import ModelRegistry

TREND = "eurusd_1h_xgb_trend_v1"
SEED_FEATURES = ["rsi_14", "ema_20", "ema_50", "atr_14", "hour_of_day"]
ACTING = {"kind": "probability", "long_above": 0.5, "short_below": 0.5}
START = "2017-06-01"
Save = Callable[..., ModelRegistry]


@pytest.fixture(scope="module")
def bars() -> Bars:
    """The real bars."""
    return eurusd_hours()


@pytest.fixture(scope="module")
def frame(bars: Bars) -> Any:
    """Return the real bars as a notebook holds them."""
    columns = {name: getattr(bars, name) for name in ("open", "high", "low", "close")}
    return pd.DataFrame({"time": pd.to_datetime(bars.times, unit="ms"), **columns})


@pytest.fixture(scope="module")
def classifier() -> Any:
    """Return a small model of five features on the scale of the seed's."""
    random = np.random.default_rng(3)
    inputs = random.normal(size=(400, 5)) * [20, 0.02, 0.02, 0.0005, 7] + [
        50,
        1.17,
        1.17,
        0.001,
        12,
    ]
    model = xgboost.XGBClassifier(n_estimators=8, max_depth=3)
    return model.fit(inputs, inputs[:, 0] + random.normal(size=400) * 20 > 50)


@pytest.fixture
def save(tmp_path: Path, classifier: Any) -> Save:
    """Return a function that saves the model with changed metadata and returns the registry."""

    def saved(**changes: Any) -> ModelRegistry:
        registry = ModelRegistry(tmp_path / "storage")
        info = {"model_id": TREND, "features": SEED_FEATURES, "output": ACTING}
        registry.save_model(classifier, info | changes)
        return registry

    return saved


def wilder(values: Any, period: int) -> Any:
    """Wilder's smoothing: the mean of the first values, then one part in `period` of each."""
    smoothed = np.full(len(values), np.nan)
    smoothed[period - 1] = values[:period].mean()
    for index in range(period, len(values)):
        smoothed[index] = (smoothed[index - 1] * (period - 1) + values[index]) / period
    return smoothed


def exponential(close: Any, period: int) -> Any:
    """An exponential average that starts from the mean of the first values."""
    average = np.full(len(close), np.nan)
    average[period - 1] = close[:period].mean()
    for index in range(period, len(close)):
        average[index] = average[index - 1] + (close[index] - average[index - 1]) * 2 / (period + 1)
    return average


def plain_features(table: Any) -> dict[str, Any]:
    """The demo's seven features, and the average range, from their textbook definitions."""
    close = table["close"].to_numpy()
    change = np.diff(close)
    gain, loss = wilder(np.maximum(change, 0), 14), wilder(np.maximum(-change, 0), 14)
    before = table["close"].shift()
    ranges = pd.concat(
        [
            table["high"] - table["low"],
            (table["high"] - before).abs(),
            (table["low"] - before).abs(),
        ],
        axis=1,
    ).max(axis=1)
    atr = np.append(np.nan, wilder(ranges.to_numpy()[1:], 14))
    return {
        "rsi_14": np.append(np.nan, 100 * gain / (gain + loss)),
        "ema_20_distance": close / exponential(close, 20) - 1,
        "ema_50_distance": close / exponential(close, 50) - 1,
        "atr_14_ratio": atr / close,
        "return_1": table["close"].pct_change(1).to_numpy(),
        "return_6": table["close"].pct_change(6).to_numpy(),
        "hour_of_day": table["time"].dt.hour.to_numpy().astype(float),
        "atr": atr,
    }


def plain_trades(table: Any, output: Any, atr: Any, *, above: float, below: float) -> Any:
    """Trades of the demo's rules, walked bar by bar: [closing time, pnl]."""
    quantity, half_spread, fees = 20_000, 0.00003, 2 * 20_000 * 0.000035
    opens, highs, lows, closes = (table[n].to_numpy() for n in ("open", "high", "low", "close"))
    trades, sign, waiting = [], 0, 0
    entry = stop = entered = distance = 0.0
    for bar in range(VALIDATE.start, VALIDATE.end):
        if waiting:
            sign, waiting, entered = waiting, 0, bar
            entry, stop = opens[bar] + sign * half_spread, opens[bar] - sign * distance
        if sign:
            worst = lows[bar] if sign > 0 else highs[bar]
            price = None
            if sign * (worst - stop) <= 0:
                price = sign * min(sign * stop, sign * opens[bar])
            elif bar - entered + 1 >= 6 or bar == VALIDATE.end - 1:
                price = closes[bar]
            if price is not None:
                pnl = sign * (price - sign * half_spread - entry) * quantity - fees
                trades.append([table["time"][bar] + pd.Timedelta("1h"), pnl])
                sign = 0
        if not sign and bar < VALIDATE.end - 1:
            waiting = 1 if output[bar] > above else -1 if output[bar] < below else 0
            distance = 2 * atr[bar]
    return pd.DataFrame(trades, columns=["closed", "pnl"])


def plain_sharpe(trades: Any) -> float:
    """Mean over deviation of weekday returns on the equity before each day, times √252."""
    day = trades["closed"].dt.normalize()
    day -= pd.to_timedelta((day.dt.day_of_week - 4).clip(lower=0), unit="D")
    earned = trades.groupby(day)["pnl"].sum()
    weekdays = pd.bdate_range(earned.index.min(), earned.index.max())
    earned = earned.reindex(weekdays, fill_value=0.0)
    returns = earned / (10_000 + earned.cumsum() - earned)
    return float(returns.mean() / returns.std(ddof=1) * math.sqrt(252))


def test_a_plain_recomputation_confirms_the_figures(bars: Bars, frame: Any, tmp_path: Path) -> None:
    """Features, model, rules, pnl and Sharpe, each written a second time, give the same."""
    registry = ModelRegistry(tmp_path / "storage")
    model, info, sample = train_trend(bars, TREND_V1)
    registry.save_model(model, info, training_sample=sample)
    block = registry.evaluate(TREND, start=bars.opens(VALIDATE.start), end=bars.opens(VALIDATE.end))
    known = plain_features(frame)
    rows = np.column_stack([known[name] for name in info["features"]]).astype(np.float32)
    native, _ = registry.load_model(TREND)
    output = native.predict_proba(rows)[:, 1]
    above, below = info["output"]["long_above"], info["output"]["short_below"]
    trades = plain_trades(frame, output, known["atr"], above=above, below=below)
    assert block["n_trades"] == len(trades) == 155
    assert [trade["pnl"] for trade in block["trades"]] == pytest.approx(list(trades["pnl"]))
    assert block["net_pnl"] == pytest.approx(trades["pnl"].sum(), abs=1e-6)
    assert block["sharpe_ratio"] == pytest.approx(plain_sharpe(trades), abs=1e-9)
    assert round(block["sharpe_ratio"], 2) == 1.47


def test_the_seeds_own_features_are_computed(save: Save) -> None:
    """A model saved with names alone is evaluated; its inputs are indicators of the bars."""
    registry = save()
    block = registry.evaluate(TREND, start=START)
    assert block["n_trades"] > 100
    rsi, fast, slow, atr, hour = block["golden"][0]["features"]
    assert 0 < rsi < 100
    assert 1.0 < min(fast, slow) < max(fast, slow) < 1.3
    assert 0 < atr < 0.01
    assert hour in range(24)


def test_ones_own_file_gives_the_named_bars_figures(save: Save, frame: Any, tmp_path: Path) -> None:
    """The same hours as a name, a file and a frame: one digest, the same trades."""
    registry = save()
    frame.to_csv(tmp_path / "hours.csv", index=False)
    named = registry.evaluate(TREND, start=START)
    for source in (tmp_path / "hours.csv", frame):
        block = registry.evaluate(TREND, source, start=START)
        assert block["trades"] == named["trades"]
        assert block["bars"]["sha256"] == named["bars"]["sha256"]
    assert block["bars"]["name"] == "data frame"


def test_ready_features_come_from_the_bars(save: Save, frame: Any) -> None:
    """A column is shown to the model as it is, a gap in it leaves the bar unanswered."""
    registry = save(features=["rsi_14", "mood", "ema_50", "atr_14", "hour_of_day"])
    mood = np.linspace(1.1, 1.2, len(frame))
    mood[2_000:2_040] = np.nan
    block = registry.evaluate(TREND, frame.assign(mood=mood), start="2017-08-01")
    assert block["bars"]["columns"] == ["mood"]
    assert block["bars"]["unanswered"] == 40
    first = int((frame["time"] >= "2017-08-01").argmax())
    assert block["golden"][0]["features"][1] == pytest.approx(mood[first], abs=1e-6)
    with pytest.raises(FeatureUnknown, match="mood"):
        registry.evaluate(TREND, frame, start="2017-08-01")


def test_gaps_that_the_model_takes_are_answered(save: Save, frame: Any) -> None:
    """Where the metadata allows NaN in a feature, and in golden rows a gap is null."""
    registry = save(
        features=["rsi_14", "mood", "ema_50", "atr_14", "hour_of_day"],
        input={"allow_nan": ["mood"]},
    )
    block = registry.evaluate(TREND, frame.assign(mood=np.nan), start=START)
    assert block["bars"]["unanswered"] == 0
    assert block["golden"][0]["features"][1] is None


def test_costs_thresholds_and_strategy_matter(save: Save) -> None:
    """Dearer trading earns less on the same trades; one threshold alone trades one side."""
    registry = save(strategy_parameters={"qty": 1_000, "hold_bars": 3})
    cheap = registry.evaluate(TREND, start=START, costs={"spread": 0.0, "fee_rate": 0.0})
    dear = registry.evaluate(TREND, start=START, costs={"spread": 0.001})
    assert dear["costs"] == {"spread": 0.001, "fee_rate": 0.000035}
    paid = cheap["n_trades"] * 1_000 * (0.001 + 2 * 0.000035)
    assert cheap["n_trades"] == dear["n_trades"]
    assert cheap["net_pnl"] - dear["net_pnl"] == pytest.approx(paid)
    assert cheap["strategy_parameters"] == {"qty": 1_000, "stop_atr": 2.0, "hold_bars": 3}
    hours = {(each["closed_at"] - each["opened_at"]) / 3_600_000 for each in cheap["trades"]}
    assert {3.0} < hours
    longs = save(version=2, model_id="eurusd_1h_xgb_trend_v2", output={"long_above": 0.5})
    block = longs.evaluate("eurusd_1h_xgb_trend_v2", start=START)
    assert {trade["side"] for trade in block["trades"]} == {"long"}


def test_a_slower_market_closes_trades_at_its_own_pace(save: Save, frame: Any) -> None:
    """Trades on four-hour bars close four hours after their last bar opened."""
    slow = frame.set_index("time").resample("4h")
    columns = {"open": "first", "high": "max", "low": "min", "close": "last"}
    registry = save(model_id="eurusd_4h_xgb_trend_v1")
    block = registry.evaluate("eurusd_4h_xgb_trend_v1", slow.agg(columns).dropna(), start=START)
    assert block["n_trades"] > 20
    lasted = {each["closed_at"] - each["opened_at"] for each in block["trades"]}
    assert min(lasted) == 4 * 3_600_000


@pytest.mark.parametrize(
    ("changes", "arguments", "words"),
    [
        ({"model_id": "us100_1h_xgb_trend_v1"}, {}, ("of eurusd, not of us100", "--bars")),
        ({"model_id": "eurusd_15m_xgb_trend_v1"}, {}, ("3600 s apart", "15m is 900 s")),
        ({}, {"start": "2018-03-01"}, ("2017-04-19 to 2018-02-07", "later bars")),
        ({}, {"start": "2017-04-19", "end": "2017-04-20"}, ("features were complete", "50")),
        ({}, {"costs": {"spred": 1}}, ("unknown: spred", "spread and fee_rate")),
        ({}, {"costs": {"spread": -1}}, ("not negative",)),
        ({}, {"costs": {"fee_rate": float("nan")}}, ("finite",)),
        ({}, {"costs": {"spread": "1 pip"}}, ("1 pip",)),
        ({"strategy_parameters": {"take_profit": 2}}, {}, ("take_profit", "pass a replay")),
        ({"strategy_parameters": {"hold_bars": 0}}, {}, ("hold_bars is 1 or more",)),
        ({"strategy_parameters": {"qty": "all"}}, {}, ("strategy_parameters",)),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    changes: dict[str, Any], arguments: dict[str, Any], words: tuple[str, ...], save: Save
) -> None:
    """With the reason and what to do; nothing is written."""
    registry = save(**changes)
    name = changes.get("model_id", TREND)
    with pytest.raises(EvaluationRefused) as raised:
        registry.evaluate(name, **{"start": START, **arguments})
    for word in words:
        assert word in str(raised.value)
    assert "validation" not in registry.metadata(name).document.get("performance", {})


def test_costs_of_another_market_must_be_given(save: Save, frame: Any) -> None:
    """EURUSD's spread would flatter any other market."""
    registry = save(model_id="us100_1h_xgb_trend_v1")
    name = "us100_1h_xgb_trend_v1"
    with pytest.raises(EvaluationRefused, match="us100 are not known"):
        registry.evaluate(name, frame, start=START, costs={"spread": 1.5})
    block = registry.evaluate(name, frame, start=START, costs={"spread": 1.5, "fee_rate": 0.0})
    assert block["costs"] == {"spread": 1.5, "fee_rate": 0.0}


def test_bad_bars_reach_the_caller_as_they_are(save: Save, tmp_path: Path) -> None:
    """The line of a broken file is named through the whole way."""
    path = tmp_path / "bars.csv"
    path.write_text("time,open,high,low,close\n2025-01-01,1,1,1,\n")
    with pytest.raises(BarsRefused, match="line 2, column close"):
        save().evaluate(TREND, path, start="2025-01-01")
