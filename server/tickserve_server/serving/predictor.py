"""Predictions of one model, or of several on one snapshot; touches neither sockets nor disks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tickserve_client.codec import milliseconds
from tickserve_client.messages import Error, Message, Predict, Prediction, Predictions
from tickserve_server.access.gate import Unauthorized, require_model, require_operation
from tickserve_server.access.grant import Grant
from tickserve_server.halting import StandingHalts
from tickserve_server.serving.answer import Refused, Served
from tickserve_server.serving.contract import Array
from tickserve_server.serving.identity import PredictionIds
from tickserve_server.serving.model import LiveModel
from tickserve_server.serving.parts import Parts
from tickserve_server.serving.refusal import Refusal
from tickserve_server.serving.table import ModelTable
from tickserve_server.settings import ServingSettings

NANOSECONDS_IN_MS = 1_000_000
A_MODEL_IN_ROWS = 15
"""What one of several models costs beside its rows."""


class Task(NamedTuple):
    """A predict request with what came beside its message.

    `started_ns` is the performance counter when it was taken in; `grant` is what the sender's
    key allows, None where no keys are asked for.
    """

    request: Predict
    frame: bytes | None
    table: ModelTable
    bar_time_ms: int | None
    started_ns: int
    grant: Grant | None = None


class Outcome(NamedTuple):
    """The reply to a predict request, its tensor frame if any, and what is to be counted."""

    reply: Message
    frame: bytes | None
    served: list[Served]
    refused: list[Refused]


class Predictor:
    """Answers predict requests: one row by name at the least cost, everything else in general."""

    def __init__(self, parts: Parts, halts: StandingHalts) -> None:
        self._ids = PredictionIds()
        self._parts = parts
        self._halts = halts

    def row(
        self, request: Predict, features: dict[str, float | None], model: LiveModel, started_ns: int
    ) -> Served | None:
        """Answer one row by name, on the loop's thread alone: it uses the model's one row.

        Returns None where the general way is to be taken; raises Refusal.
        """
        if self._halts.current:
            self._require_running(model)
        ask = model.ask
        if ask is None:
            return None
        bar_time_ms = None
        if request.bar_time is not None:
            bar_time_ms = milliseconds(request.bar_time)
        if model.stale_after_ms is not None:
            _require_fresh(bar_time_ms, model, model.stale_after_ms)
        output = ask(features)
        if output is None:
            raise model.non_finite()
        now_ms = time.time_ns() // NANOSECONDS_IN_MS
        duration = time.perf_counter_ns() - started_ns
        reply = Prediction(
            id=request.id,
            prediction_id=self._ids.next(now_ms) if request.log else None,
            model_id=model.model_id,
            build=model.build,
            digest=model.digest,
            output=output,
            action=model.act(output) if model.acts else None,
            bar_time=request.bar_time,
            served_at=now_ms,
            server_us=duration // 1000,
        )
        return Served(model, reply, duration, 1, bar_time_ms)

    def general(self, task: Task) -> Outcome:
        """Answer rows, windows, tensors and several models, on any thread.

        What one model refuses takes nothing from the others. Raises Refusal where the request
        as a whole makes no sense.
        """
        request = task.request
        names = _names(request)
        known = task.table.features_of(names)
        replies: list[Prediction | Error] = []
        served: list[Served] = []
        refused: list[Refused] = []
        for name in names:
            model = None
            try:
                model = task.table.find(name)
                require_granted(task.grant, model)
                served.append(self._one(task, model, known))
                replies.append(served[-1].reply)
            except Exception as error:  # noqa: BLE001 - whatever an engine raises
                refusal = refusal_of(error, model)
                refused.append(Refused(refusal.code, model))
                replies.append(refusal.reply(request.id))
        if request.models is not None:
            several = Predictions(id=request.id, predictions=replies)
            return Outcome(several, None, served, refused)
        as_tensor = task.frame is not None and bool(served)
        return Outcome(replies[0], served[0].outputs if as_tensor else None, served, refused)

    def _require_running(self, model: LiveModel) -> None:
        """Refuse what somebody has halted, whatever else might be wrong with it."""
        halt = self._halts.of(model.entry)
        if halt is not None:
            raise Refusal(
                "halted",
                f"{model.build} is halted by {halt.by}: {halt.reason}",
                reason=halt.reason,
                by=halt.by,
                at=halt.at,
                halted=halt.model,
            )

    def _one(self, task: Task, model: LiveModel, known: frozenset[str]) -> Served:
        request = task.request
        self._require_running(model)
        model.require_sound()
        if model.stale_after_ms is not None:
            _require_fresh(task.bar_time_ms, model, model.stale_after_ms)
        batch, single = _inputs(task, model, known)
        outputs = model.run(batch, self._parts)
        if not np.isfinite(outputs).all():
            raise model.non_finite()
        rows, width = outputs.shape
        as_tensor = task.frame is not None and request.models is None
        output, action = (None, None) if as_tensor else _listed(model, outputs, single=single)
        now_ms = time.time_ns() // NANOSECONDS_IN_MS
        duration = time.perf_counter_ns() - task.started_ns
        reply = Prediction(
            id=request.id,
            prediction_id=self._ids.next(now_ms) if request.log else None,
            model_id=model.model_id,
            build=model.build,
            digest=model.digest,
            output=output,
            tensor=[rows, width] if as_tensor else None,
            action=action,
            bar_time=request.bar_time,
            served_at=now_ms,
            server_us=duration // 1000,
        )
        inputs = batch.tobytes() if task.frame is None else task.frame
        return Served(model, reply, duration, rows, task.bar_time_ms, inputs, outputs.tobytes())


def _names(request: Predict) -> list[str]:
    """Return the names of the models asked, one or several."""
    if request.models is None and request.model is not None:
        return [request.model]
    if request.models and request.model is None:
        return request.models
    raise Refusal("malformed", "name one `model`, or several in `models`")


def _listed(model: LiveModel, outputs: Array, *, single: bool) -> tuple[Any, Any]:
    """Return outputs and actions as a message holds them: of one row, or a list of each."""
    listed: list[Any] = outputs[:, 0].tolist() if outputs.shape[1] == 1 else outputs.tolist()
    actions = [model.act(output) for output in listed] if model.acts else None
    if single:
        return listed[0], actions and actions[0]
    return listed, actions


def _inputs(task: Task, model: LiveModel, known: frozenset[str]) -> tuple[Array, bool]:
    """Return the inputs [rows, …] for one model, and whether exactly one row was meant."""
    request = task.request
    if task.frame is not None or request.tensor is not None:
        if task.frame is None or request.tensor is None:
            raise Refusal("malformed", "`tensor` states the shape of a second body frame")
        return model.contract.tensor(task.frame, request.tensor), False
    if request.features is None:
        raise Refusal("malformed", "a prediction needs `features`, or a tensor frame")
    return model.contract.batch(request.features, known=known)


def _require_fresh(bar_time_ms: int | None, model: LiveModel, limit_ms: int) -> None:
    if bar_time_ms is None:
        raise Refusal(
            "stale_input",
            f"{model.build} answers on fresh bars only: send `bar_time`",
            limit_ms=limit_ms,
        )
    age = time.time_ns() // NANOSECONDS_IN_MS - bar_time_ms
    if age > limit_ms:
        raise Refusal(
            "stale_input",
            f"the bar is {age} ms old, {model.build} takes bars of at most {limit_ms} ms",
            age_ms=age,
            limit_ms=limit_ms,
        )


def require_granted(grant: Grant | None, model: LiveModel) -> None:
    """Raise Unauthorized where the sender's key does not reach a model."""
    if grant is not None:
        require_operation(grant, "predict")
        require_model(grant, family=model.entry.family, market=model.entry.market)


