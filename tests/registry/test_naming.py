"""Tests of names."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickserve_registry.errors import ModelNotFound, NameRefused
from tickserve_registry.layout import ENVIRONMENTS, METADATA, Layout
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.naming import (
    GRAMMAR,
    LONGEST_NAME,
    ModelName,
    parse_build,
    parse_family,
    parse_model_id,
    parse_version,
    require_date,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def drawn_name(seed: int) -> ModelName:
    """Return a name of random parts: one draw of Hypothesis, whose draws are what takes time."""
    dice = random.Random(seed)  # noqa: S311 - a test's dice

    def word() -> str:
        return "".join(dice.choices(LETTERS, k=dice.randint(1, 8)))

    return ModelName.of(
        market=word(),
        timeframe=f"{dice.randint(1, 999)}{dice.choice(['s', 'm', 'h', 'd', 'w', 'mo'])}",
        model_type=word(),
        strategy="_".join(word() for _ in range(dice.randint(1, 4))),
        version=dice.randint(1, 10 ** dice.randint(1, 18) - 1),
    )


names = st.integers(0, 2**64).map(drawn_name)
dates = st.integers(1, dt.date.max.toordinal()).map(
    lambda day: dt.date.fromordinal(day).isoformat().replace("-", "")
)
SPLICES = [
    *("..", "/", "../", "/..", "\\", "\0", "\n", " ", ".", ":", "~", "%2e"),
    *("_", "__", "v", "1", "0", "é", "\u212a", "\u0131", "\uff41", "\u0661", "\u200b"),
]
splices = st.sampled_from(SPLICES) | st.text(max_size=2)


@settings(max_examples=10_000, deadline=None)
@given(names, dates)
def test_round_trip(name: ModelName, date: str) -> None:
    """A name that is written reads back as family, version and date."""
    found, found_date = parse_build(name.build(date))
    assert (found.family, found.version, found_date) == (name.family, name.version, date)


@settings(max_examples=10_000, deadline=None)
@given(names, st.integers(0, 60), splices)
def test_no_accepted_name_leaves_the_root(name: ModelName, place: int, splice: str) -> None:
    """A name with something put into it is refused, or lies below the root in its own folder."""
    whole = name.build("20250325")
    text = whole[:place] + splice + whole[place:]
    layout = Layout(Path("/root-of-storage"))
    try:
        found, _ = parse_build(text)
    except NameRefused:
        return
    assert text.isascii()
    for environment in ENVIRONMENTS:
        path = layout.file(text, environment, METADATA)
        folder = layout.root / environment / found.market / f"v{found.version}"
        assert path == folder / f"{text}.json"
        assert ".." not in path.parts
        assert len(path.relative_to(layout.root).parts) == 4


@pytest.mark.parametrize(
    "name",
    [
        "../eurusd_1h_xgb_trend_v1",
        "/etc/passwd",
        "eurusd_1h_xgb_trend_v1\x00",
        "eurusd_1h_xgb_trend_v1\n",
        "eurusd_1h_xgb_trend_v0",
        "eurusd_1h_xgb_trend_v01",
        "eurusd_0h_xgb_trend_v1",
        "еurusd_1h_xgb_trend_v1",  # noqa: RUF001 - the first letter is Cyrillic on purpose
        "eurusd_1h_xgb_" + "a" * 300 + "_v1",
        "eurusd_1h_xgb_trend_v1/../../x",
        "eurusd\\1h_xgb_trend_v1",
        "eurusd_1h_xgb_trend_v¹",
        "eurusd_1h_xgb_trend_v\u0661",
        "\uff45urusd_1h_xgb_trend_v1",
        "eurusd_1\u200bh_xgb_trend_v1",
        "EURUSD_1h_xgb_trend_v1\u0130",
        "eurusd_1h_xgb__trend_v1",
        " eurusd_1h_xgb_trend_v1",
        "con_1h_xgb_trend_v1.",
        "eurusd_1h_xgb_trend\u212a_v1",
        "eurusd_1h_xgb_trend_v1" + "0" * 18,
        "",
        "..",
        "v" * 1_000_000,
    ],
)
def test_hostile_names_are_refused_showing_the_grammar(name: str) -> None:
    """A name outside the grammar is refused, and the message shows the grammar."""
    with pytest.raises(NameRefused) as refused:
        parse_model_id(name)
    assert GRAMMAR in str(refused.value)


def test_a_pair_and_upper_case_are_normalised() -> None:
    """EUR/USD becomes eurusd; two slashes are refused."""
    parts = {"timeframe": "1H", "model_type": "XGB", "strategy": "Trend", "version": "v2"}
    assert ModelName.of(market="EUR/USD", **parts).model_id == "eurusd_1h_xgb_trend_v2"
    with pytest.raises(NameRefused):
        ModelName.of(market="EUR//USD", **parts)


def test_a_family_is_read_from_any_name_of_it() -> None:
    """A family, a model_id or a build name the same family; what is none shows the grammar."""
    for text in ("trend", "trend_v3", "trend_v3_20250325", "TREND_V3"):
        assert parse_family(f"eurusd_1h_xgb_{text}").family == "eurusd_1h_xgb_trend"
    for text in ("", "eurusd", "eurusd_1h_xgb_", "../eurusd_1h_xgb_trend"):
        with pytest.raises(NameRefused, match="lower-case ASCII"):
            parse_family(text)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a\x00b", "x" * 300, "еurusd"])  # noqa: RUF001 - Cyrillic
def test_hostile_parts_are_refused(registry: ModelRegistry, name: str) -> None:
    """No part of a name, and no name to find, promote or import, leads anywhere else."""
    parts = {"market": "eurusd", "timeframe": "1h", "model_type": "xgb", "strategy": "trend"}
    for part in parts:
        with pytest.raises(NameRefused):
            ModelName.of(version=1, **(parts | {part: name}))
        with pytest.raises(NameRefused):
            registry.save_model(b"", parts | {part: name, "features": ["a"]})
    for model_id in (name, f"{name}_1h_xgb_trend_v1", f"eurusd_1h_xgb_{name}_v1"):
        with pytest.raises(NameRefused):
            registry.save_model(b"", {"model_id": model_id, "features": ["a"]})
        with pytest.raises(ModelNotFound):
            registry.promote_model(model_id)
    assert registry.verify()


@pytest.mark.parametrize(
    "date",
    [
        *("20250230", "20251301", "00000101", "2025-3-5", "2025032", "202503251", " 2025325", ""),
        *("202503" + "9" * 50, "9" * 5_000, "\uff12\uff10250325"),
    ],
)
def test_a_date_must_be_real(date: str) -> None:
    """The 30th of February is refused, and so is what is no eight ASCII digits."""
    with pytest.raises(NameRefused, match="real date"):
        require_date(date)
    with pytest.raises(NameRefused):
        parse_build(f"eurusd_1h_xgb_trend_v1_{date}")


@pytest.mark.parametrize(
    "version",
    [
        *(0, -1, True, 1.0, None, [], "", "v", "0", "v01", "1.5", " 1", "1\n", "\u0661"),
        *(10**18, 10**5_000, "9" * 5_000, "v" + "9" * 19),
    ],
    ids=lambda each: str(type(each).__name__),
)
def test_what_is_no_version_is_refused(version: Any) -> None:
    """Anything but a whole number from 1 of at most 18 digits, with or without its v."""
    with pytest.raises(NameRefused, match="version"):
        parse_version(version)


def test_versions_are_read_in_each_of_their_forms() -> None:
    """A number, numpy's, a text with and without v; the largest has 18 digits."""
    largest = 10**18 - 1
    given = (3, np.int64(3), "3", "v3", largest, f"v{largest}")
    assert [parse_version(each) for each in given] == [3, 3, 3, 3, largest, largest]
    assert type(parse_version(np.int64(3))) is int


