"""What feedback may say: the rules that need no other message to be judged."""

from __future__ import annotations

import math

from tickserve_client.codec import milliseconds
from tickserve_client.messages import Equity, Hello, Label, Outcome, Time

FUTURE_MS = 60_000
"""How far ahead of our clock a time may be before it counts as the future."""

EARLIEST_MS = 100_000_000_000
"""1973 in milliseconds; in seconds it is the year 5138, so a smaller number means seconds."""

LONGEST_NAME = 200
LARGEST_AMOUNT = 1e15
LARGEST_SEQUENCE = 2**63 - 1
AMOUNTS = ("qty", "entry_price", "exit_price", "pnl", "fees", "swap", "return_")


class InvalidItem(Exception):
    """An item that breaks a rule of the protocol; nothing of it is stored."""


def check_hello(hello: Hello) -> None:
    """Refuse a registration that names no run, or impossible capital."""
    _require_name("bot", hello.bot)
    _require_name("run", hello.run)
    for name in ("account", "mode", "currency"):
        _require_text(name, getattr(hello, name))
    _require_amount("starting_equity", hello.starting_equity)
    if hello.starting_equity is not None and hello.starting_equity <= 0:
        raise InvalidItem(f"starting_equity is {hello.starting_equity}; it must be above 0")


def check_outcome(outcome: Outcome, now: int) -> int | None:
    """Refuse a trade that cannot be true; return its closing time in ms."""
    for name in ("bot", "run", "trade"):
        _require_name(name, getattr(outcome, name))
    for name in ("prediction_id", "build", "currency", "exit_reason"):
        _require_text(name, getattr(outcome, name))
    if not 0 <= outcome.seq <= LARGEST_SEQUENCE:
        raise InvalidItem(f"seq is {outcome.seq}; it counts up from 0 and fits 63 bits")
    for name in AMOUNTS:
        _require_amount(name, getattr(outcome, name))
    opened = _time("opened_at", outcome.opened_at, now)
    closed = _time("closed_at", outcome.closed_at, now)
    if opened is not None and closed is not None and closed < opened:
        raise InvalidItem("closed_at lies before opened_at")
    if outcome.final and outcome.status == "closed":
        missing = [n for n, v in (("closed_at", closed), ("pnl", outcome.pnl)) if v is None]
        if missing:
            raise InvalidItem(f"a final closed trade needs {' and '.join(missing)}")
    if outcome.prediction_id is None and outcome.build is None:
        raise InvalidItem("name the `prediction_id` or the `build` that the trade follows")
    return closed


def check_label(label: Label, now: int) -> int:
    """Refuse a label that cannot be; return its time in ms."""
    _require_name("prediction_id", label.prediction_id)
    _require_amount("value", label.value)
    return _instant("at", label.at, now)


def check_equity(snapshot: Equity, now: int) -> int:
    """Refuse a snapshot that cannot be; return its time in ms."""
    _require_name("bot", snapshot.bot)
    _require_name("run", snapshot.run)
    _require_text("currency", snapshot.currency)
    _require_amount("equity", snapshot.equity)
    return _instant("at", snapshot.at, now)


def _require_name(name: str, value: str | None) -> None:
    if not value:
        raise InvalidItem(f"`{name}` is missing")
    _require_text(name, value)


def _require_text(name: str, value: str | None) -> None:
    if value is None:
        return
    if len(value) > LONGEST_NAME:
        raise InvalidItem(f"{name} has {len(value)} characters; {LONGEST_NAME} are the most")
    if not value.isprintable():
        raise InvalidItem(f"{name} holds characters that cannot be printed")


def _require_amount(name: str, value: float | None) -> None:
    if value is None:
        return
    if not math.isfinite(value):
        raise InvalidItem(f"{name.rstrip('_')} is {value}")
    if abs(value) > LARGEST_AMOUNT:
        raise InvalidItem(f"{name.rstrip('_')} is {value:g}; {LARGEST_AMOUNT:g} is the most")


def _time(name: str, value: Time | None, now: int) -> int | None:
    return None if value is None else _instant(name, value, now)


def _instant(name: str, value: Time, now: int) -> int:
    at = milliseconds(value)
    if at > now + FUTURE_MS:
        raise InvalidItem(f"{name} lies {(at - now) // 1000} s in the future")
    if at < EARLIEST_MS:
        raise InvalidItem(f"{name} is {at}, before 1973; times are in milliseconds, not seconds")
    return at
