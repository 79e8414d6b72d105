"""docs/protocol.md: every JSON example is a message that the wire structs accept unchanged."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from tickserve_client.messages import ErrorCode, FeedbackRequest, PredictRequest, Reply

DOCUMENT = Path(__file__).parents[1] / "docs" / "protocol.md"
EXAMPLES = re.findall(r"^```json\n(.*?)^```", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
KINDS = {"predict": PredictRequest, "prediction": Reply, "outcome": FeedbackRequest}


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: msgspec.json.decode(text)["op"])
def test_an_example_is_a_message_and_loses_nothing(text: str) -> None:
    """Each field of an example is one that the struct knows, with the value shown."""
    shown = msgspec.json.decode(text)
    message = msgspec.json.decode(text, type=KINDS[shown["op"]])
    for name, value in shown.items():
        if name != "op":
            assert getattr(message, name) == value, name


def test_every_operation_documented_has_an_example() -> None:
    """The three messages that a first bot needs are shown whole."""
    assert {msgspec.json.decode(text)["op"] for text in EXAMPLES} == set(KINDS)


def test_the_error_table_names_only_codes_of_the_protocol() -> None:
    """A code that the page explains is one that the wire structs can carry."""
    rows = re.findall(r"^\| (`[a-z_`, ]+) \|", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    codes = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row)}
    assert len(codes) > 10
    assert codes <= set(ErrorCode.__args__)  # type: ignore[attr-defined]
