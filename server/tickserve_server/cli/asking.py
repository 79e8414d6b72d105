"""Asks a process of the running daemon one thing, on a fresh connection."""

from __future__ import annotations

from typing import Any

import typer
import zmq

from tickserve_client.codec import Decoder, Encoder
from tickserve_client.errors import ProtocolError
from tickserve_client.messages import Error, Message
from tickserve_server.cli.output import fail
from tickserve_server.errors import NotAnswering

TIMEOUT = typer.Option(2.0, "--timeout", help="Seconds to wait for the answer.")


def ask(endpoint: str, message: Message, timeout: float, kind: type[Any]) -> Any:
    """Send one request on a fresh connection; raise NotAnswering without a reply in time."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.immediate = True
        socket.sndtimeo = socket.rcvtimeo = round(timeout * 1000)
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
