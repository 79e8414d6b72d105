"""Counts what was answered and hands on its record, after the reply has been sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from tickserve_client.messages import ErrorCode
from tickserve_server.parcel import Record
from tickserve_server.serving.answer import Answer, Served


class Bookkeeper:
    """Runs on the loop's thread alone; `keep` takes the record of every live prediction."""

    def __init__(self, keep: Callable[[Record], None]) -> None:
        self.requests = 0
        self.errors: Counter[ErrorCode] = Counter()
        self._keep = keep

    def settle(self, answer: Answer) -> None:
        """Count one answer and keep its records."""
        self.requests += 1
        for served in answer.served:
            self._count(served)
        for refused in answer.refused:
            self.errors[refused.code] += 1
            if refused.model is not None:
                refused.model.errors[refused.code] += 1

    def _count(self, served: Served) -> None:
        model, reply = served.model, served.reply
        model.predictions += served.rows
        model.latency.add(served.duration_ns)
        if reply.prediction_id is None:
            return
        inputs, outputs, action = served.inputs, served.outputs, reply.action
        if inputs is None or outputs is None:
            inputs, outputs = model.row()
        self._keep(
            Record(
                prediction_id=reply.prediction_id,
                build=reply.build,
                digest=reply.digest,
                served_at_ms=reply.served_at,
                bar_time_ms=served.bar_time_ms,
                server_us=reply.server_us,
                rows=served.rows,
                outputs=outputs,
                action=action if action is None else msgspec.json.encode(action).decode(),
                inputs=inputs,
            )
        )
