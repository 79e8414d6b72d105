"""What becomes of each feedback item, and what the figures make of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.recording import BUILD, OTHER, Recorder, outcome
from tickserve_client.messages import Batch, Equity, Hello, Label
from tickserve_server.recorder import schema

MONDAY = 1_742_774_400_000
HOUR = 3_600_000
DAY = 24 * HOUR


def test_a_trade_is_recorded_once_and_replaced_by_a_higher_seq(recorder: Recorder) -> None:
    """Same content is a duplicate, other content a conflict, a lower seq is history."""
    assert recorder.status(outcome(pnl=5.0, seq=2)) == "recorded"
    assert recorder.status(outcome(pnl=5.0, seq=2, id="again")) == "duplicate"
    assert recorder.status(outcome(pnl=6.0, seq=2)) == "conflict"
    assert recorder.status(outcome(pnl=1.0, seq=1)) == "duplicate"
    assert recorder.block()["net_pnl"] == 5.0
    assert recorder.status(outcome(pnl=7.0, seq=9)) == "recorded"
    assert recorder.block()["net_pnl"] == 7.0
    revisions = recorder.reader.rows(schema.outcome_revisions.select())
    assert sorted(row["seq"] for row in revisions) == [1, 2]


def test_items_of_one_turn_see_each_other(recorder: Recorder) -> None:
    """A batch that repeats, contradicts and revises itself is judged in its order."""
    items = [
        outcome(pnl=1.0),
        outcome(pnl=1.0),
        outcome(pnl=2.0),
        outcome(pnl=3.0, seq=2),
        outcome(pnl=3.0, seq=2, status="cancelled"),
        outcome("2", closed_at=MONDAY - 1, opened_at=MONDAY),
    ]
    (ack,) = recorder.tell(Batch(items=[*items]))
    found = [result.status for result in ack.results or []]
    assert found == ["recorded", "duplicate", "conflict", "recorded", "conflict", "invalid"]
    assert (recorder.block()["n_trades"], recorder.block()["net_pnl"]) == (1, 3.0)


def test_a_revision_that_no_longer_counts_leaves_the_figures(recorder: Recorder) -> None:
    """Opened again, cancelled, or attributed to another build."""
    recorder.tell(outcome("1", pnl=5.0), outcome("2", pnl=7.0), outcome("3", pnl=11.0))
    recorder.tell(outcome("1", seq=2, final=False), outcome("2", seq=2, build=OTHER, pnl=7.0))
    assert recorder.block()["net_pnl"] == 11.0
    assert recorder.block(OTHER)["net_pnl"] == 7.0
    recorder.tell(outcome("3", seq=2, status="cancelled"))
    assert recorder.block()["n_trades"] == 0


def test_what_has_no_known_build_waits_for_its_prediction(recorder: Recorder) -> None:
    """Parked, parked again, and joined when the prediction arrives; labels as well."""
    predicted = "01950000-0000-7000-8000-000000000000"
    assert recorder.status(outcome(build=None, prediction_id=predicted)) == "parked"
    assert recorder.status(outcome(build=None, prediction_id=predicted)) == "parked"
    assert recorder.status(Label(prediction_id=predicted, value=1, at=MONDAY)) == "parked"
    assert (recorder.feedback.parked, recorder.reader.parked()["outcomes"]) == (1, 1)
    (found,) = recorder.predict([0.7])
    assert recorder.status(outcome("2", build="gone_1h_x_y_v1_20250101", prediction_id=found)) == (
        "recorded"
    )
    ids = recorder.predict([0.7, 0.2], build=OTHER)
    orphan = outcome("3", build=None, prediction_id=ids[1], pnl=4.0)
    assert recorder.status(orphan) == "recorded"
    assert recorder.block(OTHER)["net_pnl"] == 4.0


def test_a_parked_outcome_is_joined_when_its_prediction_comes(ledger_url: str) -> None:
    """Even if the recorder has been restarted in between, and labels with it."""
    with Recorder(ledger_url) as first:
        ids = first.predict([0.9, 0.1])
        first.ledger.begin()
        table = schema.prediction_parcels
        stored = list(first.ledger.all(table))
        first.ledger.delete(table, [(row["sender"], row["sequence"]) for row in stored])
        first.ledger.commit()
        first.committer.commit([])
    with Recorder(ledger_url) as second:
        late = outcome(build=None, prediction_id=ids[0], pnl=3.0)
        assert second.status(late) == "parked"
        assert second.status(Label(prediction_id=ids[0], value=1, at=MONDAY)) == "parked"
        second.ledger.begin()
        second.ledger.put(table, stored)
        second.ledger.commit()
    with Recorder(ledger_url) as third:
        assert third.feedback.parked == 0
        assert third.block()["net_pnl"] == 3.0
        assert third.block()["quality"]["n"] == 1
        assert third.status(late) == "duplicate"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: outcome(""), "`trade` is missing"),
        (lambda: outcome(bot=""), "`bot` is missing"),
        (lambda: outcome("x" * 10_000), "10000 characters"),
        (lambda: outcome("a\x00b"), "cannot be printed"),
        (lambda: outcome(seq=-1), "counts up from 0"),
        (lambda: outcome(seq=2**63), "fits 63 bits"),
        (lambda: outcome(pnl=float("nan")), "pnl is nan"),
        (lambda: outcome(pnl=float("inf")), "pnl is inf"),
        (lambda: outcome(pnl=1e300), "is the most"),
        (lambda: outcome(return_=float("nan")), "return is nan"),
        (lambda: outcome(pnl=None), "needs pnl"),
        (lambda: outcome(closed_at=None), "needs closed_at"),
        (lambda: outcome(closed_at=MONDAY - 1, opened_at=MONDAY), "before opened_at"),
        (lambda: outcome(closed_at=1_742_774_400, opened_at=None), "not seconds"),
        (lambda: outcome(closed_at=4_000_000_000_000), "in the future"),
        (lambda: outcome(closed_at="2025-03-24T10:00:00"), "naive"),
        (lambda: outcome(closed_at="yesterday"), "RFC 3339"),
        (lambda: outcome(build=None), "prediction_id"),
        (lambda: outcome(build="eurusd_1h_xgb_none_v1_20250101"), "no build is called"),
        (lambda: Hello(bot="b"), "`run` is missing"),
        (lambda: Hello(bot="b", run="r", starting_equity=0.0), "above 0"),
        (lambda: Hello(bot="b", run="r", starting_equity=float("nan")), "is nan"),
        (lambda: Label(prediction_id="p", value=float("nan"), at=MONDAY), "value is nan"),
        (lambda: Label(prediction_id="", value=1, at=MONDAY), "`prediction_id` is missing"),
        (lambda: Equity(bot="b", run="r", at="noon", equity=1.0), "RFC 3339"),
        (lambda: Equity(bot="b", run="r", at=MONDAY, equity=float("inf")), "equity is inf"),
    ],
)
def test_what_cannot_be_true_is_named(
    recorder: Recorder, make: Callable[[], object], words: str
) -> None:
    """Nothing of it is stored, and a good trade in the same turn is."""
    ack, good = recorder.tell(make(), outcome("good"))  # type: ignore[arg-type]
    assert (ack.status, good.status) == ("invalid", "recorded")
    assert words in ack.details["reason"]
    assert recorder.block()["n_trades"] == 1


def test_one_run_has_one_currency(recorder: Recorder) -> None:
    """As registered, or else as its first trade says; currencies are never added up silently."""
    recorder.tell(Hello(bot="b", run="r", currency="EUR"))
    assert recorder.status(outcome(bot="b", run="r", currency="USD")) == "invalid"
    assert recorder.status(outcome(bot="b", run="r", currency=None)) == "recorded"
    assert recorder.status(outcome("1", run="u", currency="USD")) == "recorded"
    assert recorder.status(outcome("2", run="u", currency="EUR")) == "invalid"
    assert recorder.status(Hello(bot="hand", run="u", currency="EUR")) == "invalid"
    block = recorder.block()
    assert (block["currency"], block["currencies"]) == (None, ["EUR", "USD"])


def test_a_run_registers_once(recorder: Recorder) -> None:
    """The same again is a duplicate; another bot under the same name and run is a conflict."""
    hello = Hello(bot="b", run="r", account="demo", currency="USD", starting_equity=5_000.0)
    assert [recorder.status(each) for each in (hello, hello)] == ["recorded", "duplicate"]
    other = Hello(bot="b", run="r", account="demo", currency="USD", starting_equity=9_000.0)
    (ack,) = recorder.tell(other)
    assert ack.status == "conflict"
    assert "starting_equity is known as 5000" in ack.details["reason"]


def test_capital_belongs_to_the_account(recorder: Recorder) -> None:
    """A new run of a known account adds none; the first figure stated counts."""
    recorder.tell(Hello(bot="b", run="r1", starting_equity=5_000.0))
    (ack,) = recorder.tell(Hello(bot="b", run="r2", starting_equity=70_000.0))
    assert ack.details["starting_equity"] == 5_000.0
    recorder.tell(outcome("1", bot="b", run="r1"), outcome("1", bot="b", run="r2"))
    assert recorder.block()["starting_equity"] == 5_000.0
    recorder.tell(Hello(bot="b", run="r3", account="second"), outcome("9", bot="b", run="r3"))
    block = recorder.block()
    assert (block["starting_equity"], block["n_accounts"]) == (15_000.0, 2)


def test_a_registration_after_the_first_trade_counts_from_the_start(recorder: Recorder) -> None:
    """The trades before it move to its account and its capital."""
    recorder.tell(outcome("1", bot="b", run="r", pnl=100.0))
    assert recorder.block()["starting_equity"] == 10_000.0
    recorder.tell(Hello(bot="b", run="r", account="demo", starting_equity=2_000.0))
    recorder.tell(outcome("2", bot="b", run="r", pnl=-50.0))
    block = recorder.block()
    assert (block["starting_equity"], block["n_accounts"]) == (2_000.0, 1)
    assert block["current_drawdown"] == pytest.approx(50 / 2_100)


def test_yesterdays_batch_replayed_changes_nothing(recorder: Recorder) -> None:
    """A thousand trades sent again, in another order, are a thousand duplicates."""
    trades = [outcome(str(n), pnl=n / 10, closed_at=MONDAY + n * 60_000) for n in range(1_000)]
    opened = [outcome(t.trade, pnl=t.pnl, closed_at=t.closed_at, opened_at=MONDAY) for t in trades]
    (ack,) = recorder.tell(Batch(items=[*opened]))
    assert {result.status for result in ack.results or []} == {"recorded"}
    before = recorder.block()
    (ack,) = recorder.tell(Batch(items=[*reversed(opened)]))
    assert {result.status for result in ack.results or []} == {"duplicate"}
    assert recorder.block() == before
    assert before["n_trades"] == 1_000


def test_labels_make_the_quality_of_the_model(recorder: Recorder) -> None:
    """The contract's oracle, through predictions in the ledger, and after a restart."""
    outputs = [0.9, 0.2, 0.7, 0.6, 0.4, 0.55, 0.8, 0.1, 0.45, 0.3]
    labels = [1, 0, 1, 1, 0, 0, 1, 0, 1, 0]
    ids = recorder.predict(outputs)
    told = [Label(prediction_id=i, value=y, at=MONDAY) for i, y in zip(ids, labels, strict=True)]
    assert {ack.status for ack in recorder.tell(*told)} == {"recorded"}
    assert recorder.status(told[0]) == "duplicate"
    assert recorder.status(Label(prediction_id=ids[0], value=0, at=MONDAY)) == "conflict"
    quality = recorder.block()["quality"]
    assert quality["brier"] == pytest.approx(0.1205, abs=1e-7)  # outputs are float32
    assert quality["log_loss"] == pytest.approx(0.3989024662, abs=1e-7)
    assert (quality["auc"], quality["hit_rate"], quality["n"]) == (0.96, 0.8, 10)


