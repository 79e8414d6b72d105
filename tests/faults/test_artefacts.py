"""Damaged and hostile model files: refused before anything parses them, or by a child process."""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.linear_model import LogisticRegression

from benchmarks.parity import Data, categorical, data
from tickserve_registry.digest import serving_digest, sha256
from tickserve_registry.document import read_file, write_document
from tickserve_registry.errors import ArtefactRefused, FormatRefused, RegistryError
from tickserve_registry.model_registry import ModelRegistry

FLIPS = 200
MANY_FLIPS = 1_000
FEATURES = [f"f{place}" for place in range(5)]


def booster(given: Data) -> Any:
    """Return a small XGBoost model."""
    table = xgboost.DMatrix(given.rows, given.rises)
    return xgboost.train({"objective": "binary:logistic", "nthread": 1}, table, 5)


def leaves(given: Data) -> Any:
    """Return a small LightGBM model."""
    settings = {"objective": "binary", "verbose": -1, "num_threads": 1}
    return lightgbm.train(settings, lightgbm.Dataset(given.rows, given.rises), 5)


def lstm(_: Data) -> bytes:
    """Return the pretrained network."""
    folder = importlib.resources.files("tickserve_bots") / "pretrained"
    return (folder / "eurusd_1h_lstm_breakout_v1.onnx").read_bytes()


FORMATS: dict[str, Callable[[Data], Any]] = {
    "xgboost": booster,
    "lightgbm": leaves,
    "scikit-learn": lambda given: LogisticRegression().fit(given.rows, given.rises),
    "onnx": lstm,
    "native": categorical,
}


@pytest.fixture
def storage(tmp_path: Path) -> ModelRegistry:
    """Return an empty registry."""
    return ModelRegistry(tmp_path / "storage")


def save(storage: ModelRegistry, model: Any, *, version: int = 1) -> Path:
    """Save a model to production; return its artefact."""
    features = [f"f{place}" for place in range(7)] if isinstance(model, bytes) else FEATURES
    info = {"model_id": f"eurusd_1h_any_fault_v{version}", "features": features}
    return Path(storage.save_model(model, info, environment="production")[0])


