"""The registry's error tree; each carries the data that its text is made of.

RegistryError
├── NameRefused           a name that breaks the grammar or could leave the root
├── MetadataRefused       metadata that cannot be stored or read
├── ModelNotFound         no build goes by the name
├── BuildExists           the build is there already; builds are immutable
├── TransitionRefused     a lifecycle change that is not allowed
│   └── PromotionRefused  a promotion that the policy does not allow
├── ReasonMissing         an exception to the rules without a reason
├── NothingToRestore      no earlier production build to go back to
├── NotHalted             a resumption of what no halt names
├── HaltsUnreadable       halts.json holds no halts
├── PolicyUnreadable      promotion.toml is no policy
├── CatalogUnreadable     registry.json is torn, missing fields or no JSON
├── IntentUnreadable      what a crashed writer left says nothing
├── PathTaken             a file lies where a new one must go
├── ArtefactRefused       a file is missing, changed, a link or too large
├── SignatureMissing      a build that nobody trusted has signed as it is
├── SigningKeyUnusable    a key for signing that cannot be made or read
├── FormatRefused         a model object or file of a kind that cannot be handled
│   └── PickleRefused     a pickle, without the opt-in for pickles
├── EvaluationRefused     an evaluation whose figures would not be what they claim
├── ReplayMissing         what replays bars is not installed
├── BarsRefused           bars that cannot be replayed
└── FeatureUnknown        a feature that cannot be computed from bars
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec


class Unmet(msgspec.Struct, frozen=True, kw_only=True):
    """A rule of the promotion policy that a build does not meet: what is asked, what it shows."""

    rule: str
    asked: str
    found: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.asked} is asked, found {self.found}"


class RegistryError(Exception):
    """Base of everything that the registry raises on purpose."""


class NameRefused(RegistryError):
    """A name that breaks the grammar."""

    def __init__(self, *, part: str, value: object, grammar: str) -> None:
        super().__init__(f"{part} {_shown(value)!r} is not allowed: {grammar}")
        self.part = part
        self.value = value
        self.grammar = grammar


class MetadataRefused(RegistryError):
    """Metadata that cannot be stored or read; `field` says where."""

    def __init__(self, *, source: str, field: str, problem: str) -> None:
        where = f" {field}" if field else ""
        super().__init__(f"metadata of {source}:{where} {problem}")
        self.source = source
        self.field = field
        self.problem = problem


class ModelNotFound(RegistryError, ValueError):
    """No build goes by the name, version and environment asked for."""

    def __init__(self, *, name: str, nearest: list[str]) -> None:
        hint = f"; did you mean {', '.join(nearest)}?" if nearest else "; see: tickserve models"
        super().__init__(f"no model is called {name!r}{hint}")
        self.name = name
        self.nearest = nearest


class BuildExists(RegistryError):
    """A build of this model_id and date is stored already."""

    def __init__(self, *, build: str, next_model_id: str) -> None:
        super().__init__(
            f"{build} exists and builds are immutable; save it as the next version, {next_model_id}"
        )
        self.build = build
        self.next_model_id = next_model_id


class TransitionRefused(RegistryError):
    """A move between environments that the lifecycle does not allow."""

    def __init__(self, *, build: str, origin: str, target: str, reason: str) -> None:
        super().__init__(f"{build} cannot go from {origin} to {target}: {reason}")
        self.build = build
        self.origin = origin
        self.target = target
        self.reason = reason


class PromotionRefused(TransitionRefused):
    """A promotion that the policy does not allow; `unmet` holds each rule with its figure."""

    def __init__(self, *, build: str, origin: str, unmet: Sequence[Unmet]) -> None:
        rules = "; ".join(map(str, unmet))
        reason = f"the promotion policy is not met: {rules}; overrule it with force and a reason"
        super().__init__(build=build, origin=origin, target="production", reason=reason)
        self.unmet = tuple(unmet)


class ReasonMissing(RegistryError):
    """An exception to the rules without a reason for the audit trail."""

    def __init__(self, *, action: str) -> None:
        super().__init__(f"{action} needs a reason, which goes to the audit trail")
        self.action = action


class NothingToRestore(RegistryError):
    """A rollback without an earlier production build in the audit trail."""

    def __init__(self, *, family: str, reason: str) -> None:
        super().__init__(f"{family} cannot be rolled back: {reason}")
        self.family = family
        self.reason = reason


class NotHalted(RegistryError):
    """No halt was given under this name; those that stand are in `halted`."""

    def __init__(self, *, name: str, halted: Sequence[str]) -> None:
        there = f"halted are: {', '.join(halted)}" if halted else "nothing is"
        super().__init__(f"{name} was not halted under this name; {there}")
        self.name = name
        self.halted = tuple(halted)


class HaltsUnreadable(RegistryError):
    """halts.json cannot be read, so nobody can tell what may be answered."""

    def __init__(self, *, path: Path, problem: str) -> None:
        super().__init__(
            f"{path} holds no halts: {problem}; mend it, or remove it to lift every halt"
        )
        self.path = path
        self.problem = problem


class PolicyUnreadable(RegistryError):
    """A promotion policy that cannot be read; nothing is promoted until it can."""

    def __init__(self, *, path: Path, problem: str) -> None:
        super().__init__(f"{path} is no promotion policy: {problem}")
        self.path = path
        self.problem = problem


class CatalogUnreadable(RegistryError):
    """registry.json cannot be read; the metadata files still hold everything."""

    def __init__(self, *, path: Path, problem: str) -> None:
        super().__init__(f"{path} is unreadable ({problem}); restore it with: tickserve rebuild")
        self.path = path
        self.problem = problem


class IntentUnreadable(RegistryError):
    """What a crashed writer was about to do cannot be read."""

    def __init__(self, *, path: Path, problem: str) -> None:
        super().__init__(f"{path} is unreadable ({problem}); settle it with: tickserve rebuild")
        self.path = path
        self.problem = problem


class PathTaken(RegistryError):
    """A file lies where a transaction must make one."""

    def __init__(self, *, path: Path) -> None:
        super().__init__(f"{path} is there already; see: tickserve verify, tickserve rebuild")
        self.path = path


class ArtefactRefused(RegistryError):
    """A model file that is missing, no plain file, too large, or not the one that was saved."""

    REMEDY = "restore the file from a backup or save the model again"

    def __init__(self, *, path: Path, problem: str, remedy: str = REMEDY) -> None:
        super().__init__("; ".join(filter(None, [f"{path}: {problem}", remedy])))
        self.path = path
        self.problem = problem
        self.remedy = remedy


class SignatureMissing(RegistryError):
    """A build without a signature that counts; it is not to be loaded."""

    def __init__(self, *, build: str, problem: str) -> None:
        super().__init__(
            f"{build}: {problem}; have somebody allowed sign it: tickserve sign {build} --key FILE"
        )
        self.build = build
        self.problem = problem


class SigningKeyUnusable(RegistryError):
    """A key for signing, or a line that allows one, that cannot be used."""

    def __init__(self, *, source: str, problem: str) -> None:
        super().__init__(f"signing key {source}: {problem}")
        self.source = source
        self.problem = problem


class FormatRefused(RegistryError):
    """A model object or file that cannot be saved, loaded or compiled."""

    def __init__(self, *, kind: str, problem: str) -> None:
        super().__init__(f"{kind}: {problem}")
        self.kind = kind
        self.problem = problem


class PickleRefused(FormatRefused):
    """A pickle can run any code when it is loaded; nobody has allowed that."""

    def __init__(self, *, kind: str) -> None:
        problem = (
            "is a pickle, which can run any code when it is loaded; if you trust where it comes "
            "from, open the registry with allow_pickle=True (--allow-pickle)"
        )
        super().__init__(kind=kind, problem=problem)


class EvaluationRefused(RegistryError):
    """An evaluation that cannot be made, or whose figures would not be what they claim."""

    def __init__(self, *, build: str, reason: str, remedy: str) -> None:
        super().__init__(f"{build} is not evaluated: {reason}; {remedy}")
        self.build = build
        self.reason = reason
        self.remedy = remedy


class ReplayMissing(RegistryError):
    """Nothing that replays bars is installed, or it lacks a package."""

    def __init__(self, *, missing: str) -> None:
        super().__init__(
            f"an evaluation needs {missing}; run: pip install 'tickserve[bots]', "
            "or pass a replay of your own"
        )
        self.missing = missing


class BarsRefused(RegistryError):
    """Bars that cannot be replayed; `place` is the line or column at fault, where there is one."""

    def __init__(self, *, source: str, place: str, problem: str) -> None:
        super().__init__(": ".join(part for part in (f"bars {source}", place, problem) if part))
        self.source = source
        self.place = place
        self.problem = problem


class FeatureUnknown(RegistryError):
    """A feature that cannot be computed from bars."""

    def __init__(self, *, feature: str, problem: str) -> None:
        super().__init__(
            f"feature {feature}: {problem}; a numeric column of that name in the bars file is "
            "used as it is"
        )
        self.feature = feature
        self.problem = problem


def _shown(value: object) -> str:
    """Return the beginning of a value's text; some have none, for they are too long or deep."""
    try:
        return str(value)[:80]
    except (ValueError, RecursionError):
        return f"a {type(value).__name__}"
