"""The events endpoint: numbered messages to whoever subscribes."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any

import msgspec
import zmq

from tickserve_server.access.gate import Gate
from tickserve_server.errors import EndpointInUse

HEARTBEAT_S = 1.0
ATTEMPTS = 200
ATTEMPT_S = 0.005


class EventPublisher:
    """XPUB with one sequence over all topics; other threads hand events in through put().

    With a gate, a subscription comes to the topics within its key's reach. `open_socket` makes
    the socket, which a revocation replaces: so the connections of the key end. The others
    connect again by themselves, and find the gap in the sequence.
    """

    def __init__(
        self,
        open_socket: Callable[[], zmq.Socket[bytes]],
        *,
        gate: Gate | None = None,
        before_close: Callable[[zmq.Socket[bytes]], None] = lambda _: None,
    ) -> None:
        self._open_socket = open_socket
        self._before_close = before_close
        self._gate = gate
        self._revision = 0 if gate is None else gate.ring.revision
        self._socket = open_socket()
        self._waiting: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
        self._latest: dict[str, dict[str, Any]] = {}
        self._beat_at = 0.0
        self.sequence = 0

    def put(self, topic: str, body: dict[str, Any]) -> None:
        """Hand in an event from any thread; the loop publishes it."""
        self._waiting.put((topic, body))

    def publish(self, topic: str, body: dict[str, Any]) -> None:
        """Send an event; the loop's thread only."""
        self.sequence += 1
        message = {"seq": self.sequence, "topic": topic, **body}
        if topic != "heartbeat":
            self._latest[topic] = message
        self._socket.send_multipart([topic.encode(), msgspec.json.encode(message)], zmq.NOBLOCK)

    def service(self, now: float) -> None:
        """Publish what other threads handed in, and the heartbeat; `now` is monotonic."""
        self._end_revoked()
        self._subscribe()
        while not self._waiting.empty():
            self.publish(*self._waiting.get_nowait())
        if now - self._beat_at >= HEARTBEAT_S:
            self._beat_at = now
            self.publish("heartbeat", {})

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _end_revoked(self) -> None:
        if self._gate is None or self._gate.ring.revision == self._revision:
            return
        self._revision = self._gate.ring.revision
        self._before_close(self._socket)
        self._socket.close(linger=0)
        self._socket = self._opened_again()

    def _opened_again(self) -> zmq.Socket[bytes]:
        """Open the socket at the address that the old one is just leaving."""
        for _ in range(ATTEMPTS):
            try:
                return self._open_socket()
            except EndpointInUse:
                time.sleep(ATTEMPT_S)
        return self._open_socket()

    def _subscribe(self) -> None:
        """Take subscriptions in; with a gate, only as far as the subscriber's key reaches."""
        while self._socket.poll(0, zmq.POLLIN):
            frame = self._socket.recv(0, copy=False)
            if self._gate is None or not frame.bytes:
                continue
            grant = self._gate.grant_of(frame)
            topics = grant.topics(frame.bytes[1:].decode(errors="replace"))
            option = zmq.SUBSCRIBE if frame.bytes[0] else zmq.UNSUBSCRIBE
            for topic in topics if grant.allows("events") else ():
                self._socket.setsockopt_string(option, topic)

    def snapshot(self) -> dict[str, Any]:
        """Return the newest event of each topic and the sequence reached, to repair a gap."""
        return {"seq": self.sequence, "events": list(self._latest.values())}
