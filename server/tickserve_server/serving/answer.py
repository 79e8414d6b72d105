"""What a request comes to: the reply's frames, and what is left to do once they are sent.

Structs without a place in the garbage collector's lists: several are made for every request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from tickserve_client.messages import ErrorCode, Prediction
from tickserve_server.serving.model import LiveModel


class Served(msgspec.Struct, gc=False):
    """One model's prediction, for its counters and its record.

    `inputs` and `outputs` are float32 little-endian; None while they still lie in the model's
    own row, where they stay until the next row is answered.
    """

    model: LiveModel
    reply: Prediction
    duration_ns: int
    rows: int
    bar_time_ms: int | None
    inputs: bytes | None = None
    outputs: bytes | None = None


class Refused(msgspec.Struct, gc=False):
    """One refusal, for the counters; `model` where the request got as far as one."""

    code: ErrorCode
    model: LiveModel | None = None


class Answer(msgspec.Struct, gc=False):
    """The body frames of a reply."""

    frames: list[bytes]
    served: Sequence[Served] = ()
    refused: Sequence[Refused] = ()


class Job(msgspec.Struct):
    """A request that would hold the loop.

    `run` answers it on any thread and never raises; `decline` answers it with an error instead.
    """

    run: Callable[[], Answer]
    decline: Callable[[Exception], Answer]
