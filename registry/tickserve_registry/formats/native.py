"""A model in its own framework, with all that storing and compiling it takes."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import onnx

from tickserve_registry.metadata import OutputKind
from tickserve_registry.trust import Trust

Array = npt.NDArray[np.float32]

Predict = Callable[[Array], npt.NDArray[Any]]
"""Takes float32 inputs [rows, features] or [rows, window, features]; returns [rows, outputs].

A binary classifier has one output, the probability of the positive class; another classifier
one for each class; a regression one for each target.
"""

FileFormat = Literal["ubj", "onnx", "skops", "joblib", "lightgbm", "pt2"]


class Splits(NamedTuple):
    """Where trees decide: columns [n] and their thresholds [n], for probes on both sides."""

    columns: npt.NDArray[np.int64]
    thresholds: npt.NDArray[np.float32]


NO_SPLITS = Splits(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))


class NativeModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model in its own framework: its bytes, its class, and its own predictions.

    `to_onnx` takes the number of features and returns the model with one float32 `input` and
    one float32 `output`; it raises FormatRefused where it cannot. `features` are the names that
    the model was trained with, and `width` their number, where it knows them.
    """

    framework: str
    framework_version: str
    format: FileFormat
    native_class: str
    data: bytes
    predict: Predict
    to_onnx: Callable[[int], onnx.ModelProto]
    features: tuple[str, ...] = ()
    width: int | None = None
    output_kind: OutputKind | None = None
    splits: Splits = NO_SPLITS


class Shape(NamedTuple):
    """What the metadata says of the inputs: how many features, and the window's rows or 0."""

    features: int
    window: int = 0


class Framework(Protocol):
    """The functions that each framework's module offers."""

    def recognises(self, model: Any) -> bool:
        """Whether a model is of this framework; imports nothing."""

    def capture(self, model: Any, *, shape: Shape, trust: Trust) -> NativeModel:
        """Return the model with its bytes and abilities. Raises FormatRefused."""

    def load(self, data: bytes, *, native_class: str, trust: Trust) -> Any:
        """Return the framework's own object from bytes whose digest has been checked."""

    def predictor(self, model: Any) -> Predict:
        """Return the model's own predictions, on one thread where that can be told."""


def installed(*distributions: str) -> str:
    """Return the version of the first of these distributions that is installed."""
    for distribution in distributions:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "unknown"
