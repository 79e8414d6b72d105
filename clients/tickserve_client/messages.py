"""Every message of wire protocol 1, as frozen structs whose `op` is the tag."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

PROTOCOL_VERSION = 1

Features = dict[str, float | None] | list[Any]
"""One row by name, one row in the metadata's order, or a list of rows (or of windows of rows)."""

Time = int | str
"""Milliseconds since the epoch (UTC), or RFC 3339 with an offset."""

ErrorCode = Literal[
    "malformed",
    "unsupported_version",
    "unknown_op",
    "unauthorized",
    "unknown_model",
    "not_in_production",
    "not_ready",
    "missing_features",
    "unexpected_features",
    "not_finite",
    "wrong_shape",
    "stale_input",
    "expired",
    "halted",
    "busy",
    "too_large",
    "internal",
]

AckStatus = Literal["recorded", "duplicate", "conflict", "parked", "invalid", "retry"]
TradeStatus = Literal["open", "partial", "closed", "skipped", "cancelled", "expired"]
Side = Literal["long", "short"]
Action = Literal["long", "short", "flat"]


class Message(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op", gc=False
):
    """What all messages share: the protocol version and an id that the reply echoes."""

    v: int = PROTOCOL_VERSION
    id: str | int | None = None


class Predict(Message, tag="predict", frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Ask one model (`model`) or several on one snapshot (`models`) for a prediction."""

    model: str | None = None
    models: list[str] | None = None
    features: Features | None = None
    tensor: list[int] | None = None
    bar_time: Time | None = None
    sent_at: Time | None = None
    deadline_ms: float | None = None
    log: bool = True


class Hello(Message, tag="hello", frozen=True, kw_only=True, omit_defaults=True):
    """On predict: ask for endpoints, limits and server time. On feedback: register a run."""

    bot: str | None = None
    run: str | None = None
    account: str | None = None
    mode: str | None = None
    currency: str | None = None
    starting_equity: float | None = None


class Ping(Message, tag="ping", frozen=True, kw_only=True, omit_defaults=True):
    """Ask whether the serving process answers (the client's heartbeat)."""


class Models(Message, tag="models", frozen=True, kw_only=True, omit_defaults=True):
    """Ask for every production build with its input contract."""


class Describe(Message, tag="describe", frozen=True, kw_only=True, omit_defaults=True):
    """Ask for one model's metadata."""

    model: str


class Status(Message, tag="status", frozen=True, kw_only=True, omit_defaults=True):
    """Ask a process for its own state (admin endpoint only)."""


class Outcome(Message, tag="outcome", frozen=True, kw_only=True, omit_defaults=True):
    """One trade as the bot knows it; (bot, run, trade) is its key, a higher `seq` replaces."""

    bot: str
    run: str
    trade: str
    seq: int
    status: TradeStatus
    final: bool = False
    prediction_id: str | None = None
    build: str | None = None
    side: Side | None = None
    qty: float | None = None
    entry_price: float | None = None
    exit_price: float | None = None
    pnl: float | None = None
    fees: float | None = None
    swap: float | None = None
    currency: str | None = None
    return_: float | None = msgspec.field(default=None, name="return")
    opened_at: Time | None = None
    closed_at: Time | None = None
    exit_reason: str | None = None


class Label(Message, tag="label", frozen=True, kw_only=True, omit_defaults=True):
    """The realised target of a prediction."""

    prediction_id: str
    value: float
    at: Time


class Equity(Message, tag="equity", frozen=True, kw_only=True, omit_defaults=True):
    """A marked-to-market snapshot of one run."""

    bot: str
    run: str
    at: Time
    equity: float
    currency: str | None = None


class Snapshot(Message, tag="snapshot", frozen=True, kw_only=True, omit_defaults=True):
    """Ask for the events' present state, to repair a gap in their sequence."""


class Batch(Message, tag="batch", frozen=True, kw_only=True, omit_defaults=True):
    """Several feedback items, acknowledged together and in order."""

    items: list[Outcome | Label | Equity]


PredictRequest = Predict | Hello | Ping | Models | Describe
FeedbackRequest = Hello | Outcome | Label | Equity | Batch | Snapshot | Ping


class Prediction(
    Message, tag="prediction", frozen=True, kw_only=True, omit_defaults=True, gc=False
):
    """The answer of exactly one build. `output` is a number, or a list per row."""

    model_id: str
    build: str
    digest: str
    prediction_id: str | None = None
    output: Any = None
    tensor: list[int] | None = None
    action: Any = None
    bar_time: Time | None = None
    served_at: int = 0
    server_us: int = 0


class Error(Message, tag="error", frozen=True, kw_only=True, omit_defaults=True):
    """A refusal: `code` for programs, `message` for people, `details` for both."""

    code: ErrorCode
    message: str
    details: dict[str, Any] = {}


class Predictions(Message, tag="predictions", frozen=True, kw_only=True, omit_defaults=True):
    """The answers to a request for several models, in the order asked."""

    predictions: list[Prediction | Error]


class Welcome(Message, tag="welcome", frozen=True, kw_only=True, omit_defaults=True):
    """The daemon's endpoints, limits and clock (milliseconds since the epoch)."""

    server_time: int
    endpoints: dict[str, str]
    versions: list[int]
    limits: dict[str, int]
    server: str


class Pong(Message, tag="pong", frozen=True, kw_only=True, omit_defaults=True):
    """The serving process is alive; `ready` once every golden row has passed."""

    server_time: int
    ready: bool


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """One production build and the contract of its input."""

    build: str
    model_id: str
    family: str
    digest: str
    features: list[str]
    input: dict[str, Any]
    output: dict[str, Any]


class ModelList(Message, tag="models", frozen=True, kw_only=True, omit_defaults=True):
    """Every production build that answers now."""

    models: list[ModelCard]


class Description(Message, tag="description", frozen=True, kw_only=True, omit_defaults=True):
    """One model's metadata, as in its JSON file when it was loaded."""

    metadata: dict[str, Any]


class StatusReport(Message, tag="status", frozen=True, kw_only=True, omit_defaults=True):
    """The state of one process, for `tickserve status`."""

    report: dict[str, Any]


class AckItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fate of one item of a batch."""

    status: AckStatus
    details: dict[str, Any] = {}


class Ack(Message, tag="ack", frozen=True, kw_only=True, omit_defaults=True):
    """Sent after the commit: what became of the feedback; `results` answers a batch."""

    status: AckStatus
    details: dict[str, Any] = {}
    results: list[AckItem] | None = None


Reply = (
    Prediction | Predictions | Error | Welcome | Pong | ModelList | Description | StatusReport | Ack
)
