"""Bars from names, files and frames: the same bars however they come, faults with their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tickserve_bots.bar_source import load_bars
from tickserve_bots.bars import HOUR_MS, eurusd_hours
from tickserve_registry.errors import BarsRefused

HEADER = "time,open,high,low,close\n"
FIRST = "2025-01-01T00:00:00,1.1,1.2,1.0,1.15\n"
SECOND = "2025-01-01T01:00:00,1.1,1.2,1.0,1.15\n"


@pytest.fixture(scope="module")
def frame() -> Any:
    """Return two hundred real hours as a notebook holds them."""
    bars = eurusd_hours().first(200)
    columns = {name: getattr(bars, name) for name in ("open", "high", "low", "close")}
    return pd.DataFrame({"time": pd.to_datetime(bars.times, unit="ms"), **columns})


def digest(source: Any) -> str:
    """The digest of the bars of a source."""
    return load_bars(source).bars.sha256()


def refusal(folder: Path, text: str | bytes) -> BarsRefused:
    """The error of a CSV file with this text."""
    path = folder / "bars.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BarsRefused) as raised:
        load_bars(path)
    return raised.value


def test_a_name_gives_bars_with_their_market() -> None:
    """The named bars are the package's hours."""
    name, bars, market = load_bars("eurusd_1h")
    assert (name, market, len(bars), bars.step_ms) == ("eurusd_1h", "eurusd", 5_000, HOUR_MS)
    assert bars.sha256() == eurusd_hours().sha256() != eurusd_hours().first(4_999).sha256()


def test_a_file_and_a_frame_give_the_bars_they_were_made_from(frame: Any, tmp_path: Path) -> None:
    """Naive, zoned and epoch times, any case and an index of times all mean the same bars."""
    wanted = eurusd_hours().first(200).sha256()
    stamps = frame["time"].astype("datetime64[ms]").astype(np.int64)
    frame.to_csv(tmp_path / "naive.csv", index=False)
    frame.rename(columns=str.upper).to_csv(tmp_path / "upper.CSV", index=False)
    in_tokyo = frame["time"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")
    frame.assign(time=in_tokyo).to_csv(tmp_path / "zoned.csv", index=False)
    frame.assign(time=stamps // 1000).to_csv(tmp_path / "epoch.csv", index=False)
    paths = [tmp_path / name for name in ("naive.csv", "upper.CSV", "zoned.csv", "epoch.csv")]
    frames = [frame, frame.assign(time=stamps), frame.assign(time=stamps * 1000)]
    frames += [frame.set_index("time"), frame.assign(time=stamps * 1_000_000)]
    assert {digest(source) for source in (*paths, *map(str, paths), *frames)} == {wanted}


def test_parquet_gives_the_same_bars(frame: Any, tmp_path: Path) -> None:
    """With an index of times or a column of them."""
    pytest.importorskip("pyarrow")
    frame.to_parquet(tmp_path / "bars.parquet")
    frame.set_index("time").to_parquet(tmp_path / "index.parquet")
    wanted = eurusd_hours().first(200).sha256()
    assert digest(tmp_path / "bars.parquet") == digest(tmp_path / "index.parquet") == wanted


def test_broken_parquet_is_refused(tmp_path: Path) -> None:
    """With what is missing or what is wrong, never a foreign error."""
    path = tmp_path / "bars.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(BarsRefused, match=r"pyarrow|unreadable"):
        load_bars(path)


def test_numeric_columns_become_ready_features(frame: Any) -> None:
    """Under their own names; gaps stay gaps, text is left out, and the digest tells them apart."""
    own = frame.assign(Sentiment=np.arange(200.0), note="text", gap=np.nan)
    bars = load_bars(own).bars
    assert set(bars.columns) == {"Sentiment", "gap"}
    assert bars.columns["Sentiment"][7] == 7.0
    assert np.isnan(bars.columns["gap"]).all()
    assert bars.sha256() != digest(frame)


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("", "line 1", "empty"),
        (HEADER, "", "no rows"),
        (HEADER + "\n\n", "", "no rows"),
        ("time,open,high,low\n2025-01-01,1,1,1\n", "column close", "missing"),
        ("time,open,high,low,close,Close\n2025-01-01,1,1,1,1,1\n", "column Close", "twice"),
        (HEADER + FIRST + "\n" + FIRST, "line 4, column time", "repeats"),
        (HEADER + SECOND + FIRST, "line 3, column time", "sort"),
        (HEADER + FIRST + "soon,1,1,1,1\n", "line 3, column time", "no ISO"),
        (HEADER + FIRST + ",1,1,1,1\n", "line 3, column time", "no ISO"),
        (HEADER + "100,1,1,1,1\n,1,1,1,1\n", "line 3, column time", "is no time"),
        (HEADER + FIRST + "2025-01-01T01:00:00,1.1,1.2,1.0,\n", "line 3, column close", "finite"),
        (HEADER + "2025-01-01,1.1,1.2,n/a!,1.1\n", "line 2, column low", "finite"),
        (HEADER + "2025-01-01,1.1,inf,1.0,1.1\n", "line 2, column high", "finite"),
        (HEADER + "2025-01-01,1.1,1.0,1.2,1.1\n", "line 2, column high", "below low"),
        (HEADER + FIRST + FIRST.strip() + ",9,9\n", "line 3", "unreadable"),
        (HEADER + FIRST.strip() + ",9\n" + SECOND.strip() + ",9\n", "", "unreadable"),
        (b"\xff\xfe\x00time", "", "unreadable"),
    ],
)
def test_a_bad_file_is_refused_with_the_place_of_its_fault(
    text: str | bytes, place: str, problem: str, tmp_path: Path
) -> None:
    """Line and column as an editor shows them, blank lines counted."""
    error = refusal(tmp_path, text)
    assert error.place == place
    assert problem in error.problem
    assert str(tmp_path / "bars.csv") in str(error)


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    """An unknown name says which names there are; another suffix or type says what is known."""
    with pytest.raises(BarsRefused, match="eurusd_1h"):
        load_bars("us100_15m")
    (tmp_path / "bars.xlsx").write_bytes(b"PK")
    with pytest.raises(BarsRefused, match=r"\.csv or \.parquet"):
        load_bars(tmp_path / "bars.xlsx")
    with pytest.raises(BarsRefused, match="int is no name"):
        load_bars(7)


def test_a_frame_is_refused_by_row() -> None:
    """A frame has no lines; its rows count from 0."""
    times = pd.date_range("2025-01-01", periods=3, freq="h")
    table = pd.DataFrame({name: [1.0, 1.0, None] for name in ("open", "high", "low", "close")})
    with pytest.raises(BarsRefused) as raised:
        load_bars(table.set_index(times))
    assert raised.value.place == "row 2, column open"
