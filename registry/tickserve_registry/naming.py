"""Names of models: the grammar, what is normalised, and family, model_id and build."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any, Self, SupportsIndex

import msgspec

from tickserve_registry.errors import NameRefused

LONGEST_NAME = 200
LONGEST_DATE = len("_YYYYMMDD")
LARGEST_VERSION = 10**18 - 1
"""The largest that NUMBER admits: more digits than any timestamp's, and it fits 64 bits."""

MARKET = r"[a-z0-9]+"
TIMEFRAME = r"[1-9][0-9]*(?:s|m|h|d|w|mo)"
MODEL_TYPE = r"[a-z0-9]+"
STRATEGY = r"[a-z0-9]+(?:_[a-z0-9]+)*"
NUMBER = r"[1-9][0-9]{0,17}"
DATE = r"[0-9]{8}"

GRAMMAR = (
    "{market}_{timeframe}_{model_type}_{strategy}_v{N}_{YYYYMMDD}, lower-case ASCII letters and "
    "digits, e.g. eurusd_5m_xgb_trend_v1_20250325 (timeframes: 30s 5m 1h 1d 1w 1mo; the strategy "
    "may hold underscores)"
)
_MODEL_ID = re.compile(
    rf"(?P<model_id>(?P<market>{MARKET})_(?P<timeframe>{TIMEFRAME})_(?P<model_type>{MODEL_TYPE})_"
    rf"(?P<strategy>{STRATEGY})_v(?P<version>{NUMBER}))(?:_(?P<date>{DATE}))?",
    re.ASCII,
)
_PAIR = re.compile(r"([a-z0-9]+)/([a-z0-9]+)", re.ASCII)
_VERSION = re.compile(rf"v?({NUMBER})", re.ASCII)
MILLISECONDS = {
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 7 * 86_400_000,
    "mo": 31 * 86_400_000,
}
_PARTS = {"market": MARKET, "timeframe": TIMEFRAME, "model_type": MODEL_TYPE, "strategy": STRATEGY}


class ModelName(msgspec.Struct, frozen=True, kw_only=True, order=False):
    """What a model_id says; `version` is a number, so that v10 follows v9."""

    market: str
    timeframe: str
    model_type: str
    strategy: str
    version: int

    @property
    def family(self) -> str:
        """The name without version and date."""
        return f"{self.market}_{self.timeframe}_{self.model_type}_{self.strategy}"

    @property
    def model_id(self) -> str:
        """Family and version."""
        return f"{self.family}_v{self.version}"

    def build(self, date: str) -> str:
        """Model_id and date, the stem of the files; the date is YYYYMMDD and real."""
        return f"{self.model_id}_{require_date(date)}"

    @classmethod
    def of(cls, *, version: object, **parts: object) -> Self:
        """Build a name from its parts, normalised; raise NameRefused naming the part."""
        checked = {name: _part(name, parts[name]) for name in _PARTS}
        name = cls(version=parse_version(version), **checked)
        if len(name.model_id) + LONGEST_DATE > LONGEST_NAME:
            problem = f"longer than {LONGEST_NAME} characters"
            raise NameRefused(part="name", value=name.model_id, grammar=problem)
        return name


def parse_model_id(text: str) -> ModelName:
    """Read a model_id; raise NameRefused showing the grammar."""
    name, date = _parse(text)
    if date is not None:
        raise NameRefused(part="model_id", value=text, grammar=GRAMMAR)
    return name


def parse_build(text: str) -> tuple[ModelName, str]:
    """Read a build as name and date (YYYYMMDD); raise NameRefused showing the grammar."""
    name, date = _parse(text)
    if date is None:
        raise NameRefused(part="build", value=text, grammar=GRAMMAR)
    return name, require_date(date)


def parse_family(text: str) -> ModelName:
    """Read a family, or the family of a model_id or build (its version is then ignored).

    Raises NameRefused showing the grammar.
    """
    lowered = text.lower() if text.isascii() else text
    try:
        return _parse(lowered)[0]
    except NameRefused:
        pass
    try:
        return _parse(f"{lowered}_v1")[0]
    except NameRefused as error:
        raise NameRefused(part="family", value=text, grammar=GRAMMAR) from error


def milliseconds_of(timeframe: str) -> int:
    """Return the length of a bar in milliseconds; a month counts as 31 days."""
    number = timeframe.rstrip("smhdwo")
    return int(number) * MILLISECONDS[timeframe.removeprefix(number)]


def parse_version(value: object) -> int:
    """Read a model's version: a positive integer or `v3`; raise NameRefused otherwise."""
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):  # numpy's integers, too
        number = value.__index__()
        if 1 <= number <= LARGEST_VERSION:
            return number
    match = _VERSION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        grammar = "a whole number from 1, or v1, v2 …, of at most 18 digits"
        raise NameRefused(part="version", value=value, grammar=grammar)
    return int(match[1])


def require_date(text: str) -> str:
    """Return a real date as YYYYMMDD; raise NameRefused for 20250230 and the like."""
    real = re.fullmatch(DATE, text, re.ASCII) is not None
    if real:
        try:
            dt.date(int(text[:4]), int(text[4:6]), int(text[6:]))
        except ValueError:
            real = False
    if not real:
        raise NameRefused(part="date", value=text, grammar="a real date as YYYYMMDD")
    return text


def _parse(text: str) -> tuple[ModelName, str | None]:
    match = _MODEL_ID.fullmatch(text) if len(text) <= LONGEST_NAME else None
    if match is None or len(match["model_id"]) + LONGEST_DATE > LONGEST_NAME:
        raise NameRefused(part="name", value=text, grammar=GRAMMAR)
    fields: dict[str, Any] = match.groupdict()
    date = fields.pop("date")
    del fields["model_id"]
    return ModelName(**{**fields, "version": int(fields["version"])}), date


def _part(name: str, value: object) -> str:
    text = value.lower() if isinstance(value, str) and value.isascii() else ""
    pair = _PAIR.fullmatch(text) if name == "market" else None
    if pair is not None:
        text = pair[1] + pair[2]
    if re.fullmatch(_PARTS[name], text, re.ASCII) is None:
        raise NameRefused(part=name, value=value, grammar=f"it takes {_PARTS[name]} in {GRAMMAR}")
    return text
