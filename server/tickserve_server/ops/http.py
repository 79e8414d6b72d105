"""The HTTP server of metrics: a thread that answers scrapes, on loopback."""

from __future__ import annotations

import socket

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector

from tickserve_server.errors import EndpointInUse


class MetricsServer:
    """Serves one collector at http://ADDRESS/metrics until closed.

    Raises EndpointInUse where the address is taken.
    """

    def __init__(self, address: str, collector: Collector) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(collector)
        host, _, port = address.rpartition(":")
        try:
            _require_free(host.strip("[]"), int(port))
            self._server, self._thread = start_http_server(
                int(port), addr=host.strip("[]"), registry=registry
            )
        except OSError as error:
            reason = error.strerror or str(error)
            raise EndpointInUse(name="ops", endpoint=address, reason=reason) from error

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _require_free(host: str, port: int) -> None:
    """Raise OSError where somebody listens: the server itself would listen beside another."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
