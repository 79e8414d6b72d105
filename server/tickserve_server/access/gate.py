"""Stands before a process's sockets: CURVE alone, keys that are known, and their grants."""

from __future__ import annotations

import structlog
import zmq

from tickserve_server.access.grant import NOBODY, Grant, KeyRing, Operation
from tickserve_server.access.key_folder import KeyFolder
from tickserve_server.access.zap import Verdict, ZapHandler
from tickserve_server.errors import KeysUnreadable
from tickserve_server.settings import Settings
from tickserve_server.watch import FileWatch

log = structlog.get_logger(__name__)

DOMAIN = "tickserve."


class Gate:
    """Keys of one process; follows the folder, so that a revocation counts from its next message.

    Raises KeysUnreadable where there are no keys. A folder that cannot be read later leaves the
    keys that were known.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], folder: KeyFolder) -> None:
        self._folder = folder
        self._secret = folder.server().secret.encode()
        self.problem: str | None = None
        self._watch = FileWatch([folder.grants_file], self.refresh)
        self.ring: KeyRing = folder.ring()
        self._zap = ZapHandler(context, self._judge)

    def start(self) -> None:
        """Judge connections and follow the folder."""
        self._zap.start()
        self._watch.start()

    def stop(self) -> None:
        """Stop following; nobody can connect any more."""
        self._watch.stop()
        self._zap.stop()

    def secure(self, socket: zmq.Socket[bytes], operation: Operation) -> None:
        """Have a socket take CURVE connections alone, each judged; before it is bound."""
        socket.curve_server = True
        socket.curve_secretkey = self._secret
        socket.zap_domain = f"{DOMAIN}{operation}".encode()
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def grant_of(self, frame: zmq.Frame) -> Grant:
        """Return what the sender of a message may do now: nothing, if it carries no known key."""
        try:
            key = frame.get("User-Id")
        except zmq.ZMQError:
            return NOBODY
        grant = self.ring.find(str(key))
        return NOBODY if grant.revoked_at is not None else grant

    def refresh(self) -> None:
        """Read the grants again."""
        try:
            ring = self._folder.ring()
        except KeysUnreadable as error:
            log.error("keys_unreadable", reason=str(error))
            self.problem = str(error)
            return
        self.problem = None
        if ring.revision != self.ring.revision:
            log.info("keys_changed", revision=ring.revision)
        self.ring = ring

    @property
    def refused(self) -> int:
        """Connections refused since the start."""
        return self._zap.refused

    def service(self) -> None:
        """Replace a handler that has died; cheap, called now and then."""
        if not self._zap.is_alive:
            log.error("key_handler_died")
            self._zap.start()

    def _judge(self, domain: str, key: str) -> Verdict:
        grant = self.ring.find(key)
        if grant is NOBODY:
            return Verdict(False, "", "unknown key")
        if grant.revoked_at is not None:
            return Verdict(False, grant.name, "revoked key")
        operation = domain.removeprefix(DOMAIN)
        # Whoever may only report still asks the predict endpoint where to.
        if operation != "predict" and operation not in grant.operations:
            return Verdict(False, grant.name, f"not granted: {operation}")
        return Verdict(True, grant.name, "OK")


class Unauthorized(Exception):
    """What a grant does not allow; becomes the error `unauthorized`."""

    def __init__(self, grant: Grant, message: str, **details: str) -> None:
        who = f"the key of {grant.name}" if grant.name else "this connection's key"
        super().__init__(f"{who} {message}")
        self.name = grant.name
        self.details = details

    def note(self) -> None:
        """Leave a line in the log: somebody has asked for what is not theirs."""
        log.warning("request_refused", name=self.name, reason=str(self))


def require_operation(grant: Grant, operation: Operation) -> None:
    """Raise Unauthorized where a key is good for nothing, or not for this."""
    if grant is NOBODY:
        raise Unauthorized(grant, "is not known, or was revoked")
    if not grant.allows(operation):
        raise Unauthorized(grant, f"does not allow {operation}", operation=operation)


def require_model(grant: Grant, *, family: str, market: str) -> None:
    """Raise Unauthorized where a model is out of a key's reach."""
    if not grant.covers(family=family, market=market):
        raise Unauthorized(grant, f"does not reach {family}", model=family)


def open_gate(context: zmq.Context[zmq.Socket[bytes]], settings: Settings) -> Gate | None:
    """Return the gate of a process, None where no keys are asked for. Raises KeysUnreadable."""
    return Gate(context, KeyFolder(settings.keys_folder)) if settings.security.curve else None
