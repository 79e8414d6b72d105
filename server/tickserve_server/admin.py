"""The admin endpoint of a process: answers `status`, over ipc and to this user only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import zmq

from tickserve_client.codec import Decoder, Encoder, is_json, split_envelope
from tickserve_client.errors import ProtocolError
from tickserve_client.messages import Error, Status, StatusReport
from tickserve_server.child import bind


class Admin:
    """A ROUTER on ipc that is served whenever its process has time."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        *,
        report: Callable[[], dict[str, Any]],
    ) -> None:
        self._socket: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        self._socket.linger = 0
        bind(self._socket, endpoint, name="admin")
        self._report = report
        self._decoder: Decoder[Status] = Decoder(Status)
        self._encoder = Encoder()

    def service(self) -> None:
        """Answer what waits; never blocks."""
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            envelope, body = split_envelope(frames)
            if body:
                self._socket.send_multipart([*envelope, self._answer(body[0])], zmq.NOBLOCK)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _answer(self, body: bytes) -> bytes:
        reply: StatusReport | Error
        try:
            request, _ = self._decoder.decode(body)
            reply = StatusReport(id=request.id, report=self._report())
        except ProtocolError as error:
            reply = Error(id=error.request_id, code="malformed", message=error.reason)
        return self._encoder.encode(reply, as_json=is_json(body))
