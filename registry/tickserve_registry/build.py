"""A new build between being made and being stored."""

from __future__ import annotations

from typing import Any

import msgspec

from tickserve_registry.naming import ModelName


class NewBuild(msgspec.Struct, frozen=True, kw_only=True):
    """A build that is ready to be stored: its metadata and the bytes of its files."""

    name: ModelName
    build: str
    document: dict[str, Any]
    artefact: bytes
    compiled: bytes | None