@pytest.mark.parametrize("name", FORMATS)
def test_no_flipped_bit_is_parsed(storage: ModelRegistry, name: str, long: bool) -> None:
    """Each of 200 (1,000) one-bit flips in the native and the served file is refused."""
    path = save(storage, FORMATS[name](data()))
    (entry,) = storage.production()
    dice = random.Random(name)  # noqa: S311 - a test's dice
    reads: dict[Path, Callable[[], object]] = {path: lambda: storage.load_model(entry.build)}
    if path.with_suffix(".onnx").exists():
        reads[path.with_suffix(".onnx")] = lambda: storage.serving_model(entry)
    for file, read in reads.items():
        whole = file.read_bytes()
        for _ in range(MANY_FLIPS if long else FLIPS):
            flipped = bytearray(whole)
            flipped[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
            file.write_bytes(flipped)
            with pytest.raises(ArtefactRefused, match="SHA-256"):
                read()
        file.write_bytes(whole[: dice.randrange(len(whole))])
        with pytest.raises(ArtefactRefused, match="SHA-256"):
            read()
        file.write_bytes(whole)
    storage.serving_model(entry)
    assert storage.verify()


def test_swapped_models_are_refused(storage: ModelRegistry) -> None:
    """The files of two models exchanged, whole as they are, answer for neither."""
    first = save(storage, booster(data()))
    second = save(storage, leaves(data()), version=2)
    for suffix in (".model", ".onnx"):
        one, other = first.with_suffix(suffix), second.with_suffix(suffix)
        one = next(Path(storage.storage_root).rglob(one.name))
        contents = one.read_bytes(), other.read_bytes()
        one.write_bytes(contents[1])
        other.write_bytes(contents[0])
    assert len(storage.verify().problems) == 2
    for name in (first.stem, second.stem):
        with pytest.raises(ArtefactRefused):
            storage.load_model(name)
        with pytest.raises(ArtefactRefused):
            storage.serving_model(storage.find(name))
    with pytest.raises(ArtefactRefused):
        storage.promote_model(first.stem)
    assert storage.find(first.stem).environment == "archive"


def exchange(first: Path, second: Path) -> None:
    """Exchange two builds' model files, and in their metadata all that is said of them."""
    documents = read_file(first.with_suffix(".json")), read_file(second.with_suffix(".json"))
    for suffix in (".model", ".onnx"):
        one, other = first.with_suffix(suffix), second.with_suffix(suffix)
        contents = one.read_bytes(), other.read_bytes()
        one.write_bytes(contents[1])
        other.write_bytes(contents[0])
    for path, own, others in zip((first, second), documents, documents[::-1], strict=True):
        said = {name: others[name] for name in ("sha256", "size", "golden", "native_class")}
        document = own | said | {"serving": others["serving"] | {"artefact": path.name}}
        served = document["serving"]["sha256"]
        document["serving"]["digest"] = serving_digest(document, serving_sha256=served)
        path.with_suffix(".json").write_bytes(write_document(document, source="exchanged"))


def test_models_swapped_with_their_digests_are_refused(storage: ModelRegistry) -> None:
    """Every digest in the metadata fits the wrong model: the index, which has another, decides.

    Also in the process that made both files and so needs no child to try them.
    """
    given = data()
    builds = [
        storage.save_model(
            LogisticRegression(C=scale).fit(given.rows, given.rises),
            {"model_id": f"eurusd_1h_any_fault_v{version}", "features": FEATURES},
        )[0]
        for version, scale in ((1, 1.0), (2, 0.001))
    ]
    exchange(Path(builds[0]), Path(builds[1]))
    for opened in (storage, ModelRegistry(storage.storage_root)):
        for build in (Path(each).stem for each in builds):
            with pytest.raises(ArtefactRefused, match="were changed"):
                opened.load_model(build)
            with pytest.raises(ArtefactRefused, match="were changed"):
                opened.serving_model(opened.find(build))
            with pytest.raises(ArtefactRefused, match="were changed"):
                opened.promote_model(build)
    assert storage.production() == ()
    assert len(storage.verify().problems) == 2


@pytest.mark.parametrize("damage", ["changed", "gone"])
@pytest.mark.parametrize("suffix", [".model", ".onnx"])
def test_a_damaged_champion_holds_nothing_up(
    storage: ModelRegistry, suffix: str, damage: str
) -> None:
    """It can be rolled back from, stays as it is in the archive, is reported, and never returns."""
    first = save(storage, booster(data()))
    second = save(storage, booster(data()), version=2)
    file = second.with_suffix(suffix)
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert not storage.verify()
    assert storage.rollback("eurusd_1h_any_fault").archived == (second.stem,)
    (champion,) = storage.production()
    assert champion.build == first.stem
    storage.serving_model(champion)
    assert len(storage.verify().problems) == 1
    with pytest.raises(ArtefactRefused):
        storage.promote_model(second.stem)
    kept = list(Path(storage.storage_root, "archive").rglob(file.name))
    assert [each.read_bytes()[-1:] for each in kept] == ([] if damage == "gone" else [b"?"])


@pytest.mark.parametrize("place", ["market", "version", "metadata", "artefact"])
def test_a_link_anywhere_below_the_root_is_refused(
    storage: ModelRegistry, tmp_path: Path, place: str
) -> None:
    """Whatever leads out of the root is not followed, though what it leads to is the real thing."""
    path = save(storage, booster(data()))
    linked = {
        "market": path.parent.parent,
        "version": path.parent,
        "metadata": path.with_suffix(".json"),
        "artefact": path,
    }[place]
    linked.rename(tmp_path / "outside")
    linked.symlink_to(tmp_path / "outside")
    with pytest.raises(ArtefactRefused, match="symbolic link"):
        storage.load_model(path.stem)
    with pytest.raises(ArtefactRefused, match="symbolic link"):
        storage.archive_model(path.stem)
    assert not storage.verify()
    assert len(storage.list_models()) == 1


@pytest.mark.parametrize("suffix", [".model", ".onnx", ".json"])
def test_a_pipe_is_waited_for_by_nobody(storage: ModelRegistry, suffix: str) -> None:
    """Neither reading, listing, checking nor moving hangs on it."""
    path = save(storage, booster(data()))
    path.with_suffix(suffix).unlink()
    os.mkfifo(path.with_suffix(suffix))
    (entry,) = storage.production()
    uses: list[Callable[[], object]] = [lambda: storage.archive_model(entry.build)]
    if suffix != ".onnx":
        uses.append(lambda: storage.load_model(entry.build))
    if suffix != ".model":
        uses.append(lambda: storage.serving_model(entry))
    for use in uses:
        with pytest.raises(RegistryError, match="no plain file"):
            use()
    assert not storage.verify()
    assert len(storage.list_models()) == 1


def test_a_file_that_grew_is_not_read(storage: ModelRegistry) -> None:
    """Three gigabytes of nothing behind a model are refused by their size alone."""
    path = save(storage, booster(data()))
    os.truncate(path, 3 << 30)
    start = time.monotonic()
    with pytest.raises(ArtefactRefused, match="the limit is"):
        storage.load_model(path.stem)
    assert time.monotonic() - start < 1


@pytest.fixture
def shared() -> Iterator[Path]:
    """Return a folder that every user may enter, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Be somebody whom permissions bind for the duration of the block."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


@pytest.mark.parametrize("place", ["artefact", "metadata", "version", "market"])
def test_no_permission_is_a_refusal(shared: Path, place: str) -> None:
    """What may not be read is named in a typed error, and costs the list one row."""
    storage = ModelRegistry(shared / "storage")
    path = save(storage, booster(data()))
    closed = {
        "artefact": path,
        "metadata": path.with_suffix(".json"),
        "version": path.parent,
        "market": path.parent.parent,
    }[place]
    mode = closed.stat().st_mode
    closed.chmod(0)
    try:
        with unprivileged():
            opened = ModelRegistry(storage.storage_root)
            with pytest.raises(RegistryError, match="Permission denied"):
                opened.load_model(path.stem)
            problems = opened.list_models()["problem"].tolist()
            assert len(problems) == 1
            assert (problems == [None]) == (place == "artefact")
            assert not opened.verify()
    finally:
        closed.chmod(mode)
    assert storage.verify()


def test_links_pipes_and_folders_are_refused(storage: ModelRegistry, tmp_path: Path) -> None:
    """A symbolic link, a pipe, a folder and nothing at all in an artefact's place; none hangs."""
    path = save(storage, booster(data()))
    kept = tmp_path / "kept"
    path.rename(kept)
    makers: dict[str, Callable[[], object]] = {
        "symbolic link": lambda: path.symlink_to(kept),
        "no plain file": lambda: os.mkfifo(path),
        "directory": path.mkdir,
        "No such file": lambda: None,
    }
    for words, make in makers.items():
        make()
        with pytest.raises(ArtefactRefused, match=words):
            storage.load_model("eurusd_1h_any_fault")
        assert not storage.verify()
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
    os.link(kept, path)
    storage.load_model("eurusd_1h_any_fault")
    assert storage.verify()


def test_a_hard_linked_backup_is_harmless(storage: ModelRegistry, tmp_path: Path) -> None:
    """A backup made of hard links keeps its contents through promotion and archive."""
    first = save(storage, booster(data()))
    backup = tmp_path / "backup"
    shutil.copytree(storage.storage_root, backup, copy_function=os.link)
    before = {p.name: p.read_bytes() for p in backup.rglob("*") if p.is_file()}
    save(storage, booster(data()), version=2)
    storage.record_live_performance(first.stem, {"n_trades": 1})
    storage.rollback("eurusd_1h_any_fault")
    history = "history.jsonl"
    after = {p.name: p.read_bytes() for p in backup.rglob("*") if p.is_file()}
    assert {k: v for k, v in after.items() if k != history} == {
        k: v for k, v in before.items() if k != history
    }
    assert after[history].startswith(before[history])
    assert storage.verify()


def forge(storage: ModelRegistry, path: Path, content: bytes) -> None:
    """Replace an artefact together with every digest of it, as whoever may write here can."""
    path.write_bytes(content)
    meta = path.with_suffix(".json")
    document = read_file(meta)
    document["sha256"] = sha256(content)
    if document["serving"]["engine"] == "native":
        document["serving"]["sha256"] = sha256(content)
    served = document["serving"]["sha256"]
    document["serving"]["digest"] = serving_digest(document, serving_sha256=served)
    meta.write_bytes(write_document(document, source="forged"))
    storage.rebuild()


def test_a_file_that_crashes_its_parser_kills_a_child_only(storage: ModelRegistry) -> None:
    """Among flips with valid digests some kill XGBoost's parser: the child dies, we go on."""
    path = save(storage, booster(data()))
    whole = path.read_bytes()
    dice = random.Random(5)  # noqa: S311 - a test's dice
    reasons: list[str] = []
    for _ in range(60):
        flipped = bytearray(whole)
        flipped[dice.randrange(len(whole) // 4)] ^= 1 << dice.randrange(8)
        forge(storage, path, bytes(flipped))
        try:
            model, _ = ModelRegistry(storage.storage_root).load_model("eurusd_1h_any_fault")
        except ArtefactRefused as error:
            reasons.append(error.problem)
            break
        except FormatRefused as error:
            reasons.append(error.problem)
        else:
            rows = np.zeros((1, 5), dtype=np.float32)
            assert np.isfinite(model.inplace_predict(rows, validate_features=False)).all()
    assert "killed by SIG" in reasons[-1], reasons


@pytest.mark.parametrize("place", ["version", "market", "environment"])
def test_a_closed_folder_is_not_an_empty_one(shared: Path, place: str) -> None:
    """A rebuild by who may not enter it is refused, rather than write an index without it."""
    storage = ModelRegistry(shared / "storage")
    path = save(storage, booster(data()))
    storage.save_model(booster(data()), {"model_id": "gold_1h_a_b_v1", "features": FEATURES})
    for each in (shared / "storage").rglob("*"):
        each.chmod(0o777 if each.is_dir() else 0o666)
    closed = path.parents[("version", "market", "environment").index(place)]
    closed.chmod(0)
    before = storage.entries()
    try:
        with unprivileged():
            opened = ModelRegistry(storage.storage_root)
            with pytest.raises(ArtefactRefused, match=f"{closed.name}: Permission denied"):
                opened.rebuild()
            assert "Permission denied" in str(opened.verify())
            assert opened.entries() == before
    finally:
        closed.chmod(0o775)
    assert storage.verify()


def test_a_file_that_predicts_something_else_is_refused(storage: ModelRegistry) -> None:
    """Another model under valid digests does not reproduce the golden rows."""
    given = data()
    path = save(storage, booster(given))
    other = xgboost.train(
        {"objective": "binary:logistic", "nthread": 1},
        xgboost.DMatrix(given.rows, 1 - given.rises),
        5,
    )
    forge(storage, path, bytes(other.save_raw("ubj")))
    with pytest.raises(RegistryError, match="golden rows"):
        ModelRegistry(storage.storage_root).load_model("eurusd_1h_any_fault")
