"""Making a new build: name it, compile it, prove it, and describe it in its metadata."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import msgspec
import onnx

from tickserve_registry.build import NewBuild
from tickserve_registry.compile import compile_model, input_shape
from tickserve_registry.digest import serving_digest, sha256
from tickserve_registry.drift import make_reference
from tickserve_registry.errors import FormatRefused, MetadataRefused
from tickserve_registry.formats.frameworks import native_model
from tickserve_registry.formats.graph import opset_of
from tickserve_registry.formats.native import Array, NativeModel, Shape
from tickserve_registry.formats.ready_onnx import run_once
from tickserve_registry.layout import ARTEFACT, COMPILED
from tickserve_registry.metadata import (
    Input,
    Output,
    OutputKind,
    Parity,
    Serving,
    name_of,
    normalised,
    require_stated,
    utc_now,
)
from tickserve_registry.naming import require_date
from tickserve_registry.parity import golden_rows, holds, measure, probe_rows, usable_sample
from tickserve_registry.trust import UNTRUSTING, Trust


def make_build(
    model: Any,
    info: Mapping[str, Any],
    *,
    sample: Any = None,
    trust: Trust = UNTRUSTING,
    created_at: str | None = None,
) -> NewBuild:
    """Return a build of a trained model and the user's metadata, which is not changed.

    `sample` is inputs [rows, …] like those of training; parity and golden rows use them, and
    live inputs are compared with them.
    `created_at` is now unless an older build is taken over.
    Raises NameRefused, MetadataRefused or FormatRefused.
    """
    require_stated(info)
    name = name_of(info)
    date = require_date(str(info.get("date") or dt.datetime.now(dt.UTC).strftime("%Y%m%d")))
    build = name.build(date)
    features = _features(info, source=build)
    stated: Input = _convert(info.get("input") or {}, Input, source=build, field="input")
    window = stated.length if stated.kind == "window" else 0
    native = native_model(model, shape=Shape(len(features), window), trust=trust)
    _require_width(features, native.width, source=build)
    _require_order(features, native.features, source=build)
    compiled, refusal = _compile(native, features=len(features))
    described = _input(stated, compiled, features=features, source=build)
    shape = (described.length, len(features)) if described.kind == "window" else (len(features),)
    allow_nan = bool(described.allow_nan)
    usable = usable_sample(sample, features=features, shape=shape, allow_nan=allow_nan)
    rows = probe_rows(native, shape=shape, sample=usable, allow_nan=allow_nan)
    answers = _native_answers(native, rows, source=build)
    parity, unequal = _parity(compiled, rows, answers)
    served = compiled.SerializeToString() if compiled is not None and holds(parity) else None
    document = normalised(info, name=name, created_at=created_at or utc_now()) | {
        "build": build,
        "date": date,
        "artefact": build + ARTEFACT,
        "sha256": sha256(native.data),
        "size": len(native.data),
        "format": native.format,
        "framework": native.framework,
        "native_class": native.native_class,
        "features": list(features),
        "input": msgspec.to_builtins(described),
        "output": msgspec.to_builtins(
            _output(info, answers.shape[1], native.output_kind, source=build)
        ),
        "golden": msgspec.to_builtins(golden_rows(native, rows)),
        "revision": 1,
    }
    document.setdefault("framework_version", native.framework_version)
    if usable is not None:
        document["reference"] = msgspec.to_builtins(make_reference(usable, features))
    serving_sha256 = sha256(native.data if served is None else served)
    document["serving"] = msgspec.to_builtins(
        Serving(
            engine="native" if served is None else "onnxruntime",
            artefact=build + (ARTEFACT if served is None else COMPILED),
            sha256=serving_sha256,
            digest=serving_digest(document, serving_sha256=serving_sha256),
            opset=None if compiled is None else opset_of(compiled),
            parity=parity,
            reason=None if served is not None else refusal or unequal,
        )
    )
    return NewBuild(
        name=name, build=build, document=document, artefact=native.data, compiled=served
    )


def _features(info: Mapping[str, Any], *, source: str) -> tuple[str, ...]:
    features = info.get("features")
    named = isinstance(features, list | tuple) and all(isinstance(each, str) for each in features)
    if not named or not features:
        problem = "must be a list of the feature names in the model's order"
        raise MetadataRefused(source=source, field="features", problem=problem)
    if len(set(features)) != len(features):
        raise MetadataRefused(source=source, field="features", problem="names one twice")
    return tuple(features)


def _require_width(features: tuple[str, ...], width: int | None, *, source: str) -> None:
    if width not in (None, len(features)):
        problem = f"names {len(features)}, the model takes {width}"
        raise MetadataRefused(source=source, field="features", problem=problem)


def _require_order(features: tuple[str, ...], trained: tuple[str, ...], *, source: str) -> None:
    """Refuse features in another order than the model was trained with: it answers by place."""
    positional = tuple(f"f{index}" for index in range(len(trained)))
    if trained in ((), positional, features):
        return
    problem = f"are {list(features)}, the model was trained with {list(trained)}"
    raise MetadataRefused(source=source, field="features", problem=problem[:2000])


def _compile(native: NativeModel, *, features: int) -> tuple[onnx.ModelProto | None, str | None]:
    try:
        return compile_model(native, features=features), None
    except FormatRefused as error:
        if native.framework == "onnx":
            raise
        return None, str(error)


def _input(
    described: Input,
    compiled: onnx.ModelProto | None,
    *,
    features: tuple[str, ...],
    source: str,
) -> Input:
    if compiled is None:
        return described
    *window, width = input_shape(compiled)
    if width is not None and width != len(features):
        problem = f"names {len(features)}, the model takes {width}"
        raise MetadataRefused(source=source, field="features", problem=problem)
    if not window:
        return described
    length = window[0] or described.length
    return msgspec.structs.replace(described, kind="window", length=length)


def _output(
    info: Mapping[str, Any], outputs: int, kind: OutputKind | None, *, source: str
) -> Output:
    stated = dict(info.get("output") or {})
    stated.setdefault("kind", kind or ("probability" if outputs == 1 else "classes"))
    described: Output = _convert(stated, Output, source=source, field="output")
    acts = (described.long_above, described.short_below) != (None, None)
    if acts and outputs != 1:
        problem = f"declares thresholds, but the model has {outputs} outputs"
        raise MetadataRefused(source=source, field="output", problem=problem)
    return described


def _convert(value: Any, kind: type[Any], *, source: str, field: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise MetadataRefused(source=source, field=field, problem=str(error)) from error


def _native_answers(native: NativeModel, rows: Array, *, source: str) -> Any:
    try:
        return native.predict(rows)
    except Exception as error:
        problem = f"do not fit the model: {error}"
        raise MetadataRefused(source=source, field="features", problem=problem) from error


def _parity(
    compiled: onnx.ModelProto | None, rows: Array, answers: Any
) -> tuple[Parity, str | None]:
    """Return how far the compiled model is off, and why it may not answer, if so."""
    if compiled is None:
        return Parity(probes=0, max_abs_error=None), None
    try:
        found = run_once(compiled.SerializeToString(), rows)
    except Exception as error:  # noqa: BLE001 - whatever it is, the native engine then serves
        return Parity(probes=0, max_abs_error=None), f"does not run: {error}"[:500]
    parity = measure(answers, found)
    return parity, None if holds(parity) else "parity failed"
