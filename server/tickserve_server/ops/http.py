"""The HTTP server of operations: /metrics, /healthz and /readyz, on threads of their own."""

from __future__ import annotations

import hmac
import socket
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import msgspec
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from tickserve_server.errors import EndpointInUse
from tickserve_server.ops.health import Health

log = structlog.get_logger(__name__)

MOST_REQUESTS = 8
"""At a time; more are turned away, so that nobody's scrapes take the interpreter."""

TIMEOUT_S = 5.0
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


class Page(NamedTuple):
    """An answer."""

    status: HTTPStatus
    kind: str
    body: bytes


class OpsServer:
    """Answers until closed. With a token, what is told beyond a status needs it.

    Raises EndpointInUse where the address is taken.
    """

    def __init__(
        self, address: str, collector: Collector, health: Health, *, token: str | None = None
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector)
        self._health = health
        self._token = token
        host, _, port = address.rpartition(":")
        try:
            _require_free(host.strip("[]"), int(port))
            self._server = _Server((host.strip("[]"), int(port)), self._answer)
        except OSError as error:
            reason = error.strerror or str(error)
            raise EndpointInUse(name="ops", endpoint=address, reason=reason) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="ops", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, path: str, *, bearer: str, accept: str) -> Page:
        knows = self._token is None or hmac.compare_digest(bearer.encode(), self._token.encode())
        if path == "/healthz":
            return _page(self._health.alive(), ok=self._health.is_alive, told=knows)
        if path == "/readyz":
            state = self._health.readiness()
            return _page(state, ok=state["ready"], told=knows)
        if path != "/metrics":
            return Page(HTTPStatus.NOT_FOUND, TEXT, b"there are /metrics, /healthz and /readyz\n")
        if not knows:
            return Page(HTTPStatus.UNAUTHORIZED, TEXT, b"send Authorization: Bearer TOKEN\n")
        encode, kind = choose_encoder(accept)
        return Page(HTTPStatus.OK, kind, encode(self._registry))


class _Server(ThreadingHTTPServer):
    """A thread for each request, a few at a time."""

    daemon_threads = True
    request_queue_size = 16

    def __init__(self, address: tuple[str, int], answer: Callable[..., Page]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.answer = answer
        self._places = threading.BoundedSemaphore(MOST_REQUESTS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Take a request, or close its connection when there are too many."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a request, and make place for another."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note what went wrong; a client that has gone is nothing to note."""
        del request, client_address
        log.debug("ops_request_failed", reason=repr(sys.exc_info()[1]))


class _Handler(BaseHTTPRequestHandler):
    """Reads one request and writes its answer."""

    server: _Server
    timeout = TIMEOUT_S
    server_version = "tickserve"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer."""
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        path = self.path.partition("?")[0]
        page = self.server.answer(path, bearer=bearer, accept=self.headers.get("Accept", ""))
        self.send_response(page.status)
        self.send_header("Content-Type", page.kind)
        self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        self.wfile.write(page.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Say nothing: scrapes come every few seconds."""


def _page(state: dict[str, Any], *, ok: bool, told: bool) -> Page:
    """Return a state as JSON; to those who may not know it, only whether all is well."""
    status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
    return Page(status, JSON, msgspec.json.encode(state if told else {}) + b"\n")


def _require_free(host: str, port: int) -> None:
    """Raise OSError where somebody listens: the server itself would listen beside another."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
