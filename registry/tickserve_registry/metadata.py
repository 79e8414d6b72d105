"""A model's metadata: the user's JSON kept whole, and a typed view of what tickserve reads."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from tickserve_registry.errors import MetadataRefused
from tickserve_registry.naming import ModelName, parse_build, parse_model_id, parse_version

LARGEST_BYTES = 16 * 1024 * 1024
DEEPEST = 64
LONGEST_PATH = 200
SCALARS = (int, str)
MAPPINGS = (dict, Mapping)
"""A dict is recognised at once, any other mapping through its abstract class."""

OutputKind = Literal["probability", "regression", "classes"]


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """One row of features, or a window of `length` rows, as float32."""

    kind: Literal["row", "window"] = "row"
    length: int = 1
    dtype: Literal["float32"] = "float32"
    allow_nan: bool | tuple[str, ...] = False


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """What the numbers mean, and the thresholds from which an action follows."""

    kind: OutputKind = "probability"
    names: tuple[str, ...] = ()
    long_above: float | None = None
    short_below: float | None = None


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs and native outputs that every later load must reproduce.

    `tolerance` bounds |found − recorded| / max(1, |recorded|).
    """

    inputs: tuple[Any, ...] = ()
    outputs: tuple[Any, ...] = ()
    tolerance: float = 1e-5


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How far the compiled model was from the native one, over how many probes."""

    probes: int
    max_abs_error: float | None


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon loads: engine, file, and the digests of its bytes and of the answer."""

    engine: Literal["onnxruntime", "native"]
    artefact: str
    sha256: str
    digest: str
    parity: Parity
    opset: int | None = None
    reason: str | None = None


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """The typed view; `document` is the whole file with every field of the user's."""

    name: ModelName
    build: str
    features: tuple[str, ...]
    input: Input
    output: Output
    golden: Golden
    serving: Serving
    framework: str
    sha256: str
    environment: str
    revision: int
    document: dict[str, Any]

    @property
    def model_id(self) -> str:
        """Family and version."""
        return self.name.model_id

    @property
    def family(self) -> str:
        """The name without version and date."""
        return self.name.family