def test_equity_snapshots_give_a_drawdown_marked_to_the_market(recorder: Recorder) -> None:
    """Per run, in the order of their times, however they arrive; another value is a conflict."""
    values = [10_000.0, 10_500.0, 9_450.0, 10_100.0]
    snapshots = [
        Equity(bot="hand", run="r1", at=MONDAY + place * HOUR, equity=value)
        for place, value in enumerate(values)
    ]
    recorder.tell(*(snapshots[place] for place in (0, 2, 1, 3)))
    assert recorder.status(snapshots[0]) == "duplicate"
    other = Equity(bot="hand", run="r1", at=MONDAY, equity=1.0)
    assert recorder.status(other) == "conflict"
    recorder.tell(outcome())
    recorder.block()
    assert recorder.book.marked_drawdown([("hand", "r1")]) == pytest.approx(0.1)


def test_predictions_without_outcome_are_counted(recorder: Recorder) -> None:
    """Two trades that follow one prediction leave the others without."""
    ids = recorder.predict([0.1, 0.2, 0.3])
    recorder.tell(outcome("1", prediction_id=ids[0]), outcome("2", prediction_id=ids[0]))
    serving = recorder.block()["serving"]
    assert (serving["predictions"], serving["predictions_without_outcome"]) == (3, 2)
    assert serving["outcome_lag"]["count"] == 1


