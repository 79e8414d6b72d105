"""Client of the tickserve daemon: predictions and feedback over ZeroMQ (pyzmq and msgspec only)."""

from tickserve_client.errors import (
    ClientError,
    ConnectionFailed,
    KeyFileUnreadable,
    ProtocolError,
    RequestTimeout,
    ServerError,
)
from tickserve_client.keys import BotKeys, read_keys
from tickserve_client.messages import Ack, Equity, Label, ModelCard, Outcome, Prediction, Welcome
from tickserve_client.sync import Client

__all__ = [
    "Ack",
    "BotKeys",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "Equity",
    "KeyFileUnreadable",
    "Label",
    "ModelCard",
    "Outcome",
    "Prediction",
    "ProtocolError",
    "RequestTimeout",
    "ServerError",
    "Welcome",
    "read_keys",
]
