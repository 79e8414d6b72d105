"""Telling from a file's first bytes which framework it is of."""

from __future__ import annotations

import io
import zipfile
from typing import NamedTuple

from tickserve_registry.errors import FormatRefused

PICKLES = (b"\x80", b"x\x01", b"x\x9c", b"x\xda", b"x^", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"ZF")
"""A pickle of protocol 2 or later, and what joblib's compressors begin with."""


class Kind(NamedTuple):
    """A framework and the class that its loader asks for."""

    framework: str
    native_class: str


def kind_of(data: bytes, *, source: str) -> Kind:
    """Return what the bytes seem to be; raise FormatRefused where they seem to be nothing known."""
    if data.startswith(b"PK"):
        return _zipped(data, source)
    if data.startswith(b"{"):
        return Kind("xgboost", "Booster")
    if data.startswith(b"tree\n"):
        return Kind("lightgbm", "Booster")
    if data.startswith(PICKLES):
        return Kind("scikit-learn", "pickle")
    if data.startswith(b"\x08"):
        return Kind("onnx", "ModelProto")
    problem = (
        "is no known model file; known are XGBoost UBJSON and JSON, LightGBM text, skops, "
        "joblib and pickle, ONNX, and torch exported programs"
    )
    raise FormatRefused(kind=source, problem=problem)


def _zipped(data: bytes, source: str) -> Kind:
    try:
        names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    except zipfile.BadZipFile as error:
        raise FormatRefused(kind=source, problem=f"is a damaged archive ({error})") from error
    return Kind("scikit-learn", "skops") if "schema.json" in names else Kind("pytorch", "module")
