"""The live book: what every build's figures are made of, always as the ledger has it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from tickserve_registry.drift import Reference
from tickserve_registry.quality import Quality
from tickserve_registry.track_record import Account, ClosedTrade, TrackRecord
from tickserve_registry.trading_calendar import Calendar
from tickserve_server.latency import LatencyHistogram
from tickserve_server.recorder.marked_equity import MarkedEquity
from tickserve_server.recorder.serving_tally import ServingTally

QUALITY_EVERY = 256
"""Labels after which the state of a build's quality is stored anew."""

Run = tuple[str, str]


class Change(NamedTuple):
    """What a turn did to one trade of a build; `before` and `after` are as they count."""

    position: int
    build: str
    before: ClosedTrade | None
    after: ClosedTrade | None


class Answered(NamedTuple):
    """The first outcome of a prediction, so many ms after it."""

    build: str
    lag_ms: int


class Labelled(NamedTuple):
    """A label with the output of its prediction."""

    position: int
    build: str
    value: float
    output: float | None


class Snapshot(NamedTuple):
    """Equity as a run marked it to the market."""

    run: Run
    at: int
    equity: float


class Profile(NamedTuple):
    """What the book must know of a build: its calendar, and its inputs at training."""

    calendar: Calendar
    reference: Reference | None


class ServedFigures(NamedTuple):
    """Rows answered, refusals by code, durations, and what the serving process last told."""

    answered: int
    errors: dict[str, int]
    latency: LatencyHistogram
    served: dict[str, Any] | None


class _Trading:
    """A build's track record, or the changes since it was found to be outdated."""

    def __init__(self, track: TrackRecord | None) -> None:
        self.track = track
        self.since: list[Change] = []
        self.answers = 0
        self.lag = LatencyHistogram()
        self._answers: str | None = None

    def answer(self, lag_ms: int) -> None:
        """Count a prediction that has its first outcome, so many ms after it."""
        self.answers += 1
        self.lag.add(max(0, lag_ms) * 1000)
        self._answers = None

    def apply(self, change: Change) -> None:
        """Apply a change, or note it where it comes too late for the track."""
        if self.track is not None and not _applied(self.track, change):
            self.track = None
        if self.track is None:
            self.since.append(change)

    def answers_as_json(self) -> str:
        """Return the state of what answer() counts; made anew only when that has changed."""
        if self._answers is None:
            state = {"n": self.answers, "lag": self.lag.sparse()}
            self._answers = msgspec.json.encode(state).decode()
        return self._answers

    def load_answers(self, state: str) -> None:
        stored = msgspec.json.decode(state)
        if stored:
            self.answers = stored["n"]
            self.lag = LatencyHistogram.from_sparse(stored["lag"])


class _Quality:
    """A build's quality up to a position, and whether it is to be stored."""

    def __init__(self, quality: Quality, position: int, *, is_stored: bool) -> None:
        self.quality = quality
        self.position = position
        self.is_stored = is_stored
        self.unstored = 0

    @property
    def is_due(self) -> bool:
        return self.unstored >= (QUALITY_EVERY if self.is_stored else 1)


