"""A track record: figures of closed trades, kept up to date at the same cost for each trade."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Any, Self

import msgspec

from tickserve_registry.exact import Moments, dump, load, number, units
from tickserve_registry.trading_calendar import (
    TRADING_DAYS,
    Calendar,
    days_between,
    iso,
    trading_day,
)

SCHEMA_VERSION = 1
PROVISIONAL_DAYS = 30
FEWEST_DAYS = 2
DDOF = 1
RISK_FREE = 0.0
MOST_OF_A_DAY = 10_000
"""Trades of the newest day that are kept, so that one that comes late can be put among them.

Those of the first day are kept all: an account that comes on it changes what came before."""

Account = tuple[str, str]
Key = tuple[str, ...]


class ClosedTrade(msgspec.Struct, frozen=True, gc=False):
    """A final closed trade: when it closed (ms since the epoch, UTC) and its net pnl.

    `key` tells trades that closed at the same time apart and gives them their order.
    """

    closed_at: int
    pnl: float
    key: Key = ()
    account: Account = ("", "")
    currency: str | None = None

    @property
    def place(self) -> tuple[int, Key]:
        """Where the trade stands in close order."""
        return self.closed_at, self.key


class EquityPath(msgspec.Struct, kw_only=True):
    """Equity trade by trade; money is exact, as multiples of the smallest float."""

    start: int = 0
    joined: int = 0
    profit: int = 0
    loss: int = 0
    wins: int = 0
    losses: int = 0
    breakevens: int = 0
    peak: float = 0.0
    drawdown: float = 0.0
    ruined: bool = False
    first_at: int | None = None
    last_at: int | None = None
    accounts: frozenset[Account] = frozenset()
    currencies: frozenset[str] = frozenset()

    @property
    def trades(self) -> int:
        """How many trades there were."""
        return self.wins + self.losses + self.breakevens

    @property
    def net(self) -> int:
        """Profit less loss."""
        return self.profit - self.loss

    @property
    def capital(self) -> int:
        """What all accounts brought in."""
        return self.start + self.joined

    @property
    def equity(self) -> float:
        """Capital plus net pnl."""
        return number(self.capital + self.net)

    def open(self, account: Account, capital: float) -> None:
        """Count an account of the first day: the peak starts with its capital."""
        self.start += units(capital)
        self.peak = number(self.start)
        self.accounts |= {account}

    def join(self, account: Account, capital: float) -> None:
        """Count an account that comes on a later day: a flow, never a return."""
        self.joined += units(capital)
        self.peak += capital
        self.accounts |= {account}

    def add(self, trade: ClosedTrade) -> None:
        """Walk on by one trade."""
        pnl = units(trade.pnl)
        if pnl > 0:
            self.wins += 1
            self.profit += pnl
        elif pnl < 0:
            self.losses += 1
            self.loss -= pnl
        else:
            self.breakevens += 1
        equity = self.equity
        self.peak = max(self.peak, equity)
        self.ruined = self.ruined or equity <= 0
        if self.peak > 0:
            self.drawdown = max(self.drawdown, 1 - equity / self.peak)
        if self.first_at is None:
            self.first_at = trade.closed_at
        self.last_at = trade.closed_at
        if trade.currency is not None and trade.currency not in self.currencies:
            self.currencies |= {trade.currency}

    def copy(self) -> EquityPath:
        """Return a path that goes on by itself from here."""
        return msgspec.structs.replace(self)

    def dump(self) -> dict[str, Any]:
        """Return the state, for JSON."""
        state: dict[str, Any] = msgspec.to_builtins(self)
        return state | {name: dump(getattr(self, name)) for name in MONEY}

    @classmethod
    def load(cls, state: dict[str, Any]) -> Self:
        """Return the path that dump() gave away."""
        return msgspec.convert(state | {name: load(state[name]) for name in MONEY}, cls)


MONEY = ("start", "joined", "profit", "loss")


class TrackRecord:
    """Takes trades in close order and always has the figures of all of them.

    Everything before the newest trading day is folded into sums; that day's trades are kept, so
    that they may come in any order and be corrected. A trade of an earlier day is not taken: add()
    and discard() say so, and the record has to be made anew from all trades.

    `capital_of` gives the starting capital of an account, asked once when it first trades.
    """

    def __init__(self, calendar: Calendar, capital_of: Callable[[Account], float]) -> None:
        self.calendar = calendar
        self._capital_of = capital_of
        self._days = Moments()
        self._day: int | None = None
        self._before = EquityPath()
        self._now: EquityPath | None = EquityPath()
        self._trades: list[ClosedTrade] | None = []
        self._last: tuple[int, Key] | None = None

    def add(self, trade: ClosedTrade) -> bool:
        """Take in a trade; return whether that was possible."""
        day = trading_day(trade.closed_at, self.calendar)
        if self._day is None:
            self._day = day
        elif day > self._day:
            self._turn_to(day)
        elif day < self._day:
            return False
        if self._is_next(trade):
            self._append(trade)
            return True
        if self._trades is None:
            return False
        bisect.insort(self._trades, trade, key=lambda each: each.place)
        self._last = self._trades[-1].place
        self._now = None
        return True

    def discard(self, trade: ClosedTrade) -> bool:
        """Take a trade out; return whether that was possible."""
        if self._trades is None or len(self._trades) == 1 or trade not in self._trades:
            return False
        self._trades.remove(trade)
        self._last = self._trades[-1].place
        self._now = None
        return True

    def figures(self, *, as_of: int | None = None, mode: str = "demo") -> dict[str, Any]:
        """Return the flat block of figures; what is undefined is None and its status says why.

        `as_of` (ms) names the open day, whose trades count in everything but the daily returns;
        a clock that is behind the newest trade does not open the days before that again.
        Fractions are of equity; money is in `currency`, which is None where there are several.
        """
        path, is_open = self._path(), self._is_open(as_of)
        days = self._closed_days(is_open=is_open)
        stamp = as_of if as_of is not None else path.last_at
        traded, earned = path.trades - self._before.trades, path.net - self._before.net
        return {
            **_risk(days, calendar=self.calendar, ruined=path.ruined),
            "max_drawdown": path.drawdown,
            "current_drawdown": 1 - path.equity / path.peak if path.peak > 0 else None,
            **_trading(path),
            "period_start": None if path.first_at is None else iso(path.first_at),
            "period_end": None if path.last_at is None else iso(path.last_at),
            "as_of": None if stamp is None else iso(stamp),
            "open_day": {
                "n_trades": traded if is_open else 0,
                "net_pnl": number(earned) if is_open else 0.0,
            },
            "starting_equity": number(path.start),
            "equity": path.equity,
            "joined_equity": number(path.joined),
            "n_accounts": len(path.accounts),
            "currency": next(iter(path.currencies)) if len(path.currencies) == 1 else None,
            "currencies": sorted(path.currencies),
            "calendar": self.calendar,
            "annualization": TRADING_DAYS[self.calendar],
            "ddof": DDOF,
            "risk_free": RISK_FREE,
            "day_boundary": "UTC",
            "mode": mode,
            "schema_version": SCHEMA_VERSION,
        }

    @property
    def n_trades(self) -> int:
        """How many trades were taken in."""
        return self._path().trades

    @property
    def accounts(self) -> frozenset[Account]:
        """The accounts that traded."""
        return self._path().accounts

    def dump(self) -> dict[str, Any]:
        """Return the state, for JSON; the trades of the newest day are not in it."""
        return {
            "calendar": self.calendar,
            "days": self._days.dump(),
            "day": self._day,
            "before": self._before.dump(),
            "now": self._path().dump(),
            "last": self._last,
        }

    @classmethod
    def load(cls, state: dict[str, Any], capital_of: Callable[[Account], float]) -> Self:
        """Return the record that dump() gave away."""
        record = cls(state["calendar"], capital_of)
        record._days = Moments.load(state["days"])
        record._day = state["day"]
        record._before = EquityPath.load(state["before"])
        record._now = EquityPath.load(state["now"])
        record._last = None if state["last"] is None else (state["last"][0], (*state["last"][1],))
        record._trades = [] if record._last is None else None
        return record

    def _is_next(self, trade: ClosedTrade) -> bool:
        """Whether a trade follows all others, and changes nothing about those of its day."""
        in_order = self._last is None or trade.place > self._last
        opens = not self._before.trades and self._last is not None
        return in_order and not (opens and trade.account not in self._path().accounts)

    def _append(self, trade: ClosedTrade) -> None:
        path = self._path()
        self._enter(path, trade.account)
        path.add(trade)
        self._last = trade.place
        if self._trades is not None:
            self._trades.append(trade)
            if len(self._trades) > MOST_OF_A_DAY and self._before.trades:
                self._trades = None

    def _enter(self, path: EquityPath, account: Account) -> None:
        if account in path.accounts:
            return
        if self._before.trades:
            path.join(account, self._capital_of(account))
        else:
            path.open(account, self._capital_of(account))

    def _path(self) -> EquityPath:
        """Return the path up to now, walked anew where a trade of the day has changed."""
        if self._now is None:
            self._now = self._walk(self._trades or [])
        return self._now

    def _walk(self, trades: list[ClosedTrade]) -> EquityPath:
        path = self._before.copy()
        if not self._before.trades:
            for trade in trades:
                self._enter(path, trade.account)
        for trade in trades:
            self._enter(path, trade.account)
            path.add(trade)
        return path

    def _turn_to(self, day: int) -> None:
        """Fold the newest day, and the days without trades up to `day`, into the sums."""
        assert self._day is not None  # noqa: S101 - a day comes after another
        self._days.add(self._day_return())
        self._days.add_zeros(days_between(self._day, day, self.calendar))
        self._before = self._path().copy()
        self._day, self._trades = day, []

    def _day_return(self) -> float:
        """Return the newest day's pnl over the equity before it, capital that joined included."""
        path = self._path()
        invested = number(path.capital + self._before.net)
        return number(path.net - self._before.net) / invested if invested else 0.0

    def _is_open(self, as_of: int | None) -> bool:
        """Whether the newest day is not over."""
        if as_of is None or self._day is None:
            return False
        return self._day >= trading_day(as_of, self.calendar)

    def _closed_days(self, *, is_open: bool) -> Moments:
        days = self._days.copy()
        if self._day is not None and not is_open:
            days.add(self._day_return())
        return days


