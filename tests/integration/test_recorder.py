"""Feedback over real sockets: durable acks, write-back while running and at the end, kills."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from benchmarks.daemon import Service, model_info, train
from tickserve_client import ClientError
from tickserve_registry.model_registry import ModelRegistry

ROW = {f"f{index}": 0.25 * index for index in range(5)}
FAMILY = "eurusd_1h_xgb_bench"
MONDAY = 1_742_860_800_000
HOUR = 3_600_000
PATIENCE_S = 15.0


@pytest.fixture
def service(tmp_path: Path, ledger_url: str) -> Iterator[Service]:
    """A daemon with one production model that writes back every half second."""
    made = Service(tmp_path, writeback_seconds=0.5, settings={"LEDGER__URL": ledger_url})
    registry = ModelRegistry(made.storage)
    registry.save_model(train(trees=10), model_info(), environment="production")
    with made:
        yield made


def build_of(service: Service) -> str:
    """The one production build."""
    (entry,) = ModelRegistry(service.storage).production()
    return entry.build


def live(service: Service) -> dict[str, Any]:
    """`performance.live` in the metadata file, as it is on disk now."""
    document = ModelRegistry(service.storage).metadata(FAMILY).document
    block: dict[str, Any] = document.get("performance", {}).get("live", {})
    return block


def await_trades(service: Service, count: int) -> dict[str, Any]:
    """Wait until the metadata tells of that many trades."""
    deadline = time.monotonic() + PATIENCE_S
    while live(service).get("n_trades") != count and time.monotonic() < deadline:
        time.sleep(0.05)
    return live(service)


def feedback(service: Service, *messages: dict[str, Any] | bytes) -> list[dict[str, Any]]:
    """Send messages to the feedback endpoint as JSON, one after the other; return the replies."""
    replies = []
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.rcvtimeo = 5_000
        socket.connect(service.endpoints.feedback)
        for message in messages:
            socket.send(message if isinstance(message, bytes) else json.dumps(message).encode())
            body = socket.recv()
            codec = msgspec.json if body[:1] == b"{" else msgspec.msgpack
            replies.append(codec.decode(body))
    return replies


def outcome(service: Service, trade: str = "1", **fields: object) -> dict[str, Any]:
    """A final closed trade with the given fields replaced."""
    return {
        "op": "outcome",
        "id": trade,
        "bot": "hand",
        "run": "r1",
        "trade": trade,
        "seq": 1,
        "status": "closed",
        "final": True,
        "build": build_of(service),
        "side": "long",
        "qty": 1000,
        "pnl": 12.5,
        "currency": "USD",
        "opened_at": MONDAY,
        "closed_at": MONDAY + HOUR,
        **fields,
    }


def test_an_outcome_sent_by_hand_reaches_the_metadata(service: Service) -> None:
    """Within the write-back period while the daemon runs, and once more at SIGTERM."""
    (ack,) = feedback(service, outcome(service))
    assert (ack["status"], ack["id"]) == ("recorded", "1")
    block = await_trades(service, 1)
    assert (block["n_trades"], block["net_pnl"], block["win_rate"]) == (1, 12.5, 1.0)
    assert block["profit_factor_status"] == "no_losses"
    assert block["comparable"] is False
    assert [each["n_trades"] for each in block["history"]] == [1]
    (ack,) = feedback(service, outcome(service, "2", pnl=-2.5, closed_at=MONDAY + 2 * HOUR))
    assert ack["status"] == "recorded"
    assert service.stop() == 0
    assert (live(service)["n_trades"], live(service)["profit_factor"]) == (2, 5.0)


def test_each_item_gets_the_status_that_the_protocol_defines(service: Service) -> None:
    """Counted once; conflicts change nothing; orphans wait; what cannot be true is refused."""
    hello = {"op": "hello", "bot": "hand", "run": "r1", "currency": "USD", "starting_equity": 1e4}
    first = outcome(service)
    late = int(time.time() * 1000) + 10 * HOUR
    cases: list[tuple[dict[str, Any], str]] = [
        (hello, "recorded"),
        (hello, "duplicate"),
        (first, "recorded"),
        (first, "duplicate"),
        ({**first, "id": "again"}, "duplicate"),
        ({**first, "pnl": 99.0}, "conflict"),
        ({**first, "seq": 2, "pnl": 20.0}, "recorded"),
        ({**first, "seq": 1}, "duplicate"),
        (outcome(service, "o", build=None, prediction_id="0-unknown"), "parked"),
        (outcome(service, "o", build=None, prediction_id="0-unknown"), "parked"),
        (outcome(service, "n", build=None), "invalid"),
        (outcome(service, "n", build="eurusd_1h_xgb_other_v1_20250101"), "invalid"),
        (outcome(service, "n", closed_at=MONDAY - HOUR), "invalid"),
        (outcome(service, "n", closed_at=late), "invalid"),
        (outcome(service, "n", closed_at="2025-03-25T14:30:00"), "invalid"),
        (outcome(service, "n", currency="EUR"), "invalid"),
        (outcome(service, "n", pnl=None), "invalid"),
        ({"op": "label", "prediction_id": "p", "value": 1, "at": MONDAY}, "parked"),
        ({"op": "label", "prediction_id": "p", "value": 0, "at": MONDAY}, "conflict"),
        ({"op": "equity", "bot": "hand", "run": "r1", "at": MONDAY, "equity": 9e3}, "recorded"),
    ]
    replies = feedback(service, *(message for message, _ in cases))
    assert [reply["status"] for reply in replies] == [status for _, status in cases]
    assert all("reason" in r["details"] for r in replies if r["status"] in {"invalid", "conflict"})
    batch = {"op": "batch", "items": [first, {**first, "seq": 2, "pnl": 20.0}]}
    (ack,) = feedback(service, batch)
    assert [item["status"] for item in ack["results"]] == ["duplicate", "duplicate"]
    block = await_trades(service, 1)
    assert block["net_pnl"] == 20.0


def test_malformed_feedback_is_answered_and_the_recorder_goes_on(service: Service) -> None:
    """Broken bytes get a typed error each; the next outcome is stored."""
    junk: list[bytes] = [b"{", b"\xc1", b"x", b'{"op":"outcome"}', b'{"op":"buy"}']
    replies = feedback(service, *junk, outcome(service))
    assert [reply.get("code") for reply in replies[:-1]] == ["malformed"] * len(junk)
    assert replies[-1]["status"] == "recorded"


def test_a_prediction_is_joined_to_its_parked_outcome(service: Service) -> None:
    """An outcome that names only its prediction counts for the build that predicted."""
    with service.client(bot="joiner") as client:
        prediction = client.predict(FAMILY, ROW)
        ack = client.report(
            trade="1",
            prediction_id=prediction.prediction_id,
            pnl=3.0,
            opened_at=MONDAY,
            closed_at=MONDAY + HOUR,
        )
        assert ack.status in {"recorded", "parked"}
    assert await_trades(service, 1)["net_pnl"] == 3.0
    assert live(service)["serving"]["predictions"] == 1


def test_acknowledged_outcomes_survive_kills_of_the_recorder(service: Service) -> None:
    """Under random SIGKILL every acknowledged outcome counts once and the sums agree."""
    acknowledged: dict[str, float] = {}
    stop = threading.Event()

    def report() -> None:
        pnl = random.Random(5)  # noqa: S311 - amounts, no secrets
        with service.client(bot="busy", timeout=1.0) as client:
            number = 0
            while not stop.is_set():
                number += 1
                amount = pnl.uniform(-10, 10)
                for _ in range(100):
                    with contextlib.suppress(ClientError):
                        client.report(
                            trade=str(number),
                            build=build,
                            pnl=amount,
                            opened_at=MONDAY,
                            closed_at=MONDAY + number * 60_000,
                            timeout=0.5,
                        )
                        acknowledged[str(number)] = amount
                        break

    build = build_of(service)
    thread = threading.Thread(target=report)
    thread.start()
    for _ in range(5):
        time.sleep(0.7)
        with contextlib.suppress(ProcessLookupError):
            os.kill(service.child("recorder"), signal.SIGKILL)
    time.sleep(1.5)
    stop.set()
    thread.join()
    assert len(acknowledged) > 20
    assert service.log.read_text().count("child_restarted") == 5
    assert service.stop() == 0
    block = live(service)
    assert block["n_trades"] == len(acknowledged)
    assert block["net_pnl"] == pytest.approx(sum(acknowledged.values()), abs=1e-9)


def test_events_tell_of_promotions_metrics_and_life(service: Service) -> None:
    """A subscriber sees numbered messages without a gap: heartbeat, metrics and model changes."""
    seen: dict[str, dict[str, Any]] = {}
    sequence: list[int] = []
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.linger = 0
        socket.rcvtimeo = 5_000
        socket.subscribe(b"")
        socket.connect(service.endpoints.events)

        def receive() -> None:
            topic, body = socket.recv_multipart()
            seen[topic.decode()] = json.loads(body)
            sequence.append(seen[topic.decode()]["seq"])

        def told() -> bool:
            states = [seen.get(topic, {}).get("state") for topic in (v1, v2)]
            return states == ["unloaded", "serving"] and {"heartbeat", metrics} <= seen.keys()

        receive()
        feedback(service, outcome(service))
        registry = ModelRegistry(service.storage)
        registry.save_model(train(seed=3, trees=10), model_info(version=2))
        v1, v2 = (f"model.{entry.build}" for entry in registry.entries())
        metrics = f"metrics.{FAMILY}_v1"
        registry.promote_model(f"{FAMILY}_v2")
        deadline = time.monotonic() + PATIENCE_S
        while not told() and time.monotonic() < deadline:
            receive()
        assert told(), seen
    assert sequence == list(range(sequence[0], sequence[0] + len(sequence)))
    assert seen[metrics]["n_trades"] == 1