def test_the_longest_name_is_the_same_for_all() -> None:
    """A model_id of which no build could be named is refused where it is read."""
    longest = "eurusd_1h_xgb_" + "a" * (LONGEST_NAME - len("eurusd_1h_xgb__v1_YYYYMMDD")) + "_v1"
    build = parse_model_id(longest).build("20250325")
    assert len(build) == LONGEST_NAME
    assert parse_build(build)[0].model_id == longest
    with pytest.raises(NameRefused):
        parse_model_id(longest.replace("_v1", "a_v1"))


def test_the_next_version_follows_the_highest(
    registry: ModelRegistry, classifier: Any, info: Callable[..., Any]
) -> None:
    """By number, whatever environment it is in; of a family not yet stored it is the first."""
    assert registry.next_version("EURUSD_1h_xgb_trend") == "eurusd_1h_xgb_trend_v1"
    for version in (9, 10, 2):
        registry.save_model(classifier, info(version=version))
    registry.archive_model("eurusd_1h_xgb_trend_v10")
    for name in ("eurusd_1h_xgb_trend", "eurusd_1h_xgb_trend_v2_20250325"):
        assert registry.next_version(name) == "eurusd_1h_xgb_trend_v11"
    assert registry.next_version("eurusd_1h_xgb_trend_long") == "eurusd_1h_xgb_trend_long_v1"
    with pytest.raises(NameRefused):
        registry.next_version("../eurusd_1h_xgb_trend")
