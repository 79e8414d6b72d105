"""The folder of keys: the daemon's own pair, and the public keys of bots with their grants."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import zmq

from tickserve_client.keys import BotKeys
from tickserve_registry.metadata import utc_now
from tickserve_registry.store import read_plain, write_atomic
from tickserve_server.access.grant import OPERATIONS, Grant, KeyRing, Operation
from tickserve_server.errors import KeyRefused, KeysUnreadable

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
LARGEST_BYTES = 1 << 24
T = TypeVar("T")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
OPERATOR = "operator"
"""The name under which commands on the daemon's own machine ask, with the daemon's own key."""


class ServerKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon's CURVE pair, Z85 text."""

    public: str
    secret: str


class _Grants(msgspec.Struct, frozen=True, kw_only=True):
    revision: int = 0
    keys: tuple[Grant, ...] = ()


class KeyFolder:
    """server.json (the daemon's pair, 0600) and bots.json (grants; no secrets) in a folder, 0700.

    The secret of a bot is in the file handed to it, and nowhere else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server_file = folder / "server.json"
        self.grants_file = folder / "bots.json"

    def server(self) -> ServerKeys:
        """Return the daemon's pair. Raises KeysUnreadable."""
        return self._read(self.server_file, ServerKeys)

    def ring(self) -> KeyRing:
        """Return the grants that the daemon asks, and the operator's. Raises KeysUnreadable."""
        found = self._grants()
        operator = Grant(name=OPERATOR, public=self.server().public)
        return KeyRing([*found.keys, operator], revision=found.revision)

    def grants(self) -> tuple[Grant, ...]:
        """Return every grant, revoked ones too. Raises KeysUnreadable."""
        return self._grants().keys

    def operator(self) -> BotKeys:
        """Return the keys of commands on this machine. Raises KeysUnreadable."""
        pair = self.server()
        return BotKeys(bot=OPERATOR, public=pair.public, secret=pair.secret, server=pair.public)

    def create(
        self,
        name: str,
        *,
        out: Path,
        operations: Sequence[Operation] = OPERATIONS,
        markets: Sequence[str] = (),
        models: Sequence[str] = (),
        bots: Sequence[str] = (),
    ) -> Grant:
        """Make a key, write the bot's file to `out` and grant it; the daemon's keys first.

        Raises KeyRefused for a name that is taken or malformed, or a file that is there.
        """
        if NAME.fullmatch(name) is None or name == OPERATOR:
            problem = "is letters, digits, '_', '.' and '-', at most 64, and not 'operator'"
            raise KeyRefused(name=name, problem=f"a name {problem}")
        with self._locked():
            known = self._grants()
            if any(grant.name == name and grant.revoked_at is None for grant in known.keys):
                raise KeyRefused(name=name, problem="has a key; revoke it first")
            if not self.server_file.exists():
                self._make_server_keys()
            public, secret = (key.decode() for key in zmq.curve_keypair())
            grant = Grant(
                name=name,
                public=public,
                operations=tuple(operations),
                markets=tuple(markets),
                models=tuple(models),
                bots=tuple(bots),
                created_at=utc_now(),
            )
            keys = BotKeys(bot=name, public=public, secret=secret, server=self.server().public)
            _write_new(out, keys, name=name)
            self._store(_Grants(revision=known.revision + 1, keys=(*known.keys, grant)))
        return grant

    def revoke(self, name: str) -> int:
        """Make a bot's key good for nothing; return the revision that does. Raises KeyRefused."""
        with self._locked():
            known = self._grants()
            good = [grant for grant in known.keys if grant.name == name and not grant.revoked_at]
            if not good:
                names = ", ".join(g.name for g in known.keys if not g.revoked_at) or "none"
                raise KeyRefused(name=name, problem=f"has no key; there are keys of: {names}")
            at = utc_now()
            keys = tuple(
                msgspec.structs.replace(grant, revoked_at=at) if grant in good else grant
                for grant in known.keys
            )
            self._store(_Grants(revision=known.revision + 1, keys=keys))
        return known.revision + 1

    def problems(self) -> list[str]:
        """Return what is wrong with modes and owners, for a check."""
        found = []
        for path in (self.folder, self.server_file):
            status = path.stat()
            if status.st_mode & 0o077:
                private = PRIVATE_FOLDER if path == self.folder else PRIVATE_FILE
                found.append(f"{path} is open to others; run: chmod {private:o} {path}")
        return found

    def _grants(self) -> _Grants:
        return self._read(self.grants_file, _Grants) if self.grants_file.exists() else _Grants()

    def _read(self, path: Path, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(read_plain(path, largest=LARGEST_BYTES), type=kind)
        except OSError as error:
            reason = error.strerror or str(error)
            raise KeysUnreadable(path=path, reason=reason) from error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise KeysUnreadable(path=path, reason=str(error)) from error

    def _make_server_keys(self) -> None:
        public, secret = (key.decode() for key in zmq.curve_keypair())
        _write_new(self.server_file, ServerKeys(public=public, secret=secret), name="server")

    def _store(self, grants: _Grants) -> None:
        data = msgspec.json.format(msgspec.json.encode(grants), indent=2)
        write_atomic(self.grants_file, data + b"\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _write_new(path: Path, keys: msgspec.Struct, *, name: str) -> None:
    """Write a file that only its owner may read, and never over another."""
    data = msgspec.json.format(msgspec.json.encode(keys), indent=2) + b"\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    except OSError as error:
        reason = error.strerror or str(error)
        raise KeyRefused(name=name, problem=f"cannot be written to {path}: {reason}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
