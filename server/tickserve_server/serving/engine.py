"""Engines behind one preallocated row: ONNX Runtime, or a model's own framework."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

Array = npt.NDArray[np.float32]

INPUT = "input"
OUTPUT = "output"
ERRORS_ONLY = 3

Predict = Callable[[Array], npt.NDArray[Any]]


class Engine:
    """One model compiled to ONNX with one float32 `input` and one float32 `output`.

    The session is made from bytes, never from a path, so that external data cannot be
    followed, and runs on one thread: parallelism across requests belongs to the operator.
    """

    def __init__(self, artefact: bytes, *, row_shape: tuple[int, ...]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS_ONLY
        self._session = onnxruntime.InferenceSession(
            artefact, options, providers=["CPUExecutionProvider"]
        )
        self._run_options = onnxruntime.RunOptions()
        self.row: Array = np.zeros((1, *row_shape), dtype=np.float32)
        self.row_bytes = self.row.data.cast("B")
        self.outputs = self._measure_outputs()
        self._answer: Array = np.zeros((1, self.outputs), dtype=np.float32)
        self._binding = self._bind()

    def bound_run(self) -> Callable[[], None]:
        """Return a function that runs the row in `row_bytes`; its result is read with reader().

        It calls the session's inner method: the wrappers around it cost a microsecond.
        """
        run = self._session._sess.run_with_iobinding  # noqa: SLF001
        return partial(run, self._binding._iobinding, self._run_options)  # noqa: SLF001

    def reader(self) -> Callable[[], Any]:
        """Return a function that reads the last result: a number for one output, else a list."""
        return self._answer.item if self.outputs == 1 else self._answer[0].tolist

    def run(self, batch: Array) -> Array:
        """Run inputs [rows, …] and return outputs [rows, outputs]."""
        result: Array = self._session.run([OUTPUT], {INPUT: batch}, self._run_options)[0]
        return result.reshape(len(batch), -1)

    def row_and_answer(self) -> tuple[bytes, bytes]:
        """Copy the row and its last result, float32 little-endian."""
        return self.row_bytes.tobytes(), self._answer.tobytes()

    def terminate(self, on: bool) -> None:
        """Make every run under way, and every later one, fail as soon as its graph lets it."""
        self._run_options.terminate = on

    def answer_bytes(self) -> bytes:
        """The last result of the row, float32 little-endian."""
        return self._answer.tobytes()

    def _measure_outputs(self) -> int:
        return int(self.run(self.row).shape[1])

    def _bind(self) -> onnxruntime.IOBinding:
        binding = self._session.io_binding()
        for bind, name, array in (
            (binding.bind_input, INPUT, self.row),
            (binding.bind_output, OUTPUT, self._answer),
        ):
            bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        return binding


class NativeEngine:
    """A model that could not be compiled, run by its own framework; slower, and exact."""

    def __init__(self, predict: Predict, *, row_shape: tuple[int, ...]) -> None:
        self._predict = predict
        self.outputs = int(self.run(np.zeros((1, *row_shape), dtype=np.float32)).shape[1])

    def run(self, batch: Array) -> Array:
        """Run inputs [rows, …] and return outputs [rows, outputs]."""
        return np.asarray(self._predict(batch), dtype=np.float32).reshape(len(batch), -1)