class LiveBook:
    """Changed by the recorder's loop, read by the threads of the jobs.

    The loop holds changing() from the first change of a turn to its commit, so nobody sees what is
    not durable. `profile` tells of a build.
    """

    def __init__(self, *, default_capital: float, profile: Callable[[str], Profile]) -> None:
        self._default_capital = default_capital
        self._profile = profile
        self._lock = threading.RLock()
        self._capital: dict[Account, float] = {}
        self._trading: dict[str, _Trading] = {}
        self._serving: dict[str, ServingTally] = {}
        self._quality: dict[str, _Quality] = {}
        self._marked: dict[Run, MarkedEquity] = {}
        self._unstored: dict[str, set[Any]] = {"track": set(), "serving": set(), "marked": set()}
        self._changed: set[str] = set()
        self.generation = 0
        """Rises whenever a track record under construction may miss something but a trade."""

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Keep readers out until the changes are durable."""
        with self._lock:
            yield

    # What the loop calls, in a turn.

    def capital(self, account: Account) -> float:
        """Return the capital of (bot, account)."""
        return self._capital.get(account, self._default_capital)

    def set_capital(self, account: Account, amount: float) -> None:
        """Take the capital that an account states; builds that counted another are outdated."""
        if self.capital(account) != amount:
            self.generation += 1
            for build, trading in self._trading.items():
                if trading.track is not None and account in trading.track.accounts:
                    self.outdate([build])
        self._capital[account] = amount

    def change(self, change: Change) -> None:
        """Take what became of a trade."""
        self._of(change.build).apply(change)
        self._touch("track", change.build)

    def answer(self, answered: Answered) -> None:
        """Count a prediction that has its first outcome."""
        self._of(answered.build).answer(answered.lag_ms)
        self._touch("track", answered.build)

    def label(self, labelled: Labelled) -> None:
        """Take a label."""
        kept = self._quality.setdefault(labelled.build, _Quality(Quality(), 0, is_stored=False))
        kept.quality.add(labelled.value, labelled.output)
        kept.position = labelled.position
        kept.unstored += 1
        self._changed.add(labelled.build)

    def mark(self, snapshot: Snapshot) -> None:
        """Take a snapshot of a run's equity."""
        self._marked.setdefault(snapshot.run, MarkedEquity()).add(snapshot.at, snapshot.equity)
        self._unstored["marked"].add(snapshot.run)

    def tally(self, build: str) -> ServingTally:
        """Return a build's tally, to count in; it is stored with this turn."""
        found = self._serving.get(build)
        if found is None:
            found = self._serving[build] = ServingTally(self._profile(build).reference)
        self._touch("serving", build)
        return found

    def report(self, models: Sequence[dict[str, Any]]) -> None:
        """Take the newest figures of a serving process, of the models whose have changed."""
        with self._lock:
            for model in models:
                self.tally(model["build"]).report(model)

    def outdate(self, builds: Iterable[str]) -> None:
        """Have the track records of builds made anew from the ledger."""
        for build in builds:
            self.generation += 1
            self._of(build).track = None
            self._touch("track", build)

    @property
    def has_unstored(self) -> bool:
        """Whether anything has changed since stored() was last called."""
        return any(self._unstored.values())

    def unstored(self) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of what has changed since stored() was last called, by table."""
        return {
            "live_tracks": [self._track_row(build) for build in self._unstored["track"]],
            "live_serving": [
                {"build": build, "state": self._serving[build].dump().decode()}
                for build in self._unstored["serving"]
            ],
            "live_quality": [
                {
                    "build": build,
                    "position": kept.position,
                    "state": msgspec.json.encode(kept.quality.dump()).decode(),
                }
                for build, kept in self._quality.items()
                if kept.is_due
            ],
            "live_equity": [
                {"bot": run[0], "run": run[1], **self._marked[run].dump()}
                for run in self._unstored["marked"]
            ],
        }

    def stored(self) -> None:
        """Take note that the rows of unstored() are durable."""
        for each in self._unstored.values():
            each.clear()
        for kept in self._quality.values():
            if kept.is_due:
                kept.unstored, kept.is_stored = 0, True

    # What start-up and the jobs call.

    def load(self, table: str, row: dict[str, Any]) -> None:
        """Take what unstored() gave away."""
        if table == "accounts":
            self._capital[row["bot"], row["account"]] = row["starting_equity"]
        elif table == "live_tracks":
            self._load_track(row)
        elif table == "live_serving":
            reference = self._profile(row["build"]).reference
            self._serving[row["build"]] = ServingTally.load(row["state"], reference)
        elif table == "live_quality":
            quality = Quality.load(msgspec.json.decode(row["state"]))
            self._quality[row["build"]] = _Quality(quality, row["position"], is_stored=True)
        elif table == "live_equity":
            self._marked[row["bot"], row["run"]] = MarkedEquity.load(row)

    def clear(self) -> None:
        """Forget everything, to be loaded anew from the ledger; the jobs' list stays."""
        with self._lock:
            self.generation += 1
            for each in (self._capital, self._trading, self._serving, self._quality, self._marked):
                each.clear()
            for kind in self._unstored.values():
                kind.clear()

    def quality_positions(self) -> dict[str, int]:
        """Return how far the quality of each build is loaded."""
        return {build: kept.position for build, kept in self._quality.items()}

    def take_changed(self) -> set[str]:
        """Return the builds that changed since the last call."""
        with self._lock:
            changed, self._changed = self._changed, set()
            return changed

    def mark_changed(self, builds: Iterable[str]) -> None:
        """Have builds written again, because writing them failed."""
        with self._lock:
            self._changed.update(builds)

    def outdated(self) -> list[str]:
        """Return the builds whose track record is to be made anew."""
        with self._lock:
            return [build for build, each in self._trading.items() if each.track is None]

    def outdated_runs(self) -> list[Run]:
        """Return the runs whose marked equity is to be made anew."""
        with self._lock:
            return [run for run, each in self._marked.items() if each.is_outdated]

    def renew(self, build: str, track: TrackRecord, *, position: int, generation: int) -> bool:
        """Put a track record of everything up to a position in place; return whether it holds.

        It was begun at a `generation`. What has come since is applied to it; where that comes
        too late again, the record in place stays outdated.
        """
        with self._lock:
            trading = self._of(build)
            if generation != self.generation:
                return False
            newer = [change for change in trading.since if change.position > position]
            if trading.track is not None or not all(_applied(track, change) for change in newer):
                return trading.track is not None
            trading.track, trading.since = track, []
            self._touch("track", build)
            return True

    def renew_marked(self, run: Run, marked: MarkedEquity) -> None:
        """Put a run's marked equity in place, unless snapshots have come since it was made."""
        with self._lock:
            present = self._marked[run]
            if present.snapshots == -marked.snapshots:
                self._marked[run] = marked
                self._unstored["marked"].add(run)

    def start_over(self, build: str) -> TrackRecord:
        """Return an empty track record of a build, to be filled and given to renew()."""
        return TrackRecord(self._profile(build).calendar, self.capital)

    def builds(self) -> list[str]:
        """Return the builds of which anything is known."""
        with self._lock:
            return sorted({*self._trading, *self._serving, *self._quality})

    def block(self, build: str, *, as_of: int) -> dict[str, Any] | None:
        """Return the live figures of a build at `as_of` (ms since the epoch).

        None while its track record is being made anew.
        """
        with self._lock:
            trading = self._trading.get(build)
            track = self.start_over(build) if trading is None else trading.track
            if track is None:
                return None
            block = track.figures(as_of=as_of)
            if not track.n_trades:
                block["starting_equity"] = block["equity"] = self._default_capital
            kept, tally = self._quality.get(build), self._serving.get(build)
            return block | {
                "quality": (Quality() if kept is None else kept.quality).figures(),
                "inputs": {} if tally is None else tally.inputs(),
                "serving": _serving_block(tally, trading),
            }

    def latency(self, build: str) -> LatencyHistogram:
        """Return the latencies of a build, over all processes that served it."""
        with self._lock:
            tally = self._serving.get(build)
            return LatencyHistogram() if tally is None else tally.latency

    def tallies(self) -> dict[str, ServedFigures]:
        """Return what every build has answered."""
        with self._lock:
            return {
                build: ServedFigures(tally.answered, tally.errors, tally.latency, tally.served)
                for build, tally in self._serving.items()
            }

    def marked_drawdown(self, runs: Iterable[Run]) -> float | None:
        """Return the largest drawdown that runs have marked, None where none has."""
        with self._lock:
            found = [self._marked[run] for run in runs if run in self._marked]
            return max((each.drawdown for each in found if not each.is_outdated), default=None)

    def _of(self, build: str) -> _Trading:
        found = self._trading.get(build)
        if found is None:
            found = self._trading[build] = _Trading(self.start_over(build))
        return found

    def _touch(self, kind: str, build: str) -> None:
        self._unstored[kind].add(build)
        self._changed.add(build)

    def _track_row(self, build: str) -> dict[str, Any]:
        trading = self._trading[build]
        track = None
        if trading.track is not None:
            track = msgspec.json.encode(trading.track.dump()).decode()
        return {"build": build, "track": track, "answers": trading.answers_as_json()}

    def _load_track(self, row: dict[str, Any]) -> None:
        build, track = row["build"], None
        if row["track"] is not None:
            track = TrackRecord.load(msgspec.json.decode(row["track"]), self.capital)
            if track.calendar != self._profile(build).calendar:
                track = None
        trading = self._trading[build] = _Trading(track)
        trading.load_answers(row["answers"])
        if track is None:
            self._changed.add(build)


def _applied(track: TrackRecord, change: Change) -> bool:
    """Apply a change to a track record; return whether that was possible."""
    if change.before is not None and not track.discard(change.before):
        return False
    return change.after is None or track.add(change.after)


def _serving_block(tally: ServingTally | None, trading: _Trading | None) -> dict[str, Any]:
    """Return what a build has answered, and what became of it; times in µs, lags in ms."""
    predictions = 0 if tally is None else tally.predictions
    answers = 0 if trading is None else trading.answers
    lag = LatencyHistogram() if trading is None else trading.lag
    return {
        "predictions": predictions,
        "predictions_without_outcome": max(0, predictions - answers),
        "outcome_lag": {
            "count": lag.count,
            "p50_ms": lag.percentile_us(0.5),
            "p99_ms": lag.percentile_us(0.99),
            "max_ms": lag.percentile_us(1.0),
        },
        "errors": {} if tally is None else tally.errors,
        "latency": (LatencyHistogram() if tally is None else tally.latency).summary(),
    }
