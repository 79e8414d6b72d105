"""Signatures of builds: who vouches for what answers, by Ed25519 over a manifest.

The manifest binds a build's name to everything that determines its answers, so a signature fits no
other build and no other name. It lies in the metadata, as `signatures`, and so goes wherever the
build goes; it is no part of the serving digest, so signing causes no reload.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tickserve_registry.digest import serving_digest, sha256
from tickserve_registry.errors import SignatureMissing, SigningKeyUnusable
from tickserve_registry.metadata import Metadata, utc_now

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FIELD = "signatures"
CONTEXT = "tickserve build 1"
PRIVATE = 0o600
PUBLIC_BYTES = 32


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """One signature: the public key and the signature in base64, and when it was made (UTC)."""

    key: str
    at: str
    value: str


class Signers:
    """The public keys that a daemon takes for good, by name: lines of `name:base64`.

    Raises SigningKeyUnusable for a line that is none.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._names: dict[str, str] = {}
        for line in lines:
            name, _, key = line.partition(":")
            if not name or len(_decoded(key)) != PUBLIC_BYTES:
                raise SigningKeyUnusable(source=line, problem="is not NAME:KEY, 32 bytes in base64")
            self._names[key] = name

    def __bool__(self) -> bool:
        return bool(self._names)

    def signer_of(self, metadata: Metadata) -> str:
        """Return who of them has signed a build as it is. Raises SignatureMissing."""
        unknown, wrong = [], []
        for signature in signatures_of(metadata.document):
            if signature.key not in self._names:
                unknown.append(signature.key[:8])
            elif _is_valid(signature, metadata):
                return self._names[signature.key]
            else:
                wrong.append(self._names[signature.key])
        problem = (
            f"the signature of {', '.join(wrong)} is for something else"
            if wrong
            else f"it is signed by keys that are not allowed ({', '.join(unknown)})"
            if unknown
            else "it is not signed"
        )
        raise SignatureMissing(build=metadata.build, problem=problem)


def manifest(metadata: Metadata, *, at: str) -> bytes:
    """Return what is signed, as canonical JSON.

    The serving digest is computed, not read: what the metadata say of themselves proves nothing.
    """
    served = metadata.serving.sha256
    content = {
        "context": CONTEXT,
        "build": metadata.build,
        "artefact": metadata.sha256,
        "served": served,
        "serving_digest": serving_digest(metadata.document, serving_sha256=served),
        "features": list(metadata.features),
        "golden": sha256(msgspec.json.encode(metadata.document.get("golden"), order="sorted")),
        "at": at,
    }
    return msgspec.json.encode(content, order="sorted")


def sign(metadata: Metadata, key: Ed25519PrivateKey) -> Signature:
    """Sign a build as its metadata describe it."""
    at = utc_now()
    value = key.sign(manifest(metadata, at=at))
    return Signature(key=public_key_of(key), at=at, value=base64.b64encode(value).decode())


def signatures_of(document: Mapping[str, Any]) -> tuple[Signature, ...]:
    """Return the signatures in a metadata document; what is none is passed over."""
    found = document.get(FIELD)
    signatures = []
    for each in found if isinstance(found, list) else ():
        try:
            signatures.append(msgspec.convert(each, Signature))
        except msgspec.ValidationError:
            continue
    return tuple(signatures)


def with_signature(document: Mapping[str, Any], signature: Signature) -> list[dict[str, Any]]:
    """Return the document's signatures with this one in place of an earlier of the same key."""
    others = [each for each in signatures_of(document) if each.key != signature.key]
    return [msgspec.to_builtins(each) for each in (*others, signature)]


def create_key(path: Path) -> str:
    """Make a private key, write it to a new file that is its owner's alone; return the public key.

    Raises SigningKeyUnusable where the file is there or cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    except OSError as error:
        problem = error.strerror or str(error)
        raise SigningKeyUnusable(source=str(path), problem=problem) from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
    return public_key_of(key)


def read_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key from its PEM file. Raises SigningKeyUnusable."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        problem = error.strerror or str(error)
        raise SigningKeyUnusable(source=str(path), problem=problem) from error
    except (ValueError, TypeError) as error:
        problem = "holds no private key without a password"
        raise SigningKeyUnusable(source=str(path), problem=problem) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningKeyUnusable(source=str(path), problem="is no Ed25519 key")
    return key


def public_key_of(key: Ed25519PrivateKey) -> str:
    """Return the public key in base64."""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def _is_valid(signature: Signature, metadata: Metadata) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = Ed25519PublicKey.from_public_bytes(_decoded(signature.key))
    try:
        key.verify(_decoded(signature.value), manifest(metadata, at=signature.at))
    except InvalidSignature:
        return False
    return True


def _decoded(text: str) -> bytes:
    """Return the bytes of base64; none where it is no such thing."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
