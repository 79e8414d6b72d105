"""Digests: of a file's bytes, and of everything that determines an answer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

ANSWER_FIELDS = ("sha256", "features", "feature_definitions", "input", "output", "golden")


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def serving_digest(document: Mapping[str, Any], *, serving_sha256: str) -> str:
    """Return the SHA-256 over canonical JSON of all that determines an answer.

    Environment, status and performance are no part of it, so neither a write-back nor a
    promotion changes it.
    """
    content = {field: document.get(field) for field in ANSWER_FIELDS}
    content["serving_sha256"] = serving_sha256
    return sha256(msgspec.json.encode(content, order="deterministic"))
