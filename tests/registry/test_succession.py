"""Tests of rollback: who was champion before."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickserve_registry.errors import NothingToRestore
from tickserve_registry.history import Change
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.succession import champion_and_predecessor, succession

FAMILY = "eurusd_1h_xgb_trend"


@pytest.fixture
def three(registry: ModelRegistry, classifier: Any, info: Callable[..., Any]) -> ModelRegistry:
    """Return a registry whose versions 1, 2 and 3 were promoted one after the other."""
    for version in (1, 2, 3):
        registry.save_model(classifier, info(version=version))
        registry.promote_model(f"{FAMILY}_v{version}")
    return registry


def serving(registry: ModelRegistry) -> list[int]:
    """Return the versions in production."""
    return [entry.version for entry in registry.production()]


def test_back_step_by_step(three: ModelRegistry) -> None:
    """Each rollback goes one further back, in one transaction; the first has nothing before."""
    record = three.rollback(FAMILY, reason="v3 loses")
    assert (record.model_id, [b[:22] for b in record.archived]) == (
        f"{FAMILY}_v2",
        [f"{FAMILY}_v3"],
    )
    first, second = three.history()[-2:]
    assert (first.action, second.action) == ("rollback", "archive")
    assert first.transaction == second.transaction
    assert three.rollback(f"{FAMILY}_v2").model_id == f"{FAMILY}_v1"
    with pytest.raises(NothingToRestore):
        three.rollback(FAMILY)
    assert serving(three) == [1]
    assert three.verify()


def test_forward_again_after_a_rollback(three: ModelRegistry) -> None:
    """What is promoted after a rollback has the restored build before it."""
    three.rollback(FAMILY)
    three.promote_model(f"{FAMILY}_v3")
    assert three.rollback(FAMILY).model_id == f"{FAMILY}_v2"


def test_after_an_archive_the_last_champion_returns(three: ModelRegistry) -> None:
    """With nothing in production, what was there last is what was there before."""
    three.archive_model(f"{FAMILY}_v3")
    assert serving(three) == []
    assert three.rollback(FAMILY).model_id == f"{FAMILY}_v3"


def test_a_kept_build_goes_on_alone(registry: ModelRegistry, classifier: Any, info: Any) -> None:
    """Where the one before is still in production, only the newer one leaves."""
    for version in (1, 2):
        registry.save_model(classifier, info(version=version))
        registry.promote_model(f"{FAMILY}_v{version}", keep=True)
    assert serving(registry) == [1, 2]
    assert registry.rollback(FAMILY).model_id == f"{FAMILY}_v1"
    assert serving(registry) == [1]
    with pytest.raises(NothingToRestore):
        registry.rollback(FAMILY)


def test_a_name_that_is_not_the_champion_is_refused(three: ModelRegistry) -> None:
    """Rolling back "to" a version would do something else, so it is refused."""
    with pytest.raises(NothingToRestore, match="name the family"):
        three.rollback(f"{FAMILY}_v1")
    assert serving(three) == [3]


def test_a_family_means_candidate_or_champion(
    three: ModelRegistry, classifier: Any, info: Any
) -> None:
    """Promoted by the family's name is what waits in staging, archived is what serves."""
    three.save_model(classifier, info(version=4))
    assert three.archive_model(FAMILY).model_id == f"{FAMILY}_v3"
    assert three.promote_model(FAMILY).model_id == f"{FAMILY}_v4"


def change(action: str, build: str) -> Change:
    """Return a promotion or a rollback."""
    return Change(
        at="", who="", action=action, build=build, origin="staging", target="production", digest=""
    )


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c", "d", "<"]), max_size=20))
def test_it_is_a_stack(steps: list[str]) -> None:
    """Promotions push, rollbacks pop; the trail alone says what is on the stack."""
    history, stack = [], list[str]()
    for step in steps:
        if step != "<":
            stack = [*(each for each in stack if each != step), step]
            history.append(change("promote", step))
        elif len(stack) > 1:
            stack.pop()
            history.append(change("rollback", stack[-1]))
    line = succession(history, {"a", "b", "c", "d"})
    assert line == stack
    top = set(stack[-1:])
    expected = (stack[-1] if stack else None, stack[-2] if len(stack) > 1 else None)
    assert champion_and_predecessor(line, top) == expected


@pytest.fixture(scope="module")
def six(
    tmp_path_factory: pytest.TempPathFactory, classifier: Any, inputs: Any
) -> tuple[Path, list[str]]:
    """Return a registry of six versions in staging, to be copied, and their model_ids."""
    registry = ModelRegistry(tmp_path_factory.mktemp("six") / "storage")
    names = [f"{FAMILY}_v{version}" for version in range(1, 7)]
    features = [f"f{place}" for place in range(inputs.shape[1])]
    for name in names:
        registry.save_model(classifier, {"model_id": name, "features": features})
    return Path(registry.storage_root), names


@pytest.mark.parametrize("seed", range(8))
def test_the_registry_follows_a_list(
    six: tuple[Path, list[str]], tmp_path: Path, seed: int
) -> None:
    """Promotions, archives and rollbacks in any order end where a list used as a stack ends."""
    storage, names = six
    registry = ModelRegistry(shutil.copytree(storage, tmp_path / "storage"))
    dice = random.Random(seed)  # noqa: S311 - a test's dice
    stack: list[str] = []
    champion: str | None = None
    for _ in range(25):
        step = dice.choice(["promote", "promote", "rollback", "rollback", "archive"])
        if step == "promote":
            name = dice.choice([each for each in names if each != champion])
            registry.promote_model(name)
            stack = [*(each for each in stack if each != name), name]
            champion = name
        elif step == "archive" and champion is not None:
            registry.archive_model(champion)
            champion = None
        elif step == "rollback" and stack and (champion is None or len(stack) > 1):
            if champion is not None:
                stack.pop()
            champion = stack[-1]
            assert registry.rollback(FAMILY).model_id == champion
        elif step == "rollback":
            before = registry.entries()
            with pytest.raises(NothingToRestore):
                registry.rollback(FAMILY)
            assert registry.entries() == before
        assert [each.model_id for each in registry.production()] == ([champion] if champion else [])
    assert registry.verify()
