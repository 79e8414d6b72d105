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
NANOSECONDS_IN_MS = 1_000_000


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
        request: PredictRequest | None = None
        reply: Message
        try:
            request = self._read(body)
            if isinstance(request, Predict):
                frame = body[1] if len(body) == BODY_FRAMES else None
                reply, answer = self._predict(request, frame, started)
                encoded = self._encoder.encode(reply, as_json=as_json)
                return [encoded] if answer is None else [encoded, answer]
            reply = self._inform(request)
        except Refusal as refusal:
            reply = self._count(refusal.reply(_request_id(request, body)))
        except ProtocolError as error:
            reply = self._count(_unreadable(error, body))
        except Exception as error:  # noqa: BLE001 - whatever fails, the bot gets an answer
            reply = self._count(
                Error(
                    id=_request_id(request, body),
                    code="internal",
                    message=f"{type(error).__name__}: {error}",
                )
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
            raise Refusal(
                "unsupported_version",
                f"protocol version {request.v} is not spoken here",
                versions=[PROTOCOL_VERSION],
            )
        return request

    def _predict(
        self, request: Predict, frame: bytes | None, started: int
    ) -> tuple[Message, bytes | None]:
        if request.deadline_ms is not None and request.sent_at is not None:
            _require_in_time(request.deadline_ms, sent_at=milliseconds(request.sent_at))
        if request.models is None:
            if request.model is None:
                raise Refusal("malformed", "name a `model`, or several in `models`")
            return self._one(request.model, request, frame, started)
        replies: list[Prediction | Error] = []
        for name in request.models:
            try:
                reply, _ = self._one(name, request, frame, started)
                replies.append(reply)
            except Refusal as refusal:
                replies.append(self._count(refusal.reply(request.id)))
        return Predictions(id=request.id, predictions=replies), None

    def _one(
        self, name: str, request: Predict, frame: bytes | None, started: int
    ) -> tuple[Prediction, bytes | None]:
        """Answer for one model; the second value is the tensor frame of the reply, if any."""
        bar_time = None if request.bar_time is None else milliseconds(request.bar_time)
        model = self.table.find(name)
        try:
            output, outputs, inputs, rows = self._run(model, request, frame)
        except Refusal as refusal:
            model.errors[refusal.code] += 1
            raise
        action = model.actions(output)
        duration = time.perf_counter_ns() - started
        served_at = time.time_ns() // NANOSECONDS_IN_MS
        server_us = duration // 1000
        model.predictions += rows
        model.latency.add(duration)
        prediction_id = None
        if request.log:
            prediction_id = self._ids.next(served_at)
            self._keep(
                Record(
                    prediction_id=prediction_id,
                    build=model.build,
                    digest=model.digest,
                    served_at_ms=served_at,
                    bar_time_ms=bar_time,
                    server_us=server_us,
                    rows=rows,
                    outputs=outputs,
                    action=action,
                    inputs=inputs,
                )
            )
        as_tensor = frame is not None and request.models is None
        reply = Prediction(
            id=request.id,
            prediction_id=prediction_id,
            model_id=model.model_id,
            build=model.build,
            digest=model.digest,
            output=None if as_tensor else output,
            tensor=[rows, model.engine.outputs] if as_tensor else None,
            action=action,
            bar_time=request.bar_time,
            served_at=served_at,
            server_us=server_us,
        )
        return reply, outputs if as_tensor else None

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

    def _inform(self, request: Hello | Ping | Models | Describe) -> Message:
        if isinstance(request, Ping):
            now_ms = time.time_ns() // NANOSECONDS_IN_MS
            return Pong(id=request.id, server_time=now_ms, ready=self.ready)
        if isinstance(request, Hello):
            return self._welcome(request.id)
        if isinstance(request, Models):
            models = self.table.models.values()
            return ModelList(id=request.id, models=[model.card() for model in models])
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


def _require_in_time(deadline_ms: float, *, sent_at: int) -> None:
    age = time.time_ns() // NANOSECONDS_IN_MS - sent_at
    if age > deadline_ms:
        raise Refusal(
            "expired",
            f"the request is {age} ms old, its deadline was {deadline_ms:g} ms",
            age_ms=age,
            limit_ms=deadline_ms,
        )


def _non_finite(model: LiveModel) -> Refusal:
    return Refusal("internal", f"{model.build} put out a number that is not finite")


def _request_id(request: PredictRequest | None, body: Sequence[bytes]) -> str | int | None:
    """The id to echo, also where the request was refused before it was read whole."""
    if request is not None:
        return request.id
    found: str | int | None = peek(body[0])[1] if body else None
    return found


def _unreadable(error: ProtocolError, body: Sequence[bytes]) -> Error:
    """Say what is wrong with a request that cannot be decoded, as exactly as can be seen."""
    op, request_id = peek(body[0]) if body else (None, None)
    if op is not None and op not in OPERATIONS:
        return Error(
            id=request_id,
            code="unknown_op",
            message=f"no operation is called {op!r}",
            details={"op": op, "known": sorted(OPERATIONS)},
        )
    wrong = _not_numbers(body[0]) if body else []
    message = f"{error.reason} ({', '.join(wrong)})" if wrong else error.reason
    details = {"features": wrong} if wrong else {}
    return Error(id=request_id, code="malformed", message=message, details=details)


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
