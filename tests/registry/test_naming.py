"""Tests of names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickserve_registry.errors import ModelNotFound, NameRefused
from tickserve_registry.layout import ENVIRONMENTS, METADATA, Layout
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.naming import GRAMMAR, ModelName, parse_build, parse_family, parse_model_id

word = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8)
names = st.builds(
    lambda market, timeframe, kind, strategy, version: ModelName.of(
        market=market,
        timeframe=timeframe,
        model_type=kind,
        strategy="_".join(strategy),
        version=version,
    ),
    word,
    st.builds("{}{}".format, st.integers(1, 999), st.sampled_from(["s", "m", "h", "d", "w", "mo"])),
    word,
    st.lists(word, min_size=1, max_size=4),
    st.integers(1, 10_000),
)
dates = st.dates().map(lambda date: date.strftime("%Y%m%d").zfill(8))


@settings(max_examples=10_000, deadline=None)
@given(names, dates)
def test_round_trip(name: ModelName, date: str) -> None:
    """A name that is written reads back as family, version and date."""
    found, found_date = parse_build(name.build(date))
    assert (found.family, found.version, found_date) == (name.family, name.version, date)


@settings(max_examples=10_000, deadline=None)
@given(st.text(max_size=40) | st.from_regex(r"[a-z0-9_./\\\x00-]{1,60}", fullmatch=True))
def test_no_accepted_name_leaves_the_root(text: str) -> None:
    """Whatever is accepted lies below the root; everything else is refused."""
    layout = Layout(Path("/root-of-storage"))
    try:
        parse_build(text)
    except NameRefused:
        return
    for environment in ENVIRONMENTS:
        path = layout.file(text, environment, METADATA)
        assert ".." not in path.parts
        assert path.is_relative_to(layout.root)


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


def test_a_date_must_be_real() -> None:
    """The 30th of February is refused."""
    with pytest.raises(NameRefused, match="real date"):
        parse_build("eurusd_1h_xgb_trend_v1_20250230")
