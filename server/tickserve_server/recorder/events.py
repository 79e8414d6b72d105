"""The events endpoint: numbered messages to whoever subscribes."""

from __future__ import annotations

import queue
from typing import Any

import msgspec
import zmq

HEARTBEAT_S = 1.0


class EventPublisher:
    """XPUB with one sequence over all topics; other threads hand events in through put()."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
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
        while self._socket.poll(0, zmq.POLLIN):
            self._socket.recv()
        while not self._waiting.empty():
            self.publish(*self._waiting.get_nowait())
        if now - self._beat_at >= HEARTBEAT_S:
            self._beat_at = now
            self.publish("heartbeat", {})

    def snapshot(self) -> dict[str, Any]:
        """Return the newest event of each topic and the sequence reached, to repair a gap."""
        return {"seq": self.sequence, "events": list(self._latest.values())}