def _risk(days: Moments, *, calendar: Calendar, ruined: bool) -> dict[str, Any]:
    """Sharpe ratio (Sharpe, 1994) and moments of daily returns."""
    varies = days.n >= FEWEST_DAYS and days.varies
    status = (
        "ruined"
        if ruined
        else "too_few_days"
        if days.n < FEWEST_DAYS
        else "zero_deviation"
        if not varies
        else "provisional"
        if days.n < PROVISIONAL_DAYS
        else "ok"
    )
    per_day = days.mean_over_deviation if varies and not ruined else None
    return {
        "sharpe_ratio": None if per_day is None else per_day * TRADING_DAYS[calendar] ** 0.5,
        "sharpe_status": status,
        "sharpe_per_day": per_day,
        "skew": days.skew if varies else None,
        "kurtosis": days.kurtosis if varies else None,
        "n_days": days.n,
    }


def _trading(path: EquityPath) -> dict[str, Any]:
    n, profit, loss = path.trades, number(path.profit), number(path.loss)
    return {
        "win_rate": path.wins / n if n else None,
        "profit_factor": profit / loss if path.losses else None,
        "profit_factor_status": "ok" if path.losses else "no_losses" if n else "no_trades",
        "n_trades": n,
        "n_wins": path.wins,
        "n_losses": path.losses,
        "n_breakeven": path.breakevens,
        "gross_profit": profit,
        "gross_loss": loss,
        "net_pnl": number(path.net),
        "expectancy": number(path.net) / n if n else None,
        "average_win": profit / path.wins if path.wins else None,
        "average_loss": loss / path.losses if path.losses else None,
    }
