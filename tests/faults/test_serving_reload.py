"""Promotions of every bad kind, under bots that never stop asking: the old build goes on."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx
import pytest

from benchmarks.daemon import Service, model_info, train
from benchmarks.many_models import resident
from tickserve_client import Client, Prediction
from tickserve_registry.digest import serving_digest, sha256
from tickserve_registry.document import read_file, write_document
from tickserve_registry.model_registry import ModelRegistry

pytestmark = pytest.mark.alone

FAMILY = "eurusd_1h_xgb_bench"
ROW = {f"f{index}": 0.25 * index for index in range(5)}
BOTS = 4
SECONDS = 20.0


class Bots:
    """Bots that ask for one family without pause; `replies` are in the order of each bot."""

    def __init__(self, service: Service, bots: int = BOTS) -> None:
        self._service = service
        self._stopping = threading.Event()
        self.replies: list[list[tuple[float, Prediction]]] = [[] for _ in range(bots)]
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(kept,)) for kept in self.replies]

    def _ask(self, kept: list[tuple[float, Prediction]]) -> None:
        with self._service.client(timeout=2.0) as client:
            while not self._stopping.is_set():
                try:
                    kept.append((time.monotonic(), client.predict(FAMILY, ROW, log=False)))
                except Exception as error:  # noqa: BLE001 - each is counted, none expected
                    self.errors.append(repr(error))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def gap(self) -> float:
        """Return the longest time that any bot was without an answer, in seconds."""
        return max(
            after[0] - before[0]
            for kept in self.replies
            for before, after in itertools.pairwise(kept)
        )

    def builds(self) -> list[list[str]]:
        """Return the builds that answered each bot, runs of the same as one."""
        found = []
        for kept in self.replies:
            names = [reply.build for _, reply in kept]
            found.append([name for i, name in enumerate(names) if i == 0 or names[i - 1] != name])
        return found


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A daemon with v1 in production; v2 and v3, which answer otherwise, wait in staging."""
    settings = {"SERVING__POLL_SECONDS": "0.5", "SERVING__RETRY_SECONDS": "0.3"}
    made = Service(tmp_path, settings=settings)
    registry = ModelRegistry(str(made.storage))
    registry.save_model(train(trees=5), model_info(), environment="production")
    for version in (2, 3):
        registry.save_model(train(trees=5 + version, seed=version), model_info(version=version))
    with made:
        serving = made.child("serving")
        yield made
        assert made.child("serving") == serving
        assert made.stop() == 0


@pytest.fixture
def registry(service: Service) -> ModelRegistry:
    """The registry that the daemon serves from."""
    return ModelRegistry(str(service.storage))


def build_of(registry: ModelRegistry, version: int) -> str:
    """Return the build of a version."""
    return registry.find(f"{FAMILY}_v{version}").build


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def answers_with(client: Client, version: int) -> bool:
    """Whether the family's name stands for a version now."""
    return client.predict(FAMILY, ROW, log=False).model_id == f"{FAMILY}_v{version}"


def events(service: Service) -> list[dict[str, Any]]:
    """Return the daemon's log."""
    return [json.loads(line) for line in service.log.read_text().splitlines()]


def failures(service: Service) -> list[dict[str, Any]]:
    """Return the attempts to load a build that failed."""
    return [event for event in events(service) if event["event"] == "model_load_failed"]


def test_each_reply_is_one_build_s_own_and_promotions_never_turn_back(
    service: Service, registry: ModelRegistry
) -> None:
    """Build, digest and output belong together; family, model_id and build switch at once."""
    with service.client() as client, Bots(service, 8) as bots:
        known = {}
        for version in (2, 3):
            time.sleep(0.1)
            registry.promote_model(f"{FAMILY}_v{version}")
            until(partial(answers_with, client, version))
            for name in (FAMILY, f"{FAMILY}_v{version}", build_of(registry, version)):
                reply = client.predict(name, ROW)
                known[reply.build] = (reply.digest, reply.output)
    assert not bots.errors
    order = [build_of(registry, version) for version in (1, 2, 3)]
    assert all(builds == order for builds in bots.builds())
    told = {(r.build, r.digest, r.output) for kept in bots.replies for _, r in kept}
    assert len(told) == 3
    assert len({output for _, _, output in told}) == 3
    assert {build: (digest, output) for build, digest, output in told}.items() >= known.items()


def test_a_storm_of_promotions_ends_in_the_right_state(
    service: Service, registry: ModelRegistry, long: bool, figure: Callable[[str], None]
) -> None:
    """100 promotions (1,000) in a row: no error, memory flat, the last one serves."""
    promotions = 1_000 if long else 100
    before = resident(service.child("serving"))
    with Bots(service) as bots, service.client() as client:
        began = time.monotonic()
        for turn in range(promotions):
            registry.promote_model(f"{FAMILY}_v{2 + turn % 2}")
        took = time.monotonic() - began
        until(lambda: answers_with(client, 3))
        time.sleep(0.3)
        assert answers_with(client, 3)
    assert not bots.errors
    assert bots.gap() < 1.0
    assert {build for builds in bots.builds() for build in builds} <= {
        build_of(registry, version) for version in (1, 2, 3)
    }
    after = resident(service.child("serving"))
    assert after < 1.1 * before + (8 << 20)
    figure(
        f"{promotions} promotions in {took:.1f} s, longest gap of a bot {bots.gap():.3f} s, "
        f"memory {after / before - 1:+.1%}"
    )


