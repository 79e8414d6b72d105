"""The same bot in Node and in C, with nothing but a ZeroMQ binding, gets the same answers."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.daemon import Service, model_info, train
from tickserve_client import Client
from tickserve_registry.model_registry import ModelRegistry

FOLDER = Path(__file__).parent
FAMILY = "eurusd_1h_xgb_bench"
NAMES = [f"f{index}" for index in range(5)]
INSTALL = "run tests/conformance/install"
ROWS = 20

Rows = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A daemon over one model."""
    made = Service(tmp_path_factory.mktemp("conformance"))
    registry = ModelRegistry(str(made.storage))
    registry.save_model(train(trees=30), model_info(), environment="production")
    with made:
        yield made


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Random rows that float32 holds exactly."""
    return np.random.default_rng(17).normal(size=(ROWS, 5)).astype("<f4")


@pytest.fixture(scope="module")
def expected(service: Service, rows: Rows) -> list[float]:
    """What the Python client is told, which is what the native model says."""
    with Client(service.endpoints.predict, timeout=5) as client:
        answers = client.predict(FAMILY, rows.tolist()).output
    model: Any = train(trees=30)
    assert np.abs(model.predict_proba(rows)[:, 1] - answers).max() < 1e-6
    return list(answers)


def output(command: list[str], words: str = "") -> str:
    """Run a bot and return what it printed."""
    run = subprocess.run(
        command, input=words, capture_output=True, text=True, timeout=60, check=False, cwd=FOLDER
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_a_bot_in_node_gets_the_same_answers(
    service: Service, rows: Rows, expected: list[float], tmp_path: Path
) -> None:
    """To the last bit, by name, listed and as a tensor; typed errors; an acknowledged trade."""
    if shutil.which("node") is None or not (FOLDER / "node_modules" / "zeromq").is_dir():
        pytest.skip(f"Node or its package zeromq is missing: {INSTALL}")
    given = tmp_path / "rows.json"
    given.write_text(json.dumps({"model": FAMILY, "names": NAMES, "rows": rows.tolist()}))
    seen = json.loads(output(["node", "bot.js", service.endpoints.predict, str(given)]))
    for shape in ("by_name", "listed"):
        assert [reply["output"] for reply in seen[shape]] == expected
        assert [reply["id"] for reply in seen[shape]] == [str(n) for n in range(ROWS)]
    tensor = np.frombuffer(base64.b64decode(seen["tensor"]["frames"][0]), "<f4")
    assert tensor.tolist() == np.array(expected, dtype="<f4").tolist()
    codes = ["unexpected_features", "missing_features", "not_finite"]
    assert [reply["code"] for reply in seen["errors"]] == codes
    first, second = seen["several"]["predictions"]
    assert (first["output"], second["code"]) == (expected[0], "unknown_model")
    assert seen["models"]["models"][0]["features"] == NAMES
    assert (seen["ack"]["status"], seen["ack"]["id"]) == ("recorded", "o")


def test_a_bot_in_c_gets_the_same_answers(
    service: Service, rows: Rows, expected: list[float], tmp_path: Path
) -> None:
    """To the last bit, over REQ and DEALER; a typed error; an acknowledged trade."""
    compiler = shutil.which("cc")
    if compiler is None or not Path("/usr/include/zmq.h").exists():
        pytest.skip(f"a C compiler or libzmq's header is missing: {INSTALL}")
    bot = tmp_path / "bot"
    output([compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", "bot.c", "-o", str(bot), "-lzmq"])
    words = "\n".join(" ".join(repr(value) for value in row) for row in rows.tolist())
    printed = output([str(bot), service.endpoints.predict, FAMILY, *NAMES], words)
    welcome, *replies, error, ack = map(json.loads, printed.splitlines())
    assert welcome["endpoints"]["feedback"] == service.endpoints.feedback
    assert [reply["output"] for reply in replies[::2]] == expected
    assert [reply["output"] for reply in replies[1::2]] == expected
    assert (error["code"], error["details"]["missing"]) == ("missing_features", NAMES)
    assert ack["status"] == "recorded"
