"""A bot in C: what its JSON says is what the Python client was told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.conftest import Case
from tests.conformance.toolchain import FOLDER, compiled, printed

AROUND = 2  # replies before those to the rows: hello and models


@pytest.fixture(scope="module")
def seen(case: Case, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Each line that the bot printed: every reply, and last the numbers that it read."""
    bot = compiled(FOLDER / "bot.c", tmp_path_factory.mktemp("c") / "bot")
    rows = "\n".join(" ".join(map(repr, row)) for row in case.rows)
    lines = printed([str(bot), case.predict, case.model, *case.names], given=rows).splitlines()
    return [json.loads(line) for line in lines]


def test_every_shape_gets_the_same_answers(seen: list[Any], case: Case) -> None:
    """By name over REQ and listed over DEALER: equal to the last bit, in the order asked."""
    replies = seen[AROUND : AROUND + 2 * len(case.rows)]
    for shape in (replies[::2], replies[1::2]):
        assert [reply["output"] for reply in shape] == case.outputs
        assert [reply["action"] for reply in shape] == case.actions
        assert {reply["build"] for reply in shape} == {case.build}


def test_a_scanner_reads_the_same_numbers(seen: list[Any], case: Case) -> None:
    """Looking for `"output":` and calling strtod is parser enough, to the last bit."""
    assert seen[-1] == case.outputs


def test_errors_are_typed(seen: list[Any], case: Case) -> None:
    """One feature too many, one only, and a gap where none is allowed."""
    unexpected, missing, gap = seen[-5:-2]
    assert (unexpected["code"], unexpected["details"]["unexpected"]) == (
        "unexpected_features",
        ["extra"],
    )
    assert (missing["code"], missing["details"]["missing"]) == (
        "missing_features",
        case.names[1:],
    )
    assert (gap["code"], gap["id"]) == ("not_finite", "c")


def test_several_models_answer_each_for_itself(seen: list[Any], case: Case) -> None:
    """An unknown model among those asked costs the known one nothing."""
    known, unknown = seen[-6]["predictions"]
    assert (known["output"], unknown["code"]) == (case.outputs[-1], "unknown_model")


def test_the_daemon_says_what_it_needs(seen: list[Any], case: Case) -> None:
    """`models` names the build with its features, `hello` where trades go: one is recorded."""
    (card,) = seen[1]["models"]
    assert (card["build"], card["features"]) == (case.build, case.names)
    assert (seen[-2]["op"], seen[-2]["id"], seen[-2]["status"]) == ("ack", "o", "recorded")
