"""A model's metadata: the user's JSON kept whole, and a typed view of what tickserve reads."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from tickserve_registry.document import write_document
from tickserve_registry.errors import MetadataRefused, NameRefused
from tickserve_registry.layout import Environment
from tickserve_registry.naming import ModelName, parse_build, parse_model_id, parse_version

Typed = TypeVar("Typed", bound=msgspec.Struct)
Revision = Annotated[int, msgspec.Meta(ge=1)]
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
    environment: Environment
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


class Stated(msgspec.Struct, frozen=True, kw_only=True):
    """The user's own fields, as the naming convention's example has them; others are free."""

    model_id: str | None = None
    market: str | None = None
    timeframe: str | None = None
    model_type: str | None = None
    strategy: str | None = None
    version: int | str | None = None
    created_at: str | None = None
    author: str | None = None
    framework: str | None = None
    framework_version: str | None = None
    features: list[str] | None = None
    feature_definitions: list[dict[str, Any]] | dict[str, Any] | None = None
    hyperparameters: dict[str, Any] | None = None
    training_period: dict[str, Any] | None = None
    performance: dict[str, dict[str, Any] | None] | None = None
    status: str | None = None
    notes: Any = None
    calendar: Literal["24x7", "weekdays"] | None = None
    input: Input | None = None
    output: Output | None = None


def require_stated(info: Mapping[str, Any], *, source: str | None = None) -> None:
    """Refuse metadata whose known fields have other types than they must have.

    The refusal says `source`, or what the metadata calls its model.
    """
    if source is None:
        identity = info.get("model_id")
        source = identity[:200] if isinstance(identity, str) else "the new model"
    document = msgspec.json.decode(write_document(info, source=source))
    _typed(document, Stated, source=source)


class _Revised(msgspec.Struct, frozen=True, kw_only=True):
    revision: Revision = 1


class _View(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that a stored metadata file must have."""

    build: str
    features: tuple[str, ...]
    serving: Serving
    framework: str
    sha256: str
    environment: Environment
    input: Input = Input()
    output: Output = Output()
    golden: Golden = Golden()
    revision: Revision = 1


def view(document: dict[str, Any], *, source: str) -> Metadata:
    """Return the typed view of a stored document; raise MetadataRefused naming the field."""
    seen = _typed(document, _View, source=source)
    try:
        name, _ = parse_build(seen.build)
    except NameRefused as error:
        raise MetadataRefused(source=source, field="build", problem=str(error)) from error
    fields = {field: getattr(seen, field) for field in _View.__struct_fields__}
    return Metadata(name=name, document=document, **fields)


def revision_of(document: Mapping[str, Any], *, source: str) -> int:
    """Return how often a stored document was rewritten; raise MetadataRefused if it does not say.

    A file of the naming convention's own utility has none, which is the first.
    """
    return _typed(dict(document), _Revised, source=source).revision


def _typed(document: dict[str, Any], kind: type[Typed], *, source: str) -> Typed:
    """Return a struct of a document's fields; raise MetadataRefused naming a wrong one."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        what, _, field = str(error).partition(" - at `$.")
        found = field.rstrip("`") or what.partition("field `")[2].rstrip("`")
        raise MetadataRefused(source=source, field=found, problem=f"is wrong: {what}") from error


def name_of(info: Mapping[str, Any]) -> ModelName:
    """Return the name that a user's metadata states, by its parts or by its model_id.

    An integer or `v3` in `version` is the model's version; a dotted string there is the
    framework's, as in the naming convention's own example.
    """
    stated = info.get("version")
    is_framework = isinstance(stated, str) and "." in stated
    identity = info.get("model_id")
    if isinstance(identity, str):
        name = parse_model_id(identity.lower() if identity.isascii() else identity)
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
