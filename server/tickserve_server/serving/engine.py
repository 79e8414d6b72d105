"""Engines behind one preallocated row: ONNX Runtime, or a model's own framework."""

from __future__ import annotations

import math
from collections.abc import Callable
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
        # The session's own method and the binding's own object: their wrappers cost a microsecond.
        self._run_bound = self._session._sess.run_with_iobinding  # noqa: SLF001
        self._bound = self._binding._iobinding  # noqa: SLF001

    def run_row(self) -> float | list[float]:
        """Run the row in `row_bytes`; a number for one output, else a list."""
        self._run_bound(self._bound, self._run_options)
        if self.outputs == 1:
            return self._answer.item()
        answer: list[float] = self._answer[0].tolist()
        return answer

    def run(self, batch: Array) -> Array:
        """Run inputs [rows, …] and return outputs [rows, outputs]."""
        result: Array = self._session.run([OUTPUT], {INPUT: batch}, self._run_options)[0]
        return result.reshape(len(batch), -1)

    def terminate(self) -> None:
        """Make every run under way, and every later one, fail as soon as its graph lets it."""
        self._run_options.terminate = True

    def answer_bytes(self) -> bytes:
        """The outputs of the last run_row, float32 little-endian."""
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
        self.row: Array = np.zeros((1, *row_shape), dtype=np.float32)
        self.row_bytes = self.row.data.cast("B")
        self.outputs = int(self.run(self.row).shape[1])
        self._answer: Array = np.zeros((1, self.outputs), dtype=np.float32)

    def run_row(self) -> float | list[float]:
        """Run the row in `row_bytes`; a number for one output, else a list."""
        self._answer[...] = self._predict(self.row)
        if self.outputs == 1:
            return self._answer.item()
        answer: list[float] = self._answer[0].tolist()
        return answer

    def run(self, batch: Array) -> Array:
        """Run inputs [rows, …] and return outputs [rows, outputs]."""
        return np.asarray(self._predict(batch), dtype=np.float32).reshape(len(batch), -1)

    def answer_bytes(self) -> bytes:
        """The outputs of the last run_row, float32 little-endian."""
        return self._answer.tobytes()


def is_finite(output: float | list[float]) -> bool:
    """Whether every number of one row's output is finite."""
    return math.isfinite(output if isinstance(output, float) else sum(output))
