"""Asks a process of the running daemon one thing, on a fresh connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import typer
import zmq

from tickserve_client.codec import Decoder, Encoder
from tickserve_client.errors import ProtocolError
from tickserve_client.keys import BotKeys
from tickserve_client.messages import Error, Message, Status, StatusReport
from tickserve_server.cli.output import fail
from tickserve_server.errors import NotAnswering

TIMEOUT = typer.Option(2.0, "--timeout", help="Seconds to wait for the answer.")

EFFECT_S = 5.0
"""How long the daemon may take to see a change."""

EFFECT_ANSWER_S = 1.0
EFFECT_LOOK_S = 0.005


def ask(
    endpoint: str,
    message: Message,
    timeout: float,
    kind: type[Any],
    *,
    keys: BotKeys | None = None,
) -> Any:
    """Send one request on a fresh connection; raise NotAnswering without a reply in time."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.immediate = True
        socket.sndtimeo = socket.rcvtimeo = round(timeout * 1000)
        if keys is not None:
            keys.secure(socket)
        socket.connect(endpoint)
        try:
            socket.send(Encoder().encode(message, as_json=False))
            reply, _ = Decoder[Any](kind | Error).decode(socket.recv_multipart()[-1])
        except zmq.Again:
            reason = f"no reply within {timeout:g} s; start it with: tickserve serve"
            raise NotAnswering(endpoint=endpoint, reason=reason) from None
        except ProtocolError as error:
            raise NotAnswering(endpoint=endpoint, reason=error.reason) from error
    if isinstance(reply, Error):
        fail(f"{reply.code}: {reply.message}")
    return reply


def await_effect(endpoint: str, holds: Callable[[dict[str, Any]], bool]) -> float | None:
    """Wait until the status of a process shows a change; None where no daemon runs.

    Returns the seconds it took; ends the command where it takes too long.
    """
    began = time.monotonic()
    try:
        while not holds(ask(endpoint, Status(), EFFECT_ANSWER_S, StatusReport).report):
            if time.monotonic() - began > EFFECT_S:
                fail(f"the daemon has not seen it within {EFFECT_S:g} s; see tickserve status")
            time.sleep(EFFECT_LOOK_S)
    except NotAnswering:
        return None
    return time.monotonic() - began


def when(seconds: float | None) -> str:
    """Return in words since when a change holds."""
    return "from the daemon's next start; none runs here" if seconds is None else "now"
