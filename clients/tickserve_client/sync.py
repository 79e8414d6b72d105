"""The blocking client: predictions, model lists and acknowledged feedback for one bot."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import zmq

from tickserve_client.errors import ConnectionFailed, RequestTimeout
from tickserve_client.keys import BotKeys, read_keys
from tickserve_client.messages import (
    Ack,
    Batch,
    Equity,
    Features,
    Hello,
    Label,
    Message,
    ModelCard,
    ModelList,
    Models,
    Outcome,
    Ping,
    Pong,
    Predict,
    Prediction,
    Side,
    Time,
    TradeStatus,
    Welcome,
)
from tickserve_client.session import Session, beside, expect

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5555"
DEFAULT_TIMEOUT_S = 0.25
FEEDBACK_TIMEOUT_S = 2.0
"""An acknowledgement waits for a durable commit, which costs more than a prediction."""


class Channel:
    """One DEALER socket to one endpoint: sends a request, returns its reply in time.

    `IMMEDIATE` keeps a request from queueing to an absent server, so nothing stale arrives
    when one starts. A late reply is dropped by its id.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        keys: BotKeys | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._session = Session()
        self._socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.immediate = True
        if keys is not None:
            keys.secure(self._socket)
        self._socket.connect(endpoint)

    def request(self, message: Message, *, op: str, timeout: float) -> Any:
        """Send and wait at most `timeout` seconds.

        Raises ConnectionFailed, RequestTimeout, ServerError or ProtocolError.
        """
        deadline = time.monotonic() + timeout
        request_id, body = self._session.request(message)
        if not self._wait(zmq.POLLOUT, deadline):
            raise ConnectionFailed(op=op, endpoint=self.endpoint, seconds=timeout)
        self._socket.send(body)
        while self._wait(zmq.POLLIN, deadline):
            reply = self._session.match(self._socket.recv_multipart(), request_id)
            if reply is not None:
                return reply
        raise RequestTimeout(op=op, endpoint=self.endpoint, seconds=timeout)

    def _wait(self, event: int, deadline: float) -> bool:
        remaining_ms = max(0, math.ceil((deadline - time.monotonic()) * 1000))
        return bool(self._socket.poll(remaining_ms, event))

    def close(self) -> None:
        """Close the socket; unsent requests are dropped."""
        self._socket.close()


class Client:
    """A bot's connection to one daemon.

    `keys` are a key file, or what read_keys() returns, where the daemon asks for them. Not
    thread-safe and not fork-safe: one client per thread and process. Raises KeyFileUnreadable.
    """

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        *,
        bot: str = "bot",
        run: str | None = None,
        account: str | None = None,
        currency: str | None = None,
        starting_equity: float | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
        keys: str | Path | BotKeys | None = None,
    ) -> None:
        self.bot = bot
        self.run = run or uuid.uuid4().hex
        self.account = account
        self.currency = currency
        self.starting_equity = starting_equity
        self.timeout = timeout
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._keys = read_keys(keys) if isinstance(keys, str | Path) else keys
        self._predict = Channel(self._context, endpoint, self._keys)
        self._feedback: Channel | None = None

    def predict(
        self,
        model: str,
        features: Mapping[str, float | None] | Mapping[str, float] | Sequence[Any],
        *,
        bar_time: Time | None = None,
        deadline_ms: float | None = None,
        log: bool = True,
        timeout: float | None = None,
    ) -> Prediction:
        """Ask `model` (family, model_id or build) about one row, by feature name or in order."""
        message = Predict(
            model=model,
            features=cast("Features", features),
            bar_time=bar_time,
            deadline_ms=deadline_ms,
            log=log,
        )
        reply: Prediction = expect(self._ask(message, "predict", timeout), Prediction)
        return reply

    def models(self, *, timeout: float | None = None) -> Sequence[ModelCard]:
        """Return every production build that answers now, with its input contract."""
        reply: ModelList = expect(self._ask(Models(), "models", timeout), ModelList)
        return reply.models

    def hello(self, *, timeout: float | None = None) -> Welcome:
        """Return the daemon's endpoints, limits and clock."""
        reply: Welcome = expect(self._ask(Hello(), "hello", timeout), Welcome)
        return reply

    def ping(self, *, timeout: float | None = None) -> Pong:
        """Return whether the serving process is alive and ready."""
        reply: Pong = expect(self._ask(Ping(), "ping", timeout), Pong)
        return reply

    def report(
        self,
        *,
        trade: str,
        seq: int = 1,
        status: TradeStatus = "closed",
        final: bool = True,
        prediction_id: str | None = None,
        build: str | None = None,
        side: Side | None = None,
        qty: float | None = None,
        entry_price: float | None = None,
        exit_price: float | None = None,
        pnl: float | None = None,
        fees: float | None = None,
        swap: float | None = None,
        currency: str | None = None,
        return_: float | None = None,
        opened_at: Time | None = None,
        closed_at: Time | None = None,
        exit_reason: str | None = None,
        timeout: float | None = None,
    ) -> Ack:
        """Report one trade; returns once it is durably recorded (`Ack.status`).

        `pnl` is net of `fees` and `swap`, in `currency`. Sending the same trade again is
        harmless: the key is (bot, run, trade) and the answer is then `duplicate`.
        """
        outcome = Outcome(
            bot=self.bot,
            run=self.run,
            trade=trade,
            seq=seq,
            status=status,
            final=final,
            prediction_id=prediction_id,
            build=build,
            side=side,
            qty=qty,
            entry_price=entry_price,
            exit_price=exit_price,
            pnl=pnl,
            fees=fees,
            swap=swap,
            currency=currency or self.currency,
            return_=return_,
            opened_at=opened_at,
            closed_at=closed_at,
            exit_reason=exit_reason,
        )
        wait = FEEDBACK_TIMEOUT_S if timeout is None else timeout
        ack: Ack = expect(self._recorder().request(outcome, op="outcome", timeout=wait), Ack)
        return ack

    def tell(
        self, items: Sequence[Outcome | Label | Equity], *, timeout: float | None = None
    ) -> Ack:
        """Send several feedback items in one message; returns once all are durably recorded.

        `Ack.results` says in their order what became of each. Sending them again is harmless.
        """
        wait = FEEDBACK_TIMEOUT_S if timeout is None else timeout
        batch = Batch(items=list(items))
        ack: Ack = expect(self._recorder().request(batch, op="batch", timeout=wait), Ack)
        return ack

    def close(self) -> None:
        """Close the sockets; pending replies are dropped."""
        self._predict.close()
        if self._feedback is not None:
            self._feedback.close()
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, message: Message, op: str, timeout: float | None) -> Any:
        wait = self.timeout if timeout is None else timeout
        return self._predict.request(message, op=op, timeout=wait)

    def _recorder(self) -> Channel:
        """Connect to feedback on first use and register the run, once."""
        if self._feedback is None:
            told = self.hello().endpoints["feedback"]
            channel = Channel(self._context, beside(told, self._predict.endpoint), self._keys)
            try:
                channel.request(self._registration(), op="hello", timeout=FEEDBACK_TIMEOUT_S)
            except BaseException:
                channel.close()
                raise
            self._feedback = channel
        return self._feedback

    def _registration(self) -> Hello:
        return Hello(
            bot=self.bot,
            run=self.run,
            account=self.account,
            mode="demo",
            currency=self.currency,
            starting_equity=self.starting_equity,
        )
