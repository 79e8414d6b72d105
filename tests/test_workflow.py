"""docs/workflow.md: every block runs as printed, in order, and prints what is shown."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.daemon import free_endpoints
from tickserve_client import Client, ClientError
from tickserve_registry.model_registry import ModelRegistry

SHOWN = "tcp://127.0.0.1:5555"
SECONDS = 60.0
LIVE_SECONDS = 20.0
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HIDDEN = "…"


class Walk:
    """Someone who follows the document: a notebook, a terminal, and a daemon in the background."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._endpoints = free_endpoints()
        self._notebook: dict[str, Any] = {"__name__": "__main__"}
        self._daemon: subprocess.Popen[bytes] | None = None
        self._environment = os.environ | {
            "COLUMNS": "100",
            "TICKSERVE_RECORDER__WRITEBACK_SECONDS": "0.5",
            **{
                f"TICKSERVE_ENDPOINTS__{name.upper()}": endpoint
                for name, endpoint in self._endpoints._asdict().items()
            },
        }

    def python(self, code: str) -> str:
        """Run a notebook cell; return what it prints."""
        printed = io.StringIO()
        code = code.replace(SHOWN, self._endpoints.predict)
        with contextlib.redirect_stdout(printed), contextlib.chdir(self._folder):
            exec(compile(code, "workflow.md", "exec"), self._notebook)  # noqa: S102 - our own text
        return printed.getvalue()

    def command(self, line: str) -> str:
        """Run a command; return all that it prints."""
        words = [sys.executable, "-m", "tickserve_server", *shlex.split(line)[1:]]
        if words[-1] == "&":
            self._start(words[:-1])
            return ""
        run = subprocess.run(
            words,
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        return run.stdout.replace(self._endpoints.predict, SHOWN)

    def wait_for_live_figures(self) -> None:
        """Wait until the recorder has written figures of the build that left production."""
        registry = ModelRegistry(self._folder / "model_storage")
        deadline = time.monotonic() + LIVE_SECONDS
        while time.monotonic() < deadline:
            if registry.list_models(environment="archive")["live_win_rate"].notna().all():
                return
            time.sleep(0.1)

    def end(self) -> None:
        """End the daemon."""
        if self._daemon is not None:
            self._daemon.terminate()
            assert self._daemon.wait(SECONDS) == 0

    def _start(self, words: list[str]) -> None:
        log = (self._folder / "daemon.log").open("wb")
        with log:
            self._daemon = subprocess.Popen(
                words, cwd=self._folder, env=self._environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + SECONDS
        with Client(self._endpoints.predict) as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(ClientError):
                    if client.ping().ready:
                        return
        raise TimeoutError((self._folder / "daemon.log").read_text())


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    """Return someone to follow the document in an empty folder."""
    made = Walk(tmp_path)
    yield made
    made.end()


def require_shown(printed: str, shown: str) -> None:
    """Check what is printed against what the document shows, which may hide parts as `…`."""
    pattern = r"\s*".join(
        r"\s+".join(re.escape(word).replace(HIDDEN, ".*?") for word in line.split())
        for line in shown.splitlines()
    )
    assert re.fullmatch(rf"\s*{pattern}\s*", printed, re.DOTALL), f"{printed}\n-- shown --\n{shown}"


def steps(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield each cell or command with what the document shows of its output."""
    blocks = [(kind, body) for kind, body in BLOCK.findall(text)]
    for place, (kind, body) in enumerate(blocks):
        following = blocks[place + 1] if place + 1 < len(blocks) else ("python", "")
        if kind == "python":
            yield kind, body, following[1] if following[0] == "" else ""
        elif kind == "console":
            for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
                line, _, shown = part.partition("\n")
                yield kind, line, shown


def test_the_document_runs_as_printed(walk: Walk, project_root: Path) -> None:
    """The five steps, from training to live figures in the metadata."""
    text = (project_root / "docs" / "workflow.md").read_text(encoding="utf-8")
    count = 0
    for kind, body, shown in steps(text):
        if "compare" in body:
            walk.wait_for_live_figures()
        printed = walk.python(body) if kind == "python" else walk.command(body)
        require_shown(printed, shown)
        count += 1
    assert count >= 15
