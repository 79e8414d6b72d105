"""Client of the tickserve daemon: predictions and feedback over ZeroMQ (pyzmq and msgspec only)."""

from tickserve_client.errors import (
    ClientError,
    ConnectionFailed,
    ProtocolError,
    RequestTimeout,
    ServerError,
)
from tickserve_client.messages import Ack, Equity, Label, ModelCard, Outcome, Prediction, Welcome
from tickserve_client.sync import Client

__all__ = [
    "Ack",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "Equity",
    "Label",
    "ModelCard",
    "Outcome",
    "Prediction",
    "ProtocolError",
    "RequestTimeout",
    "ServerError",
    "Welcome",
]
