"""Tests of signatures: what they bind, and what breaks them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tickserve_registry.document import read_file, write_document
from tickserve_registry.errors import ArtefactRefused, SignatureMissing, SigningKeyUnusable
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.signing import Signers, create_key, signatures_of

FAMILY = "eurusd_1h_xgb_trend"


@pytest.fixture
def two(registry: ModelRegistry, classifier: Any, info: Callable[..., Any]) -> ModelRegistry:
    """Return a registry with versions 1 and 2 in staging."""
    for version in (1, 2):
        registry.save_model(classifier, info(version=version))
    return registry


@pytest.fixture
def alice(tmp_path: Path) -> tuple[Path, Signers]:
    """Return a private key's file, and signers that allow its key."""
    path = tmp_path / "alice.pem"
    return path, Signers([f"alice:{create_key(path)}"])


def changed(registry: ModelRegistry, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a build's metadata by hand."""
    path = Path(registry.storage_root) / registry.find(name).metadata_path
    document = read_file(path)
    change(document)
    path.write_bytes(write_document(document, source="by hand"))


def test_a_signature_goes_wherever_the_build_goes(
    two: ModelRegistry, alice: tuple[Path, Signers]
) -> None:
    """Through promotion, figures, archive and rollback; the serving digest stays."""
    key, signers = alice
    build = two.find(f"{FAMILY}_v1").build
    digest = two.find(build).serving_digest
    signature = two.sign_model(build, key)
    assert signature.at.endswith("Z")
    for change in (
        lambda: two.promote_model(build),
        lambda: two.record_live_performance(build, {"n_trades": 1}),
        lambda: two.promote_model(f"{FAMILY}_v2"),
        lambda: two.rollback(FAMILY),
    ):
        change()
        assert signers.signer_of(two.metadata(build)) == "alice"
    assert two.find(build).serving_digest == digest
    assert two.history(build)[1].action == "sign"
    assert two.verify()


def test_without_a_signature_that_counts_it_says_what_is_wrong(
    two: ModelRegistry, alice: tuple[Path, Signers], tmp_path: Path
) -> None:
    """None at all, and one by somebody who is not allowed."""
    _, signers = alice
    metadata = two.metadata(FAMILY)
    with pytest.raises(SignatureMissing, match=r"it is not signed; .* tickserve sign"):
        signers.signer_of(metadata)
    create_key(tmp_path / "mallory.pem")
    two.sign_model(FAMILY, tmp_path / "mallory.pem")
    with pytest.raises(SignatureMissing, match="keys that are not allowed"):
        signers.signer_of(two.metadata(FAMILY))
    assert not Signers([])


def set_thresholds(document: dict[str, Any]) -> None:
    """Trade at once."""
    document["output"] = {**document["output"], "long_above": 0.01, "short_below": 0.001}


def set_features(document: dict[str, Any]) -> None:
    """Swap two columns."""
    document["features"] = [*reversed(document["features"])]


def set_golden(document: dict[str, Any]) -> None:
    """Expect something else."""
    document["golden"]["tolerance"] = 1e6


def set_digest(document: dict[str, Any]) -> None:
    """Name another file."""
    document["sha256"] = "0" * 64


def set_served(document: dict[str, Any]) -> None:
    """Name another compiled file."""
    document["serving"]["sha256"] = "0" * 64


def set_moment(document: dict[str, Any]) -> None:
    """Say that it was signed today."""
    document["signatures"][0]["at"] = "2030-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "change", [set_thresholds, set_features, set_golden, set_digest, set_served, set_moment]
)
def test_whatever_determines_an_answer_is_bound(
    two: ModelRegistry, alice: tuple[Path, Signers], change: Callable[[dict[str, Any]], None]
) -> None:
    """A change of any of it, with the stated digest left as it was signed, breaks the signature."""
    key, signers = alice
    two.sign_model(FAMILY, key)
    changed(two, FAMILY, change)
    with pytest.raises(SignatureMissing, match="the signature of alice is for something else"):
        signers.signer_of(two.metadata(FAMILY))