class _View(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that a stored metadata file must have."""

    build: str
    features: tuple[str, ...]
    serving: Serving
    framework: str
    sha256: str
    environment: str
    input: Input = Input()
    output: Output = Output()
    golden: Golden = Golden()
    revision: int = 1


def view(document: dict[str, Any], *, source: str) -> Metadata:
    """Return the typed view of a stored document; raise MetadataRefused naming the field."""
    try:
        seen = msgspec.convert(document, _View)
    except msgspec.ValidationError as error:
        raise MetadataRefused(source=source, field="", problem=str(error)) from error
    name, _ = parse_build(seen.build)
    fields = {field: getattr(seen, field) for field in _View.__struct_fields__}
    return Metadata(name=name, document=document, **fields)


def read_document(data: bytes, *, source: str) -> dict[str, Any]:
    """Parse a metadata file; raise MetadataRefused for anything but one JSON object."""
    try:
        document = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        problem = f"is no valid JSON ({error})"
        raise MetadataRefused(source=source, field="", problem=problem) from error
    if not isinstance(document, dict):
        raise MetadataRefused(source=source, field="", problem="is no JSON object")
    return document


def read_file(path: Path) -> dict[str, Any]:
    """Read a metadata file; raise MetadataRefused, or FileNotFoundError if it has gone."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
        raise MetadataRefused(source=str(path), field="", problem=problem) from error
    return read_document(data, source=str(path))


def write_document(document: Mapping[str, Any], *, source: str) -> bytes:
    """Return the document as indented JSON; NaN and Infinity are refused, naming the field."""
    _refuse_unwritable(document, source=source)
    try:
        compact = msgspec.json.encode(document, enc_hook=_plain)
    except (TypeError, msgspec.MsgspecError, RecursionError) as error:
        raise MetadataRefused(source=source, field="", problem=str(error)) from error
    if len(compact) > LARGEST_BYTES:
        problem = f"takes {len(compact)} bytes, the limit is {LARGEST_BYTES}"
        raise MetadataRefused(source=source, field="", problem=problem)
    return msgspec.json.format(compact, indent=2) + b"\n"


def name_of(info: Mapping[str, Any]) -> ModelName:
    """Return the name that a user's metadata states, by its parts or by its model_id.

    An integer or `v3` in `version` is the model's version; a dotted string there is the
    framework's, as in the naming convention's own example.
    """
    stated = info.get("version")
    is_framework = isinstance(stated, str) and "." in stated
    identity = info.get("model_id")
    if isinstance(identity, str):
        name = parse_model_id(identity.lower())
        if stated is not None and not is_framework and parse_version(stated) != name.version:
            problem = f"is {stated!r} but model_id says v{name.version}"
            raise MetadataRefused(source=identity, field="version", problem=problem)
        return name
    missing = [
        part for part in ("market", "timeframe", "model_type", "strategy") if part not in info
    ]
    if missing:
        problem = "is missing; give it, or a model_id"
        raise MetadataRefused(source="the new model", field=", ".join(missing), problem=problem)
    return ModelName.of(
        version=1 if stated is None or is_framework else stated,
        market=info["market"],
        timeframe=info["timeframe"],
        model_type=info["model_type"],
        strategy=info["strategy"],
    )


def normalised(info: Mapping[str, Any], *, name: ModelName, created_at: str) -> dict[str, Any]:
    """Return a new document: the user's fields, with name, version and times settled."""
    document: dict[str, Any] = msgspec.json.decode(write_document(info, source=name.model_id))
    stated = document.get("version")
    if isinstance(stated, str) and "." in stated:
        document["framework_version"] = stated
    document |= {
        "model_id": name.model_id,
        "created_at": created_at,
        "market": name.market,
        "timeframe": name.timeframe,
        "model_type": name.model_type,
        "strategy": name.strategy,
        "version": name.version,
    }
    return document


def utc_now() -> str:
    """Return the time as RFC 3339 in UTC, to the second."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _plain(value: Any) -> Any:
    """Turn numpy scalars and arrays, which notebooks put into metadata, into plain values."""
    for method in ("tolist", "isoformat"):
        convert = getattr(value, method, None)
        if convert is not None:
            return convert()
    raise TypeError(f"a {type(value).__name__} is no JSON value")


def _refuse_unwritable(document: Mapping[str, Any], *, source: str) -> None:
    fault = _fault(document, depth=0)
    if fault is not None:
        path, problem = fault
        raise MetadataRefused(source=source, field=path.lstrip("."), problem=problem)


def _fault(value: Any, *, depth: int) -> tuple[str, str] | None:
    """Return where a value cannot be written and why; the path is made only for a fault.

    A live write-back walks the whole document, its list of trades included.
    """
    if isinstance(value, float):
        finite = math.isfinite(value)
        return None if finite else ("", f"is {value}, which is no JSON number; use null")
    if value is None or isinstance(value, SCALARS):
        return None
    if depth > DEEPEST:
        return "", f"is nested deeper than {DEEPEST} levels"
    if isinstance(value, MAPPINGS):
        return _fault_of_mapping(value, depth=depth)
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            fault = _fault(item, depth=depth + 1)
            if fault is not None:
                return f"[{index}]{fault[0]}", fault[1]
    return None


def _fault_of_mapping(value: Mapping[Any, Any], *, depth: int) -> tuple[str, str] | None:
    for key, item in value.items():
        if not isinstance(key, str):
            return "", f"has a key that is no text: {key!r}"
        fault = _fault(item, depth=depth + 1)
        if fault is not None:
            return f".{key}{fault[0]}"[:LONGEST_PATH], fault[1]
    return None
