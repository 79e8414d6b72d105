"""Turns one request into one reply; touches neither sockets nor disks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import msgspec

from tickserve_client.codec import OPENING_BRACE, is_json, milliseconds, peek
from tickserve_client.errors import ProtocolError
from tickserve_client.messages import (
    PROTOCOL_VERSION,
    Describe,
    Description,
    Error,
    Message,
    ModelList,
    Models,
    Ping,
    Pong,
    Predict,
    PredictRequest,
)
from tickserve_server.access.gate import require_operation
from tickserve_server.access.grant import NOBODY, Grant
from tickserve_server.halting import StandingHalts
from tickserve_server.serving.answer import Answer, Job, Refused
from tickserve_server.serving.diagnosis import UNREADABLE, diagnose
from tickserve_server.serving.model import LiveModel
from tickserve_server.serving.parts import Parts
from tickserve_server.serving.predictor import (
    NANOSECONDS_IN_MS,
    Predictor,
    Task,
    refusal_of,
    require_bounded,
    require_granted,
    rows_asked,
)
from tickserve_server.serving.refusal import Refusal
from tickserve_server.serving.table import ModelTable
from tickserve_server.settings import ServingSettings

BODY_FRAMES = 2
ON_LOOP_BYTES = 32 * 1024
"""A longer message is not even decoded on the loop."""

Body = Sequence[bytes]


class Responder:
    """Answers the predict endpoint from `table`, which a reload replaces as one reference.

    `asking` is the model whose row was asked last. `parts` runs large batches, `halts` says
    what may not be answered, `welcome` builds the reply to `hello`.
    """

    def __init__(
        self,
        limits: ServingSettings,
        *,
        parts: Parts,
        halts: StandingHalts,
        welcome: Callable[[str | int | None], Message],
    ) -> None:
        self.table = ModelTable()
        self.ready = False
        self.asking: LiveModel | None = None
        self._limits = limits
        self._welcome = welcome
        self._predictor = Predictor(parts, halts)
        self._to_json = msgspec.json.Encoder().encode
        self._to_msgpack = msgspec.msgpack.Encoder().encode
        self._from_json = msgspec.json.Decoder(PredictRequest).decode
        self._from_msgpack = msgspec.msgpack.Decoder(PredictRequest).decode

    def respond(self, body: Body, grant: Grant | None = None) -> Answer | Job:
        """Answer a request's body frames, or return it as a job; never raises.

        One row by name for one model, which is what bots ask most, takes the short way. `grant`
        is what the sender's key allows, None where no keys are asked for.
        """
        started = time.perf_counter_ns()
        request: PredictRequest | None = None
        model: LiveModel | None = None
        try:
            if grant is NOBODY:
                require_operation(grant, "predict")
            if len(body) != 1 or len(body[0]) > ON_LOOP_BYTES:
                return self._unusual(body, started, grant)
            as_json = body[0][:1] == OPENING_BRACE
            request = (self._from_json if as_json else self._from_msgpack)(body[0])
            if type(request) is not Predict:
                return self._informed(request, grant, as_json=as_json)
            features, name = request.features, request.model
            if type(features) is not dict or name is None or request.models is not None:
                return self._job_or_answer(body, request, started, grant)
            model = self.table.find(name)
            if grant is not None:
                require_granted(grant, model)
            if request.v != PROTOCOL_VERSION or request.deadline_ms is not None:
                self._task(request, None, started)
            self.asking = model
            served = self._predictor.row(request, features, model, started)
            if served is None:
                return self._job_or_answer(body, request, started, grant)
            encode = self._to_json if as_json else self._to_msgpack
            return Answer([encode(served.reply)], (served,))
        except Exception as error:  # noqa: BLE001 - whatever fails, the bot gets an answer
            return self._failed(error, body, request=request, model=model)

    def _unusual(self, body: Body, started: int, grant: Grant | None) -> Answer | Job:
        """Answer a request with a tensor frame, or one too long to be decoded on the loop."""
        self._require_limits(body)
        if len(body[0]) > ON_LOOP_BYTES:
            return self._job(body, None, started, grant)
        request = self._decoded(body[0])
        if not isinstance(request, Predict):
            raise Refusal("malformed", "a tensor frame belongs to `predict` alone")
        return self._job_or_answer(body, request, started, grant)

    def _job_or_answer(
        self, body: Body, request: Predict, started: int, grant: Grant | None
    ) -> Answer | Job:
        rows = rows_asked(request, body[1] if len(body) == BODY_FRAMES else None)
        if rows > self._limits.rows_on_loop or self.table.is_slow(request):
            return self._job(body, request, started, grant)
        return self._answer(body, request, started, None, grant)

    def _job(self, body: Body, request: Predict | None, started: int, grant: Grant | None) -> Job:
        received_ms = time.time_ns() // NANOSECONDS_IN_MS
        return Job(
            run=partial(self._answer, body, request, started, received_ms, grant),
            decline=partial(self._failed, body=body, request=request, model=None),
        )

    def _answer(
        self,
        body: Body,
        request: PredictRequest | None,
        started: int,
        received_ms: int | None,
        grant: Grant | None,
    ) -> Answer:
        """Answer any request, on any thread; never raises."""
        try:
            as_json = is_json(body[0])
            request = self._decoded(body[0]) if request is None else request
            if not isinstance(request, Predict):
                return self._informed(request, grant, as_json=as_json)
            frame = body[1] if len(body) == BODY_FRAMES else None
            require_bounded(request, frame, self._limits)
            task = self._task(request, frame, started, received_ms, grant)
            reply, tensor, served, refused = self._predictor.general(task)
            frames = [self._encode(reply, as_json=as_json)]
            return Answer(frames if tensor is None else [*frames, tensor], served, refused)
        except Exception as error:  # noqa: BLE001 - whatever fails, the bot gets an answer
            return self._failed(error, body, request=request, model=None)

    def _encode(self, message: Message, *, as_json: bool) -> bytes:
        return (self._to_json if as_json else self._to_msgpack)(message)

    def _decoded(self, head: bytes) -> PredictRequest:
        request: PredictRequest = (self._from_json if is_json(head) else self._from_msgpack)(head)
        return request

    def _task(
        self,
        request: Predict,
        frame: bytes | None,
        started: int,
        received_ms: int | None = None,
        grant: Grant | None = None,
    ) -> Task:
        """Refuse what is too old or of another protocol; read the bar's time."""
        _require_version(request)
        if request.deadline_ms is not None:
            sent_at = received_ms if request.sent_at is None else milliseconds(request.sent_at)
            _require_in_time(request.deadline_ms, sent_at=sent_at)
        bar_time_ms = None if request.bar_time is None else milliseconds(request.bar_time)
        return Task(request, frame, self.table, bar_time_ms, started, grant)

    def _require_limits(self, body: Body) -> None:
        if not 1 <= len(body) <= BODY_FRAMES:
            raise Refusal(
                "malformed",
                f"a request has one body frame and at most one tensor frame, not {len(body)}",
                frames=len(body),
            )
        limits = (self._limits.max_message_bytes, self._limits.max_tensor_bytes)
        for frame, limit, what in zip(body, limits, ("message", "tensor frame"), strict=False):
            if len(frame) > limit:
                raise Refusal(
                    "too_large",
                    f"the {what} has {len(frame)} bytes, the limit is {limit}",
                    bytes=len(frame),
                    limit=limit,
                )

    def _informed(self, request: PredictRequest, grant: Grant | None, *, as_json: bool) -> Answer:
        _require_version(request)
        return Answer([self._encode(self._information(request, grant), as_json=as_json)])

    def _information(self, request: PredictRequest, grant: Grant | None) -> Message:
        if isinstance(request, Ping):
            now_ms = time.time_ns() // NANOSECONDS_IN_MS
            return Pong(id=request.id, server_time=now_ms, ready=self.ready)
        if isinstance(request, Models):
            cards = [model.card() for model in self._within_reach(grant)]
            return ModelList(id=request.id, models=cards)
        if isinstance(request, Describe):
            model = self.table.find(request.model)
            require_granted(grant, model)
            return Description(id=request.id, metadata=model.document)
        return self._welcome(request.id)

    def _within_reach(self, grant: Grant | None) -> Iterable[LiveModel]:
        models = self.table.models.values()
        if grant is None:
            return models
        return (
            each
            for each in models
            if grant.covers(family=each.entry.family, market=each.entry.market)
        )

    def _failed(
        self,
        error: Exception,
        body: Body,
        *,
        request: PredictRequest | None,
        model: LiveModel | None,
    ) -> Answer:
        """Answer with the typed error that an exception stands for."""
        request_id = request.id if request is not None else peek(body[0])[1] if body else None
        if isinstance(error, UNREADABLE):
            reply = diagnose(str(error), body)
        elif isinstance(error, ProtocolError):
            reply = Error(id=request_id, code="malformed", message=error.reason)
        else:
            reply = refusal_of(error, model).reply(request_id)
        frames = [self._encode(reply, as_json=bool(body) and is_json(body[0]))]
        return Answer(frames, refused=(Refused(reply.code, model),))


def _require_version(request: Message) -> None:
    if request.v != PROTOCOL_VERSION:
        raise Refusal(
            "unsupported_version",
            f"protocol version {request.v} is not spoken here",
            versions=[PROTOCOL_VERSION],
        )


def _require_in_time(deadline_ms: float, *, sent_at: int | None) -> None:
    """Refuse a request that is older than its deadline; without `sent_at` it is new."""
    if sent_at is None:
        return
    age = time.time_ns() // NANOSECONDS_IN_MS - sent_at
    if age > deadline_ms:
        raise Refusal(
            "expired",
            f"the request is {age} ms old, its deadline was {deadline_ms:g} ms",
            age_ms=age,
            limit_ms=deadline_ms,
        )
