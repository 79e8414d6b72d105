"""docs/operations.md: its commands run in order, its settings load, its tables are whole."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from benchmarks.daemon import Service, model_info, train
from tickserve_registry.model_registry import ModelRegistry
from tickserve_server.settings import load_settings

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "operations.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
SERVER = Path(__file__).parents[1] / "server" / "tickserve_server"
EVENT = re.compile(
    r"""(?:log|get_logger\(__name__\))\.(?:debug|info|warning|error|critical|exception)\(
        \s*"([a-z_]+)\"""",
    re.VERBOSE,
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A daemon over the model that the page speaks of."""
    made = Service(tmp_path_factory.mktemp("operations"))
    registry = ModelRegistry(made.storage)
    info = model_info() | {"strategy": "trend"}
    registry.save_model(train(trees=3), info, environment="production")
    with made:
        yield made
        assert made.stop() == 0


def test_every_command_runs_as_printed(service: Service) -> None:
    """One after the other, in the folder that holds the storage."""
    commands = [
        line
        for kind, text in BLOCKS
        for line in text.splitlines()
        if not kind and line.startswith("tickserve ")
    ]
    assert len(commands) > 15
    environment = {**os.environ, **service.environment}
    for name, endpoint in service.endpoints._asdict().items():
        environment[f"TICKSERVE_ENDPOINTS__{name.upper()}"] = endpoint
    folder = service.storage.parent
    for command in commands:
        program = [sys.executable, "-m", "tickserve_server", *shlex.split(command)[1:]]
        run = subprocess.run(
            program, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, f"{command}: {run.stdout}{run.stderr}"
        assert run.stdout, command
    assert (folder / "screen.key.json").exists()


@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind == "toml"])
def test_settings_load_as_printed(tmp_path: Path, text: str) -> None:
    """Each is a configuration file that the daemon takes."""
    file = tmp_path / "tickserve.toml"
    file.write_text(text)
    assert load_settings(file=file, environment={}, flags={}).storage_root.is_absolute()


def test_the_table_of_events_is_the_code_s() -> None:
    """Every event of the log is explained, and none that there is not."""
    code = "\n".join(path.read_text("utf-8") for path in SERVER.rglob("*.py"))
    logged = set(EVENT.findall(code)) | {"live_metrics"}
    section = TEXT.partition("## Logs")[2]
    rows = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert listed == logged


def test_the_table_of_alerts_is_the_rules(project_root: Path) -> None:
    """Every alert is listed."""
    rules = yaml.safe_load((project_root / "config" / "monitoring" / "alerts.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert set(re.findall(r"^\| (Tickserve\w+) \|", TEXT, re.MULTILINE)) == alerts


def test_links_lead_somewhere() -> None:
    """Every file that the page names is there."""
    links = re.findall(r"\]\(([^)#]+)", TEXT)
    assert len(links) > 5
    assert [link for link in links if not (DOCS / link).exists()] == []
