"""The published JSON Schema of a metadata file: `python -m tickserve_registry.schema` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from tickserve_registry.layout import ENVIRONMENTS
from tickserve_registry.metadata import Golden, Serving, Stated

FILE = Path(__file__).with_name("metadata.schema.json")
DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Stored(Stated, frozen=True, kw_only=True):
    """A metadata file as the registry stores it; fields of yours beside these are kept."""

    model_id: str
    market: str
    timeframe: str
    model_type: str
    strategy: str
    version: int
    date: str
    build: str
    environment: Literal["staging", "production", "archive"]
    status: str
    created_at: str
    artefact: str
    format: str
    framework: str
    native_class: str
    sha256: str
    size: int
    features: list[str]
    golden: Golden
    serving: Serving
    revision: int


def schema() -> dict[str, Any]:
    """Return the schema: metadata as it is stored, or as a user states it in a save."""
    references, components = msgspec.json.schema_components(
        [Stored, Stated], ref_template="#/$defs/{name}"
    )
    return {
        "$schema": DIALECT,
        "title": "Metadata of a trading model",
        "description": f"Stored in {{{','.join(ENVIRONMENTS)}}}/MARKET/vN/BUILD.json, "
        "or given to save_model.",
        "anyOf": list(references),
        "$defs": components,
    }


def text() -> str:
    """Return the schema as the file holds it."""
    compact = msgspec.json.encode(schema(), order="sorted")
    return msgspec.json.format(compact, indent=2).decode() + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
