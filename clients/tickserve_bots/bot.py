"""The demo bot: replays bars, asks a model at each close, trades on paper, reports each trade."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import math
import signal
import time
from pathlib import Path
from typing import Any

from tickserve_bots.bars import Bars, eurusd_hours, replay
from tickserve_bots.broker import Costs, PaperBroker, Trade
from tickserve_bots.features import FeatureStream
from tickserve_bots.journal import Journal, trade_line
from tickserve_bots.strategy import HORIZON_BARS, RANGE, ThresholdStrategy
from tickserve_client import (
    Client,
    ClientError,
    Equity,
    Label,
    ModelCard,
    Prediction,
    ServerError,
)

STARTING_EQUITY = 10_000.0
DEADLINE_S = 0.25
"""A reply that takes longer is late, and the bar is passed over."""

REPORT_PATIENCE_S = 30.0
REPORT_TIMEOUT_S = 2.0
REPORT_PAUSE_S = 0.2
TOLD_TOGETHER = 40
"""Labels and snapshots of equity sent in one message."""

HISTORY_BARS = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class BotSettings:
    """What one bot trades, where, and how fast its market runs."""

    name: str
    model: str
    predict: str
    start: int
    end: int
    bars_per_second: float
    folder: Path
    stop_atr: float = 2.0
    hold_bars: int = 6


class DemoBot:
    """One bot with its own account; keeps a log of its trades and one of its requests."""

    def __init__(self, settings: BotSettings, client: Client, bars: Bars) -> None:
        self._settings = settings
        self._client = client
        self._bars = bars
        self._strategy = ThresholdStrategy(stop_atr=settings.stop_atr, hold_bars=settings.hold_bars)
        self._broker = PaperBroker(costs=Costs(), hold_bars=settings.hold_bars)
        self._trades = Journal(settings.folder / f"{settings.name}.trades.jsonl")
        self._requests = Journal(settings.folder / f"{settings.name}.requests.jsonl")
        self._card = self._model_card()
        history = settings.start - HISTORY_BARS
        self._features = FeatureStream(bars.first(history), self._card.features)
        self._ranges = FeatureStream(bars.first(history), [RANGE])
        self._range = math.nan
        self._asked: dict[int, str] = {}
        self._told: list[Label | Equity] = []
        self._earned = 0.0
        self._rows: collections.deque[dict[str, float]] = collections.deque(
            maxlen=self._card.input.get("length", 1)
        )
        for index in range(history, settings.start):
            self._take_in(index)
        self._stopping = False

    def run(self) -> None:
        """Trade all bars of the span; what is open at the end is closed and reported too."""
        settings, last = self._settings, self._settings.start
        for index in replay(settings.start, settings.end, bars_per_second=settings.bars_per_second):
            if self._stopping:
                break
            self._on_bar(index)
            last = index
        closed = self._broker.finish(self._bars, last)
        if closed is not None:
            self._settle(closed)
        self._tell(at_least=1)
        self._trades.close()
        self._requests.close()

    def stop(self) -> None:
        """End after this bar."""
        self._stopping = True

    def _take_in(self, index: int) -> None:
        self._rows.append(self._features.update(self._bars, index))
        self._range = self._ranges.update(self._bars, index)[RANGE]

    def _on_bar(self, index: int) -> None:
        self._take_in(index)
        closed = self._broker.on_bar(self._bars, index)
        if closed is not None:
            self._settle(closed)
        prediction = self._ask(index)
        self._look_back(index, prediction)
        self._tell(at_least=TOLD_TOGETHER)
        if prediction is None or not self._broker.is_flat:
            return
        order = self._strategy.order(
            prediction.action,
            atr=self._range,
            prediction_id=prediction.prediction_id,
            build=prediction.build,
        )
        if order is not None:
            self._broker.submit(order)

    def _look_back(self, index: int, prediction: Prediction | None) -> None:
        """Note equity at this close, and whether the model was right some bars ago."""
        close, at = self._bars.close, int(self._bars.times[index]) + self._bars.step_ms
        client, earned = self._client, self._earned + self._broker.open_pnl(self._bars, index)
        equity = STARTING_EQUITY + earned
        self._told.append(Equity(bot=client.bot, run=client.run, at=at, equity=equity))
        asked = self._asked.pop(index - HORIZON_BARS, None)
        if asked is not None:
            rose = float(close[index] > close[index - HORIZON_BARS])
            self._told.append(Label(prediction_id=asked, value=rose, at=at))
        if prediction is not None and prediction.prediction_id is not None:
            self._asked[index] = prediction.prediction_id

    def _tell(self, *, at_least: int) -> None:
        """Send labels and equity when there are enough; what fails is sent with the next."""
        if len(self._told) < at_least:
            return
        try:
            ack = self._client.tell(self._told, timeout=REPORT_TIMEOUT_S)
        except ServerError:
            raise
        except ClientError:
            return
        if ack.status != "retry":
            self._told = []

    def _ask(self, index: int) -> Prediction | None:
        """Ask the model about the bar that has closed; log the request whatever comes of it."""
        is_window = self._card.input.get("kind") == "window"
        features: Any = list(self._rows) if is_window else self._rows[-1]
        started = time.perf_counter()
        line: dict[str, Any] = {"at": time.time(), "bar": index}
        try:
            prediction = self._client.predict(
                self._settings.model,
                features,
                bar_time=int(self._bars.times[index]) + self._bars.step_ms,
                timeout=DEADLINE_S,
            )
        except ClientError as error:
            self._requests.write(line | {"error": str(error)})
            return None
        latency_us = (time.perf_counter() - started) * 1e6
        answer = {"model_id": prediction.model_id, "latency_us": round(latency_us, 1)}
        self._requests.write(line | answer)
        return prediction

    def _settle(self, trade: Trade) -> None:
        """Log a closed trade, then report it until it is acknowledged as stored."""
        self._earned += trade.pnl
        self._trades.write(
            trade_line(trade, bot=self._settings.name, account=str(self._client.account))
        )
        deadline = time.monotonic() + REPORT_PATIENCE_S
        while True:
            try:
                ack = self._client.report(
                    trade=trade.trade,
                    prediction_id=trade.prediction_id,
                    build=trade.build,
                    side="long" if trade.side == "long" else "short",
                    qty=trade.qty,
                    entry_price=trade.entry_price,
                    exit_price=trade.exit_price,
                    pnl=trade.pnl,
                    fees=trade.fees,
                    opened_at=trade.opened_at,
                    closed_at=trade.closed_at,
                    exit_reason=trade.exit_reason,
                    timeout=REPORT_TIMEOUT_S,
                )
            except ServerError:
                raise
            except ClientError:
                if time.monotonic() > deadline:
                    raise
            else:
                if ack.status != "retry":
                    return
            time.sleep(REPORT_PAUSE_S)

    def _model_card(self) -> ModelCard:
        model = self._settings.model
        for card in self._client.models(timeout=REPORT_TIMEOUT_S):
            if model in (card.family, card.model_id, card.build):
                return card
        raise LookupError(f"no production model is called {model}; see: tickserve models")


def main() -> None:
    """Run one bot: `python -m tickserve_bots.bot --help`."""
    settings = _parse()
    client = Client(
        settings.predict,
        bot=settings.name,
        account=f"{settings.name}-paper",
        currency="USD",
        starting_equity=STARTING_EQUITY,
        timeout=DEADLINE_S,
    )
    with client:
        bot = DemoBot(settings, client, eurusd_hours())
        signal.signal(signal.SIGTERM, lambda *_: bot.stop())
        bot.run()


def _parse() -> BotSettings:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="the bot's name; its account is NAME-paper")
    parser.add_argument("--model", required=True, help="family, model_id or build to ask")
    parser.add_argument("--predict", default="tcp://127.0.0.1:5555", help="predict endpoint")
    parser.add_argument("--start", type=int, required=True, help="index of the first bar")
    parser.add_argument("--end", type=int, required=True, help="index after the last bar")
    parser.add_argument("--bars-per-second", type=float, default=20.0, help="replay speed")
    parser.add_argument("--stop-atr", type=float, default=2.0, help="stop in ATRs")
    parser.add_argument("--hold-bars", type=int, default=6, help="time exit in bars")
    parser.add_argument("--folder", type=Path, required=True, help="where the logs go")
    return BotSettings(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
