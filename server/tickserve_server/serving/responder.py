"""Turns one request into one reply; touches neither sockets nor disks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from tickserve_client.codec import Encoder, is_json, milliseconds, peek, predict_decoder
from tickserve_client.errors import ProtocolError
from tickserve_client.messages import (
    PROTOCOL_VERSION,
    Describe,
    Description,
    Error,
    Hello,
    Message,
    ModelList,
    Models,
    Ping,
    Pong,
    Predict,
    Prediction,
    Predictions,
    PredictRequest,
)

from tickserve_server.serving.contract import Array
from tickserve_server.serving.engine import is_finite
from tickserve_server.serving.identity import PredictionIds
from tickserve_server.serving.model import LiveModel
from tickserve_server.serving.records import Record
from tickserve_server.serving.refusal import Refusal
from tickserve_server.serving.table import ModelTable

OPERATIONS = frozenset({"predict", "hello", "ping", "models", "describe"})
BODY_FRAMES = 2


class Responder:
    """Answers the predict endpoint from `table`, which a reload replaces as one reference.

    `keep` receives a record of every live prediction; `welcome` builds the reply to `hello`.
    """

    def __init__(
        self,
        *,
        keep: Callable[[Record], None],
        welcome: Callable[[str | int | None], Message],
        max_message_bytes: int,
    ) -> None:
        self.table = ModelTable()
        self.ready = False
        self.requests = 0
        self.errors: Counter[str] = Counter()
        self._keep = keep
        self._welcome = welcome
        self._max_message_bytes = max_message_bytes
        self._decoder = predict_decoder()
        self._encoder = Encoder()
        self._ids = PredictionIds()

    def respond(self, body: Sequence[bytes]) -> list[bytes]:
        """Return the reply's body frames for a request's body frames; never raises."""
        started = time.perf_counter_ns()
        self.requests += 1
        as_json = bool(body) and is_json(body[0])
        request_id: str | int | None = None
        try:
            request = self._read(body)
            request_id = request.id
            if isinstance(request, Predict):
                frame = body[1] if len(body) == BODY_FRAMES else None
                reply, answer = self._predict(request, frame, started)
                encoded = self._encoder.encode(reply, as_json=as_json)
                return [encoded] if answer is None else [encoded, answer]
            reply = self._inform(request)
        except Refusal as refusal:
            reply = self._count(refusal.reply(request_id))
        except ProtocolError as error:
            reply = self._count(_unreadable(error, body))
        except Exception as error:  # noqa: BLE001 - whatever fails, the bot gets an answer
            reply = self._count(
                Error(id=request_id, code="internal", message=f"{type(error).__name__}: {error}")
            )
        return [self._encoder.encode(reply, as_json=as_json)]

    def _read(self, body: Sequence[bytes]) -> PredictRequest:
        if not 1 <= len(body) <= BODY_FRAMES:
            raise Refusal(
                "malformed",
                f"a request has one body frame and at most one tensor frame, not {len(body)}",
                frames=len(body),
            )
        if len(body[0]) > self._max_message_bytes:
            raise Refusal(
                "too_large",
                f"the message has {len(body[0])} bytes, the limit is {self._max_message_bytes}",
                bytes=len(body[0]),
                limit=self._max_message_bytes,
            )
        request, _ = self._decoder.decode(body[0])
        if request.v != PROTOCOL_VERSION:
            raise _numbered(
                request.id,
                Refusal(
                    "unsupported_version",
                    f"protocol version {request.v} is not spoken here",
                    versions=[PROTOCOL_VERSION],
                ),
            )
        return request

    def _predict(
        self, request: Predict, frame: bytes | None, started: int
    ) -> tuple[Message, bytes | None]:
        now_ms = time.time_ns() // 1_000_000
        bar_time = None if request.bar_time is None else milliseconds(request.bar_time)
        if request.deadline_ms is not None and request.sent_at is not None:
            _require_in_time(request, now_ms)
        if request.models is None:
            if request.model is None:
                raise Refusal("malformed", "name a `model`, or several in `models`")
            return self._one(request.model, request, frame, bar_time, now_ms, started)
        replies: list[Prediction | Error] = []
        for name in request.models:
            try:
                reply, _ = self._one(name, request, frame, bar_time, now_ms, started)
                replies.append(reply)
            except Refusal as refusal:
                replies.append(self._count(refusal.reply(request.id)))
        return Predictions(id=request.id, predictions=replies), None

    def _one(
        self,
        name: str,
        request: Predict,
        frame: bytes | None,
        bar_time: int | None,
        now_ms: int,
        started: int,
    ) -> tuple[Prediction, bytes | None]:
        model = self.table.find(name)
        try:
            output, outputs, inputs, rows = self._run(model, request, frame)
        except Refusal as refusal:
            model.errors[refusal.code] += 1
            raise
        model.predictions += rows
        action = _actions(model, output, single=frame is None and isinstance(output, float))
        duration = time.perf_counter_ns() - started
        model.latency.add(duration)
        server_us = duration // 1000
        prediction_id = None
        if request.log:
            prediction_id = self._ids.next(now_ms)
            self._keep(
                Record(
                    prediction_id,
                    model.build,
                    model.digest,
                    now_ms,
                    bar_time,
                    server_us,
                    rows,
                    outputs,
                    action,
                    inputs,
                )
            )
        as_tensor = frame is not None and request.models is None
        return Prediction(
            id=request.id,
            prediction_id=prediction_id,
            model_id=model.model_id,
            build=model.build,
            digest=model.digest,
            output=None if as_tensor else output,
            tensor=[rows, model.engine.outputs] if as_tensor else None,
            action=action,
            bar_time=request.bar_time,
            served_at=now_ms,
            server_us=server_us,
        ), (outputs if as_tensor else None)

    def _run(
        self, model: LiveModel, request: Predict, frame: bytes | None
    ) -> tuple[Any, bytes, bytes, int]:
        """Run the model; return output for the message, raw outputs, raw inputs, rows."""
        engine, contract, features = model.engine, model.contract, request.features
        if frame is not None or request.tensor is not None:
            if frame is None or request.tensor is None:
                raise Refusal("malformed", "`tensor` states the shape of a second body frame")
            batch, single = contract.tensor(frame, request.tensor), False
        elif features is None:
            raise Refusal("malformed", "a prediction needs `features`, or a tensor frame")
        elif isinstance(features, dict) and not contract.window:
            contract.write_row(features, engine.row_bytes)
            output = engine.run_row()
            if not is_finite(output):
                raise _non_finite(model)
            return output, engine.answer_bytes(), engine.row_bytes.tobytes(), 1
        else:
            batch, single = contract.batch(features)
        return _run_batch(model, batch, single=single)

    def _inform(self, request: PredictRequest) -> Message:
        if isinstance(request, Ping):
            now_ms = time.time_ns() // 1_000_000
            return Pong(id=request.id, server_time=now_ms, ready=self.ready)
        if isinstance(request, Hello):
            return self._welcome(request.id)
        if isinstance(request, Models):
            models = self.table.models.values()
            return ModelList(id=request.id, models=[model.card() for model in models])
        assert isinstance(request, Describe)  # noqa: S101 - the decoder's union ends here
        return Description(id=request.id, metadata=self.table.find(request.model).document)

    def _count(self, error: Error) -> Error:
        self.errors[error.code] += 1
        return error


def _run_batch(model: LiveModel, batch: Array, *, single: bool) -> tuple[Any, bytes, bytes, int]:
    answer = model.engine.run(batch)
    output: Any = answer[:, 0].tolist() if model.engine.outputs == 1 else answer.tolist()
    if not is_finite(float(answer.sum())):
        raise _non_finite(model)
    return output[0] if single else output, answer.tobytes(), batch.tobytes(), len(batch)


def _actions(model: LiveModel, output: Any, *, single: bool) -> Any:
    if model.engine.outputs != 1:
        return None
    if single:
        return model.action(output)
    outputs = output if isinstance(output, list) else [output]
    actions = [model.action(value) for value in outputs]
    return None if actions[0] is None else actions if isinstance(output, list) else actions[0]


def _require_in_time(request: Predict, now_ms: int) -> None:
    assert request.sent_at is not None  # noqa: S101 - the caller has looked
    assert request.deadline_ms is not None  # noqa: S101 - the caller has looked
    age = now_ms - milliseconds(request.sent_at)
    if age > request.deadline_ms:
        raise Refusal(
            "expired",
            f"the request is {age} ms old, its deadline was {request.deadline_ms:g} ms",
            age_ms=age,
            limit_ms=request.deadline_ms,
        )


def _non_finite(model: LiveModel) -> Refusal:
    return Refusal("internal", f"{model.build} put out a number that is not finite")


def _numbered(request_id: str | int | None, refusal: Refusal) -> ProtocolError:
    """Carry a refusal found before the request's id could be kept."""
    error = ProtocolError(refusal.message, request_id=None)
    error.__cause__ = refusal
    error.request_id = request_id  # type: ignore[assignment]
    return error


def _unreadable(error: ProtocolError, body: Sequence[bytes]) -> Error:
    cause = error.__cause__
    if isinstance(cause, Refusal):
        return cause.reply(error.request_id)
    op, request_id = peek(body[0]) if body else (None, None)
    if op is not None and op not in OPERATIONS:
        return Error(
            id=request_id,
            code="unknown_op",
            message=f"no operation is called {op!r}",
            details={"op": op, "known": sorted(OPERATIONS)},
        )
    details = {"features": wrong} if body and (wrong := _not_numbers(body[0])) else {}
    reason = f"{error.reason} ({', '.join(wrong)})" if details else error.reason
    return Error(id=request_id, code="malformed", message=reason, details=details)


def _not_numbers(body: bytes) -> list[str]:
    """Name the features of an unreadable request whose value is no number."""
    try:
        document = msgspec.json.decode(body) if is_json(body) else msgspec.msgpack.decode(body)
        features = document["features"].items()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError, LookupError):
        return []
    except AttributeError:
        return []
    return [
        str(name)
        for name, value in features
        if isinstance(value, bool) or not isinstance(value, int | float | None)
    ]