def test_a_late_trade_makes_the_record_anew(recorder: Recorder) -> None:
    """A trade of a closed day changes what came after it, as if it had been in time."""
    days = [0, 1, 5, 6]
    trades = [outcome(str(d), pnl=100.0 + d, closed_at=MONDAY + d * DAY) for d in days]
    timely = [outcome(t.trade, pnl=t.pnl, closed_at=t.closed_at, opened_at=None) for t in trades]
    late = outcome("late", pnl=-500.0, closed_at=MONDAY + 3 * DAY, opened_at=None)
    recorder.tell(*timely)
    recorder.tell(late)
    assert recorder.book.outdated() == [BUILD]
    found = recorder.block()
    assert recorder.book.outdated() == []
    assert (found["n_days"], found["net_pnl"]) == (7, pytest.approx(-88.0))
    assert found["max_drawdown"] == pytest.approx(500 / (10_000 + 201))


def test_trades_that_come_while_a_record_is_made_anew_are_in_it(recorder: Recorder) -> None:
    """Those of before the reading are not counted twice, those after it are not left out."""
    for day in (0, 2):
        recorder.tell(outcome(str(day), pnl=1.0, closed_at=MONDAY + day * DAY, opened_at=None))
    recorder.tell(outcome("late", pnl=10.0, closed_at=MONDAY + DAY, opened_at=None))
    generation, track = recorder.book.generation, recorder.book.start_over(BUILD)
    recorder.tell(outcome("before", pnl=100.0, closed_at=MONDAY + 3 * DAY, opened_at=None))
    position = recorder.reader.replay(BUILD, track)
    recorder.tell(outcome("after", pnl=1_000.0, closed_at=MONDAY + 4 * DAY, opened_at=None))
    assert recorder.book.block(BUILD, as_of=recorder.now) is None
    assert recorder.book.renew(BUILD, track, position=position, generation=generation)
    assert (recorder.block()["n_trades"], recorder.block()["net_pnl"]) == (5, 1_112.0)
    recorder.book.outdate([BUILD])
    assert not recorder.book.renew(BUILD, track, position=position, generation=generation)
    assert recorder.block()["net_pnl"] == 1_112.0