def test_a_signature_does_not_fit_another_build(
    two: ModelRegistry, alice: tuple[Path, Signers]
) -> None:
    """Not even one with the same model in it."""
    key, signers = alice
    two.sign_model(f"{FAMILY}_v1", key)
    signatures = read_file(Path(two.storage_root) / two.find(f"{FAMILY}_v1").metadata_path)[
        "signatures"
    ]
    changed(two, f"{FAMILY}_v2", lambda document: document.update(signatures=signatures))
    with pytest.raises(SignatureMissing, match="for something else"):
        signers.signer_of(two.metadata(f"{FAMILY}_v2"))


def test_what_was_tampered_with_is_not_signed(
    two: ModelRegistry, alice: tuple[Path, Signers]
) -> None:
    """Whoever signs vouches for files that have the digests they were saved with."""
    key, _ = alice
    path = next(Path(two.storage_root).rglob("*_v2_*.model"))
    path.chmod(0o600)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ArtefactRefused):
        two.sign_model(FAMILY, key)
    changed(two, f"{FAMILY}_v1", set_thresholds)
    with pytest.raises(ArtefactRefused, match="were changed"):
        two.sign_model(f"{FAMILY}_v1", key)


def test_several_may_sign_and_each_counts_once(
    two: ModelRegistry, alice: tuple[Path, Signers], tmp_path: Path
) -> None:
    """A second signature of the same key replaces the first."""
    key, signers = alice
    other = tmp_path / "bob.pem"
    create_key(other)
    for each in (key, other, key):
        two.sign_model(FAMILY, each)
    assert len(signatures_of(two.metadata(FAMILY).document)) == 2
    assert signers.signer_of(two.metadata(FAMILY)) == "alice"


@pytest.mark.parametrize(
    "junk", [None, "x", [1], [{"key": "a"}], [{"key": 1, "at": "", "value": ""}]]
)
def test_junk_in_their_place_is_no_signature(
    two: ModelRegistry, alice: tuple[Path, Signers], junk: Any
) -> None:
    """Whatever somebody writes there, nothing breaks and nothing counts."""
    changed(two, FAMILY, lambda document: document.update(signatures=junk))
    with pytest.raises(SignatureMissing):
        alice[1].signer_of(two.metadata(FAMILY))


@pytest.mark.parametrize("value", ["", "!!", "AAAA"])
def test_a_broken_value_counts_for_nothing(
    two: ModelRegistry, alice: tuple[Path, Signers], value: str
) -> None:
    """Of an allowed key, too."""
    key, signers = alice
    signature = msgspec.structs.replace(two.sign_model(FAMILY, key), value=value)
    junk = [msgspec.to_builtins(signature)]
    changed(two, FAMILY, lambda document: document.update(signatures=junk))
    with pytest.raises(SignatureMissing, match="for something else"):
        signers.signer_of(two.metadata(FAMILY))


def test_keys_that_are_none_say_so(two: ModelRegistry, tmp_path: Path) -> None:
    """Missing, no PEM, of another kind, there already; and lines that allow nobody."""
    with pytest.raises(SigningKeyUnusable, match="No such file"):
        two.sign_model(FAMILY, tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(SigningKeyUnusable, match="no private key"):
        two.sign_model(FAMILY, tmp_path / "text")
    with pytest.raises(SigningKeyUnusable, match="File exists"):
        create_key(tmp_path / "text")
    create_key(tmp_path / "good")
    assert (tmp_path / "good").stat().st_mode & 0o777 == 0o600
    for line in ("alice", "alice:", "alice:AAAA", ":" + "A" * 43 + "=", "alice:" + "?" * 44):
        with pytest.raises(SigningKeyUnusable, match="NAME:KEY"):
            Signers([line])