def refusal_of(error: Exception, model: LiveModel | None) -> Refusal:
    """Return the refusal that answers an exception."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, Unauthorized):
        error.note()
        return Refusal("unauthorized", str(error), **error.details)
    if model is not None:
        return model.failed(error)
    return Refusal("internal", f"{type(error).__name__}: {error}")


def rows_asked(request: Predict, frame: bytes | None) -> int:
    """Return about how many rows a request makes all models run."""
    if frame is not None:
        rows = request.tensor[0] if request.tensor else 0
    elif isinstance(request.features, list) and request.features:
        nested: Sequence[Any] = request.features
        rows = len(nested) if isinstance(nested[0], list | dict) else 1
    else:
        rows = 1
    return rows if request.models is None else (rows + A_MODEL_IN_ROWS) * len(request.models)


def require_bounded(request: Predict, frame: bytes | None, limits: ServingSettings) -> None:
    """Refuse more models, or more rows over all models, than one request may ask; or raise."""
    models = len(request.models or ())
    if models > limits.max_models:
        raise Refusal(
            "too_large",
            f"{models} models in one request; ask at most {limits.max_models}",
            models=models,
            limit=limits.max_models,
        )
    rows = rows_asked(request, frame) - A_MODEL_IN_ROWS * models
    if rows > limits.max_tensor_rows:
        raise Refusal(
            "too_large",
            f"{rows} rows in one request; ask at most {limits.max_tensor_rows} over all models",
            rows=rows,
            limit=limits.max_tensor_rows,
        )
