"""Lifecycle of builds: what storing, moving, rolling back and describing one means."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from tickserve_registry import lookup
from tickserve_registry.build import NewBuild
from tickserve_registry.catalog import Entry
from tickserve_registry.document import encode_plain, plain, read_file
from tickserve_registry.draft import Draft
from tickserve_registry.errors import (
    BuildExists,
    ModelNotFound,
    NothingToRestore,
    PromotionRefused,
    TransitionRefused,
    Unmet,
)
from tickserve_registry.history import new_change, read_history, record
from tickserve_registry.layout import Environment, Layout
from tickserve_registry.metadata import Metadata, revision_of, view
from tickserve_registry.policy import PromotionPolicy, read_policy, unmet_rules
from tickserve_registry.reader import BuildReader
from tickserve_registry.signing import FIELD, Signature, sign, with_signature
from tickserve_registry.store import write_atomic
from tickserve_registry.succession import ROLLBACK, champion_and_predecessor, succession
from tickserve_registry.transaction import Transactions, new_transaction

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ALLOWED: frozenset[tuple[Environment, Environment]] = frozenset(
    {
        ("staging", "production"),
        ("staging", "archive"),
        ("production", "archive"),
        ("archive", "production"),
    }
)


class PromotionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a lifecycle change did: the build moved, and the champions it displaced, if any.

    `overruled` lists the rules of the promotion policy that a forced promotion did not meet.
    """

    build: str
    model_id: str
    origin: Environment
    target: Environment
    archived: tuple[str, ...]
    serving_digest: str
    at: str
    overruled: tuple[str, ...] = ()


