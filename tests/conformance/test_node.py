"""A bot in Node: what its JSON says is what the Python client was told."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from tests.conformance.conftest import Case
from tests.conformance.toolchain import FOLDER, node, printed


@pytest.fixture(scope="module")
def seen(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Every reply that the bot got, by what it asked."""
    program = node()
    rows = tmp_path_factory.mktemp("node") / "rows.json"
    rows.write_text(json.dumps({"model": case.model, "names": case.names, "rows": case.rows}))
    return json.loads(printed([program, str(FOLDER / "bot.js"), case.predict, str(rows)]))


def test_every_shape_gets_the_same_answers(seen: Any, case: Case) -> None:
    """By name over REQ and listed over DEALER: equal to the last bit, in the order asked."""
    for shape in ("by_name", "listed"):
        assert [reply["id"] for reply in seen[shape]] == [str(n) for n in range(len(case.rows))]
        assert [reply["output"] for reply in seen[shape]] == case.outputs
        assert [reply["action"] for reply in seen[shape]] == case.actions
        assert {reply["build"] for reply in seen[shape]} == {case.build}


def test_a_tensor_frame_gets_a_tensor_frame(seen: Any, case: Case) -> None:
    """A raw float32 frame of all rows is answered by one of all outputs."""
    assert seen["tensor"]["tensor"] == [len(case.rows), 1]
    (frame,) = seen["tensor"]["frames"]
    outputs = np.frombuffer(base64.b64decode(frame), "<f4")
    assert outputs.tolist() == np.array(case.outputs, dtype="<f4").tolist()


def test_errors_are_typed(seen: Any, case: Case) -> None:
    """One feature too many, one only, and a gap where none is allowed."""
    unexpected, missing, gap = seen["errors"]
    assert (unexpected["code"], unexpected["details"]["unexpected"]) == (
        "unexpected_features",
        ["extra"],
    )
    assert (missing["code"], missing["details"]["missing"]) == (
        "missing_features",
        case.names[1:],
    )
    assert (gap["code"], gap["id"]) == ("not_finite", "e")


def test_several_models_answer_each_for_itself(seen: Any, case: Case) -> None:
    """An unknown model among those asked costs the known one nothing."""
    known, unknown = seen["several"]["predictions"]
    assert (known["output"], unknown["code"]) == (case.outputs[0], "unknown_model")


def test_the_daemon_says_what_it_needs(seen: Any, case: Case) -> None:
    """`models` names the build with its features, `hello` where trades go: one is recorded."""
    (card,) = seen["models"]["models"]
    assert (card["build"], card["features"]) == (case.build, case.names)
    assert (seen["ack"]["op"], seen["ack"]["id"], seen["ack"]["status"]) == ("ack", "o", "recorded")
