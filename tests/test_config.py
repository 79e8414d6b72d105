"""The shipped configuration: the settings file, the systemd unit and the container image."""

from __future__ import annotations

import configparser
import re
import shlex
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.daemon import Service
from tickserve_server.settings import Section, Settings, load_settings

DEFAULT_ENDPOINTS = msgspec.structs.astuple(Settings().endpoints)
INSTALLED_SETTINGS = "/etc/tickserve/tickserve.toml"


class InstalledService(Service):
    """The daemon as the unit starts it, with settings from a file of the test's own."""

    def __init__(self, folder: Path, *, arguments: list[str]) -> None:
        super().__init__(folder)
        self.settings = folder / "tickserve.toml"
        self._arguments = arguments

    def command(self) -> list[str]:
        """Return the unit's command line, with this interpreter and these settings."""
        rest = [str(self.settings) if a == INSTALLED_SETTINGS else a for a in self._arguments]
        return [sys.executable, "-m", "tickserve_server", *rest]


def setting_names(section: type[Section]) -> set[str]:
    """Return the names of all settings below a section, its own and its subsections'."""
    names: set[str] = set()
    for field in msgspec.structs.fields(section):
        names.add(field.encode_name)
        if isinstance(field.type, type) and issubclass(field.type, Section):
            names |= setting_names(field.type)
    return names


@pytest.fixture(scope="module")
def settings_file(project_root: Path) -> Path:
    """Return the path of the settings file that ships with the project."""
    return project_root / "config" / "tickserve.toml"


@pytest.fixture(scope="module")
def unit(project_root: Path) -> configparser.ConfigParser:
    """Return the parsed systemd unit."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    path = project_root / "config" / "systemd" / "tickserve.service"
    parser.read_string(path.read_text(encoding="utf-8"))
    return parser


def test_settings_file_states_the_defaults(settings_file: Path) -> None:
    """The shipped settings file changes nothing: each value in it is the default."""
    assert load_settings(file=settings_file, environment={}, flags={}) == Settings()


def test_settings_file_names_every_setting(settings_file: Path) -> None:
    """No setting is missing from the shipped file; one without a default is shown as a comment."""
    text = settings_file.read_text(encoding="utf-8")
    shown = set(re.findall(r"^(?:# )?(\w+) = ", text, re.MULTILINE))
    shown |= {
        name for path in re.findall(r"^\[(.+)\]", text, re.MULTILINE) for name in path.split(".")
    }
    assert setting_names(Settings) - shown == set()


def test_unit_starts_the_daemon(
    unit: configparser.ConfigParser,
    settings_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The unit's command line runs a daemon that answers and that SIGTERM ends cleanly."""
    program, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert Path(program).name == "tickserve"
    assert arguments.count(INSTALLED_SETTINGS) == 1
    service = InstalledService(tmp_path, arguments=arguments)
    settings = settings_file.read_text(encoding="utf-8")
    for shown, free in zip(DEFAULT_ENDPOINTS, service.endpoints, strict=True):
        settings = settings.replace(shown, free)
    service.settings.write_text(settings, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with service:
        assert service.storage.is_dir()
        assert service.stop() == 0


def test_unit_keeps_the_models_in_its_state_folder(unit: configparser.ConfigParser) -> None:
    """The unit starts where the relative storage root of the settings file is its own state."""
    service = unit["Service"]
    assert service["WorkingDirectory"] == f"%S/{service['StateDirectory']}"
    assert not Path(Settings().storage).is_absolute()


def test_image_runs_as_a_user_of_its_own(project_root: Path) -> None:
    """The container drops root before it starts, keeps its data in a volume and checks itself."""
    text = (project_root / "config" / "container" / "Dockerfile").read_text(encoding="utf-8")
    final = text[text.rindex("\nFROM ") :]
    words = [line.split(maxsplit=1) for line in final.splitlines() if line[:1].isupper()]
    steps = dict(words)
    assert steps["USER"] == "10001:10001"
    assert steps["VOLUME"] == "/data"
    assert steps["HEALTHCHECK"].endswith('CMD ["tickserve", "ping"]')
    assert [word for word, _ in words].index("USER") < [word for word, _ in words].index("CMD")


def test_image_is_built_from_files_that_exist(project_root: Path) -> None:
    """All that the container's build copies is in the checkout and passes its ignore file."""
    folder = project_root / "config" / "container"
    text = (folder / "Dockerfile").read_text(encoding="utf-8")
    copies = re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE)
    sources = {source for line in copies for source in line.split()}
    ignore = (folder / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert sources == {line[1:] for line in ignore if line.startswith("!")}
    assert [source for source in sources if not (project_root / source).exists()] == []
