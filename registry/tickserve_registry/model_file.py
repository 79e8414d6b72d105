"""Model files of anybody's making: told apart, tried in a child process, and loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tickserve_registry.errors import ArtefactRefused
from tickserve_registry.metadata import Metadata
from tickserve_registry.reader import LARGEST_BYTES
from tickserve_registry.sandbox import Request, Sandbox
from tickserve_registry.store import read_plain
from tickserve_registry.trust import Trust

ONNX_SUFFIX = ".onnx"


class ModelFiles:
    """Loads model files that no registry has vouched for."""

    def __init__(self, sandbox: Sandbox, *, trust: Trust) -> None:
        self._sandbox = sandbox
        self._trust = trust

    def load(self, path: Path) -> tuple[Any, tuple[str, ...]]:
        """Return the model in a file, and the features that it knows it was trained with.

        Raises ArtefactRefused, PickleRefused or FormatRefused.
        """
        from tickserve_registry.formats.frameworks import feature_names, load_native
        from tickserve_registry.formats.sniffing import kind_of

        data = read_model_file(path)
        framework, native_class = kind_of(data, source=str(path))
        self._try(data, framework, native_class, path=path)
        if framework == "onnx":
            return data, ()
        model = load_native(data, framework=framework, native_class=native_class, trust=self._trust)
        return model, feature_names(model)

    def load_proven(self, data: bytes, metadata: Metadata, *, path: Path) -> Any:
        """Return a stored model's own object, once a child process has reproduced its golden rows.

        The digest of `data` has been checked. Raises ArtefactRefused, PickleRefused or
        FormatRefused.
        """
        from tickserve_registry.formats.frameworks import load_native

        native_class = str(metadata.document.get("native_class"))
        request = Request(
            framework=metadata.framework,
            native_class=native_class,
            golden=metadata.golden,
            trust=self._trust,
        )
        self._sandbox.prove(data, request, path=path)
        return load_native(
            data, framework=metadata.framework, native_class=native_class, trust=self._trust
        )

    def try_onnx(self, model: Any) -> None:
        """Let a child process load a ready ONNX model, given as bytes or a path, first."""
        if isinstance(model, str | os.PathLike) and str(model).endswith(ONNX_SUFFIX):
            self._try(read_model_file(Path(model)), "onnx", "ModelProto", path=Path(model))
        elif isinstance(model, bytes | bytearray):
            self._try(bytes(model), "onnx", "ModelProto", path=Path("the given ONNX bytes"))

    def _try(self, data: bytes, framework: str, native_class: str, *, path: Path) -> None:
        request = Request(framework=framework, native_class=native_class, trust=self._trust)
        self._sandbox.prove(data, request, path=path)


def read_model_file(path: Path) -> bytes:
    """Return a model file's bytes; raise ArtefactRefused for no plain file, or a huge one."""
    try:
        return read_plain(path, largest=LARGEST_BYTES)
    except OSError as error:
        problem = error.strerror or str(error)
        raise ArtefactRefused(path=path, problem=problem, remedy="") from error
