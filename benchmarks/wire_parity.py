"""The native model's own predictions beside those over the wire, in both codecs and as tensors."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import zmq

from benchmarks.daemon import Service, model_info, train
from tickserve_client.messages import Predict
from tickserve_registry.model_registry import ModelRegistry

FAMILY = "eurusd_1h_xgb_bench"
ROWS_IN_MESSAGE = 1_000
Rows = npt.NDArray[np.float32]


def main(options: Sequence[str]) -> None:
    """Compare random rows, sent as lists in JSON and MessagePack, as tensors, and one by one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    count = parser.parse_args(options).rows
    model: Any = train()
    random = np.random.default_rng(11)
    rows = (random.normal(size=(count, 5)) * random.choice([0.1, 1, 10], size=(count, 1))).astype(
        "<f4"
    )
    expected = model.predict_proba(rows)[:, 1].astype(np.float64)
    with TemporaryDirectory() as folder:
        service = Service(Path(folder))
        registry = ModelRegistry(str(service.storage))
        registry.save_model(model, model_info(), environment="production")
        context: zmq.Context[zmq.Socket[bytes]]
        with service, zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.rcvtimeo = 60_000
            socket.connect(service.endpoints.predict)
            for name, codec in (("JSON", msgspec.json), ("MessagePack", msgspec.msgpack)):
                for how, ask in (("lists", _lists), ("by name", _by_name), ("tensor", _tensor)):
                    found = ask(socket, codec, rows)
                    error = np.abs(found - expected[: len(found)]).max()
                    print(f"{name:12} {how:8} {len(found):7,} rows, maximum error {error:.3g}")


def _ask(socket: zmq.Socket[bytes], codec: Any, message: Predict, *frames: bytes) -> list[Any]:
    socket.send_multipart([codec.encode(message), *frames])
    body, *tensor = socket.recv_multipart()
    reply = codec.decode(body)
    assert reply["op"] == "prediction", reply
    return [reply.get("output"), *tensor]


def _lists(socket: zmq.Socket[bytes], codec: Any, rows: Rows) -> npt.NDArray[Any]:
    outputs: list[float] = []
    for start in range(0, len(rows), ROWS_IN_MESSAGE):
        part = rows[start : start + ROWS_IN_MESSAGE].tolist()
        outputs += _ask(socket, codec, Predict(model=FAMILY, features=part, log=False))[0]
    return np.array(outputs)


def _by_name(socket: zmq.Socket[bytes], codec: Any, rows: Rows) -> npt.NDArray[Any]:
    names = [f"f{index}" for index in range(5)]
    outputs = []
    for row in rows.tolist():
        named = dict(zip(names, row, strict=True))
        outputs.append(_ask(socket, codec, Predict(model=FAMILY, features=named, log=False))[0])
    return np.array(outputs)


def _tensor(socket: zmq.Socket[bytes], codec: Any, rows: Rows) -> npt.NDArray[Any]:
    message = Predict(model=FAMILY, tensor=list(rows.shape), log=False)
    answer = _ask(socket, codec, message, rows.tobytes())[1]
    return np.frombuffer(answer, "<f4").astype(np.float64)
