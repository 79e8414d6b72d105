"""docs/protocol.md: every JSON example is a message that the wire structs accept unchanged."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.daemon import Service, model_info, train
from tickserve_client.messages import ErrorCode, FeedbackRequest, PredictRequest, Reply
from tickserve_registry.model_registry import ModelRegistry

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


def test_the_bot_with_pyzmq_alone_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The example, pointed at a daemon with a free port, prints a probability."""
    page = DOCUMENT.read_text("utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    service = Service(tmp_path)
    registry = ModelRegistry(str(service.storage))
    registry.save_model(train(trees=5), model_info(), environment="production")
    names: dict[str, Any] = {}
    with service:
        exec(program.replace("tcp://127.0.0.1:5555", service.endpoints.predict), names)  # noqa: S102
        names["socket"].close()
        names["socket"].context.term()
    assert 0 < float(capsys.readouterr().out) < 1


def test_every_operation_documented_has_an_example() -> None:
    """The three messages that a first bot needs are shown whole."""
    assert {msgspec.json.decode(text)["op"] for text in EXAMPLES} == set(KINDS)


def test_the_error_table_names_only_codes_of_the_protocol() -> None:
    """A code that the page explains is one that the wire structs can carry."""
    rows = re.findall(r"^\| (`[a-z_`, ]+) \|", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    codes = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row)}
    assert len(codes) > 10
    assert codes <= set(ErrorCode.__args__)  # type: ignore[attr-defined]
