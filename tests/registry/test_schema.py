"""Tests of the published JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.models import SEED_EXAMPLE
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.schema import FILE, text


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    """Return a validator of the shipped schema."""
    schema = json.loads(FILE.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_shipped_file_is_the_generated_one() -> None:
    """The file follows the types; mend it with: python -m tickserve_registry.schema."""
    assert FILE.read_text(encoding="utf-8") == text()


def test_what_is_stored_and_what_is_stated_fit(
    validator: Draft202012Validator, registry: ModelRegistry, classifier: Any
) -> None:
    """The naming convention's example fits before and after it is saved."""
    assert validator.is_valid(SEED_EXAMPLE)
    registry.save_model(classifier, SEED_EXAMPLE)
    document = registry.metadata("eurusd_5m_xgb_trend").document
    assert validator.is_valid(document)
    stored = Draft202012Validator({**validator.schema, "anyOf": validator.schema["anyOf"][:1]})
    assert stored.is_valid(document)
    for field in ("sha256", "serving", "build", "environment"):
        assert not stored.is_valid({k: v for k, v in document.items() if k != field})


@pytest.mark.parametrize(
    "change",
    [
        {"features": "rsi_14"},
        {"performance": "good"},
        {"output": {"kind": "guess"}},
        {"input": {"length": "long"}},
        {"calendar": "never"},
    ],
)
def test_wrong_types_do_not_fit(
    validator: Draft202012Validator,
    registry: ModelRegistry,
    classifier: Any,
    info: Callable[..., Any],
    change: dict[str, Any],
) -> None:
    """What the schema refuses the registry refuses too."""
    assert not validator.is_valid(SEED_EXAMPLE | change)
    with pytest.raises(Exception, match=next(iter(change))):
        registry.save_model(classifier, info(**change))