class Lifecycle:
    """Every change of one storage root, each one transaction.

    `policy` is the promotion policy; None stands for the root's own promotion.toml.
    """

    def __init__(
        self,
        layout: Layout,
        transactions: Transactions,
        reader: BuildReader,
        *,
        policy: PromotionPolicy | None = None,
    ) -> None:
        self._layout = layout
        self._transactions = transactions
        self._reader = reader
        self._policy = policy

    def store(
        self,
        new: NewBuild,
        *,
        environment: Environment,
        keep: bool = False,
        action: str = "save",
    ) -> Entry:
        """Add a new build; in production it displaces the champions unless `keep`.

        Raises BuildExists or PromotionRefused; then nothing has been written.
        """
        with self._drafting() as draft:
            self._require_new(new, draft)
            if environment == "production":
                champions = draft.champions(new.name.family)
                unmet = self._unmet(new.document, champions)
                if unmet:
                    raise PromotionRefused(build=new.build, origin="training", unmet=unmet)
                for each in () if keep else champions:
                    draft.move(each, "archive", action="archive", reason=None)
            return draft.add(new, environment, action=action)

    def move(
        self,
        entry: Entry,
        target: Environment,
        *,
        keep: bool = False,
        reason: str | None = None,
        force: bool = False,
    ) -> PromotionRecord:
        """Move a build; a promotion archives the family's other production builds unless `keep`.

        Raises TransitionRefused, PromotionRefused, or ModelNotFound when the build has gone.
        """
        with self._drafting() as draft:
            current = _current(draft, entry)
            _require_allowed(current, target)
            if target != "production":
                draft.move(current, target, action="archive", reason=reason)
                return _record(draft, current)
            champions = draft.champions(current.family)
            unmet = self._unmet(self._reader.metadata(current.build).document, champions)
            if unmet and not force:
                raise PromotionRefused(build=current.build, origin=current.environment, unmet=unmet)
            overruled = tuple(map(str, unmet))
            draft.move(current, target, action="promote", reason=reason, overruled=overruled)
            for each in () if keep else champions:
                draft.move(each, "archive", action="archive", reason=reason)
            return _record(draft, current)

    def rollback(self, family: str, *, reason: str | None = None) -> PromotionRecord:
        """Put back the build that was in production before the family's champion.

        The promotion policy is not asked: the build has been in production before. Raises
        NothingToRestore.
        """
        with self._drafting() as draft:
            builds = {build for build, each in draft.entries.items() if each.family == family}
            line = succession(read_history(self._layout.history), builds)
            serving = {each.build for each in draft.champions(family)}
            champion, previous = champion_and_predecessor(line, serving)
            if previous is None:
                reason = "the audit trail shows no earlier production build"
                raise NothingToRestore(family=family, reason=reason)
            restored = draft.entries[previous]
            if restored.environment != "production":
                draft.move(restored, "production", action=ROLLBACK, reason=reason)
            if champion is not None:
                draft.move(draft.entries[champion], "archive", action="archive", reason=reason)
            return _record(draft, restored)

    def describe(
        self, build: str, phase: str, block: dict[str, Any], *, action: str | None = None
    ) -> None:
        """Set `performance.{phase}` of one build; touches its metadata file and nothing else.

        With an `action` the audit trail notes it: figures that a promotion policy reads.
        """
        checked = plain(block, source=build)
        with self._transactions.locked():
            path = self._reader.metadata_path(build)
            document = read_file(path)
            performance = document.get("performance")
            kept = performance if isinstance(performance, dict) else {}
            document["performance"] = kept | {phase: checked}
            document["revision"] = revision_of(document, source=str(path)) + 1
            write_atomic(path, encode_plain(document, source=build))
            if action is not None:
                self._note(action, view(document, source=str(path)))

    def sign(self, build: str, key: Ed25519PrivateKey) -> Signature:
        """Sign a build whose files have their digests; the audit trail notes it.

        Raises ModelNotFound, MetadataRefused or ArtefactRefused.
        """
        with self._transactions.locked():
            path = self._reader.metadata_path(build)
            document = read_file(path)
            metadata = view(document, source=str(path))
            self._reader.verify_files(metadata)
            entry = lookup.find(self._transactions.catalog().models, build)
            self._reader.require_indexed(metadata, digest=entry.serving_digest)
            signature = sign(metadata, key)
            document[FIELD] = with_signature(document, signature)
            document["revision"] = revision_of(document, source=str(path)) + 1
            write_atomic(path, encode_plain(document, source=build))
            self._note("sign", metadata)
        return signature

    @contextlib.contextmanager
    def _drafting(self) -> Iterator[Draft]:
        """Take the lock, and commit the draft if the block has not raised."""
        with self._transactions.locked():
            draft = Draft(self._layout, self._transactions, self._reader)
            yield draft
            draft.commit()

    def _unmet(self, document: Mapping[str, Any], champions: list[Entry]) -> list[Unmet]:
        policy = read_policy(self._layout.policy) if self._policy is None else self._policy
        if not policy.enabled:
            return []
        documents = [self._reader.metadata(each.build).document for each in champions]
        return unmet_rules(policy, document, documents)

    def _note(self, action: str, metadata: Metadata) -> None:
        change = new_change(
            transaction=new_transaction(),
            action=action,
            build=metadata.build,
            origin=metadata.environment,
            target=metadata.environment,
            digest=metadata.serving.digest,
            reason=None,
        )
        record(self._layout.history, [change])

    def _require_new(self, new: NewBuild, draft: Draft) -> None:
        if new.build in draft.entries or self._reader.copies(new.build):
            family = new.name.family
            versions = [each.version for each in draft.entries.values() if each.family == family]
            latest = max([*versions, new.name.version])
            raise BuildExists(build=new.build, next_model_id=f"{family}_v{latest + 1}")


def _current(draft: Draft, entry: Entry) -> Entry:
    current = draft.entries.get(entry.build)
    if current is None:
        raise ModelNotFound(name=entry.build, nearest=[])
    return current


def _require_allowed(entry: Entry, target: Environment) -> None:
    if (entry.environment, target) in ALLOWED:
        return
    reason = "it is there already" if entry.environment == target else "no such way exists"
    raise TransitionRefused(
        build=entry.build, origin=entry.environment, target=target, reason=reason
    )


def _record(draft: Draft, entry: Entry) -> PromotionRecord:
    """Describe a draft in which `entry` was the build that the caller named."""
    own = [each for each in draft.changes if each.build == entry.build]
    others = [each.build for each in draft.changes if each.build != entry.build]
    return PromotionRecord(
        build=entry.build,
        model_id=entry.model_id,
        origin=entry.environment,
        target=draft.entries[entry.build].environment,
        archived=tuple(others),
        serving_digest=entry.serving_digest,
        at=draft.changes[0].at,
        overruled=own[0].overruled if own else (),
    )