def replace(path: Path, content: bytes) -> None:
    """Put other bytes in a file's place."""
    path.chmod(0o600)
    path.write_bytes(content)


def forge(
    registry: ModelRegistry, version: int, change: Callable[[Path, dict[str, Any]], None]
) -> None:
    """Change a staged build and write every digest of it anew, as whoever may write here can."""
    entry = registry.find(f"{FAMILY}_v{version}")
    metadata = Path(registry.storage_root) / entry.metadata_path
    compiled = metadata.with_suffix(".onnx")
    document = read_file(metadata)
    change(compiled, document)
    served = sha256(compiled.read_bytes())
    document["serving"]["sha256"] = served
    document["serving"]["digest"] = serving_digest(document, serving_sha256=served)
    metadata.write_bytes(write_document(document, source="forged"))
    registry.rebuild()


def garbage(path: Path, _: dict[str, Any]) -> None:
    """A compiled file of random bytes."""
    replace(path, os.urandom(5_000))


def wrong_rows(_: Path, document: dict[str, Any]) -> None:
    """Golden outputs that the model does not give."""
    golden = document["golden"]
    golden["outputs"] = (np.array(golden["outputs"]) + 0.1).tolist()


def wrong_graph(path: Path, _: dict[str, Any]) -> None:
    """A valid graph of another operator."""
    model = onnx.load_from_string(path.read_bytes())
    model.graph.node[-1].op_type = "Tanh"
    replace(path, model.SerializeToString())


@pytest.mark.parametrize(
    ("change", "reason"),
    [(garbage, "cannot be loaded"), (wrong_rows, "golden rows"), (wrong_graph, "golden rows")],
)
def test_a_bad_successor_never_answers(
    service: Service,
    registry: ModelRegistry,
    change: Callable[[Path, dict[str, Any]], None],
    reason: str,
) -> None:
    """Status, log and metadata say why; the old build answers, and the next good one takes over."""
    forge(registry, 2, change)
    with Bots(service) as bots, service.client() as client:
        registry.promote_model(f"{FAMILY}_v2")
        until(lambda: bool(failures(service)))
        assert answers_with(client, 1)
        time.sleep(0.5)
        registry.promote_model(f"{FAMILY}_v3")
        until(lambda: answers_with(client, 3))
    assert all(reason in event["reason"] for event in failures(service))
    assert not bots.errors
    assert bots.gap() < 1.0
    assert all(b == [build_of(registry, 1), build_of(registry, 3)] for b in bots.builds())


def test_a_half_copied_file_is_tried_again_until_it_is_whole(
    service: Service, registry: ModelRegistry
) -> None:
    """As on a network file system that shows the index first: the old build answers meanwhile."""
    serving = service.child("serving")
    with Bots(service) as bots, service.client(timeout=5.0) as client:
        until(lambda: bool(bots.replies[0]))
        os.kill(serving, signal.SIGSTOP)
        registry.promote_model(f"{FAMILY}_v2")
        artefact = next((service.storage / "production").rglob("*_v2_*.onnx"))
        whole = artefact.read_bytes()
        replace(artefact, whole[: len(whole) // 2])
        os.kill(serving, signal.SIGCONT)
        until(lambda: len(failures(service)) >= 2)
        assert answers_with(client, 1)
        replace(artefact, whole)
        until(lambda: answers_with(client, 2))
    first, second = (event["retry_s"] for event in failures(service)[:2])
    assert second == 2 * first
    assert not bots.errors
    assert all(b == [build_of(registry, 1), build_of(registry, 2)] for b in bots.builds())


def torn(index: Path) -> None:
    """Half of the index."""
    replace(index, index.read_bytes()[:100])


def not_text(index: Path) -> None:
    """Bytes that are no UTF-8."""
    replace(index, b"\xff\xfe" * 50)


@pytest.mark.parametrize("damage", [torn, not_text, Path.unlink])
def test_a_damaged_index_leaves_the_last_good_set_serving(
    service: Service, registry: ModelRegistry, damage: Callable[[Path], None]
) -> None:
    """The alarm is in log and status; after a rebuild, promotions count again by themselves."""
    index = service.storage / "metadata" / "registry.json"
    with Bots(service) as bots, service.client() as client:
        until(lambda: bool(bots.replies[0]))
        damage(index)
        until(lambda: any(e["event"] == "registry_unreadable" for e in events(service)))
        assert answers_with(client, 1)
        registry.rebuild()
        registry.promote_model(f"{FAMILY}_v2")
        until(lambda: answers_with(client, 2))
    assert not bots.errors
    assert all(b == [build_of(registry, 1), build_of(registry, 2)] for b in bots.builds())


def test_storage_that_vanishes_leaves_all_serving_and_is_found_again(
    service: Service, registry: ModelRegistry
) -> None:
    """The root is moved away and back, as a network mount would: no request fails."""
    away = service.storage.with_name("away")
    with Bots(service) as bots, service.client() as client:
        until(lambda: bool(bots.replies[0]))
        service.storage.rename(away)
        until(lambda: any(e["event"] == "registry_unreadable" for e in events(service)))
        assert answers_with(client, 1)
        away.rename(service.storage)
        registry.promote_model(f"{FAMILY}_v2")
        until(lambda: answers_with(client, 2))
    assert not bots.errors
    assert bots.gap() < 1.0
