"""Archives of torch.export (.pt2): only those that load without pickle or evaluated text."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from tickserve_registry.errors import FormatRefused, PickleRefused

SAMPLES = "data/sample_inputs/model.pt"
PROGRAM = "models/model.json"
TABLES = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
TENSOR = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
LABELS = (
    "archive_format",
    "archive_version",
    "byteorder",
    ".data/version",
    ".data/serialization_id",
)
OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!from_file|save|load)[a-z_0-9]+\.[A-Za-z_0-9]+"
    r"|_operator\.(add|sub|mul|neg|floordiv|truediv|mod|pow|eq|ne|lt|le|gt|ge|getitem)"
)
SYMBOLIC = re.compile(
    r"(Symbol\('s\d+', (positive=True, )?integer=True\)|Add|Mul|Pow|Max|Min|Mod|FloorDiv"
    r"|Integer|Rational|-?\d+|[(), ])*"
)


def without_samples(data: bytes) -> bytes:
    """Return the archive with empty sample inputs, which torch would otherwise unpickle."""
    members = _members(data)
    return _archive(members | {SAMPLES: b""})


def require_plain(data: bytes) -> bytes:
    """Return an archive of the same content, made anew from nothing but harmless members.

    torch.export.load unpickles sample inputs and marked tensors, evaluates symbolic sizes and
    looks functions up by name. Here sizes must be sums and products, functions ATen operators,
    tensors plain bytes. Raises PickleRefused, or FormatRefused for what is no such archive.
    """
    members = _members(data)
    for name, content in members.items():
        if name == SAMPLES:
            _require(not content, "has sample inputs")
        elif name in TABLES:
            _require(not _marked(_parsed(content)), "has pickled tensors")
        elif name == PROGRAM:
            _require_program(_parsed(content))
        else:
            _require(bool(TENSOR.fullmatch(name)) or name in LABELS, f"holds {name[:80]!r}")
    return _archive(members)


def _members(data: bytes) -> dict[str, bytes]:
    """Return the archive's files without their common folder."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {each.partition("/")[2]: archive.read(each) for each in archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise FormatRefused(kind="PyTorch archive", problem=f"is no archive ({error})") from error


def _archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(members.items()):
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    return buffer.getvalue()


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FormatRefused(kind="PyTorch archive", problem=f"is torn ({error})") from error


def _marked(table: Any) -> bool:
    return any(value is not False for value in _values_of(table, "use_pickle"))


def _require_program(program: Any) -> None:
    _require(not any(_values_of(program, "guards_code")), "brings code of its own")
    for name in ("target", "as_operator"):
        for target in _values_of(program, name):
            # An input or output specification has targets too: names of weights, or none.
            named = isinstance(target, str) and ("." in target or target.startswith("#"))
            known = not named or OPERATOR.fullmatch(target) or not _is_function(target)
            _require(bool(known), f"calls {str(target)[:80]}")
    for expression in _values_of(program, "expr_str"):
        plain = isinstance(expression, str) and SYMBOLIC.fullmatch(expression)
        _require(bool(plain), f"has the size {str(expression)[:80]}")


def _is_function(target: str) -> bool:
    return target.startswith(("torch", "_operator", "math", "#"))


def _values_of(tree: Any, key: str) -> Iterator[Any]:
    """Yield every value that goes by the key, at any depth."""
    pending = [tree]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            if key in each:
                yield each[key]
            pending.extend(each.values())
        elif isinstance(each, list):
            pending.extend(each)


def _require(plain: bool, otherwise: str) -> None:
    if not plain:
        raise PickleRefused(kind=f"PyTorch archive: {otherwise}")
