"""The project as a whole: its pins, its packages, its imports and what its files promise."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGES = (
    "registry/tickserve_registry",
    "clients/tickserve_client",
    "clients/tickserve_bots",
    "server/tickserve_server",
)
HEAVY = {"numpy", "pandas", "onnx", "onnxruntime", "xgboost", "sklearn", "sqlalchemy"}
PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.+!]*")


def modules(root: Path) -> list[Path]:
    """Return every Python file that is shipped."""
    return sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))


def loaded_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter holds after a statement."""
    program = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return set(run.stdout.split())


@pytest.fixture(scope="module")
def pyproject(project_root: Path) -> dict[str, Any]:
    """Return the parsed pyproject.toml."""
    return tomllib.loads((project_root / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pin_lines(project_root: Path) -> list[str]:
    """Return the lines of constraints.txt without its comments."""
    lines = (project_root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def pins(pin_lines: list[str]) -> dict[str, str]:
    """Return the pinned version of each package, by its canonical name."""
    pairs = (line.partition("==") for line in pin_lines)
    return {canonicalize_name(name): version for name, _, version in pairs}


def test_constraints_are_plain_pins(pin_lines: list[str]) -> None:
    """constraints.txt holds names with exact versions: no address, no path, no marker."""
    assert [line for line in pin_lines if not PIN.fullmatch(line)] == []


def test_constraints_pin_each_package_once(pin_lines: list[str], pins: dict[str, str]) -> None:
    """No package is pinned twice under two spellings."""
    assert len(pins) == len(pin_lines)


def test_constraints_cover_and_satisfy_every_dependency(
    pyproject: dict[str, Any], pins: dict[str, str]
) -> None:
    """Each dependency of each extra is pinned, at a version that the dependency allows."""
    project = pyproject["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = [Requirement(text) for group in groups for text in group]
    outside = [need for need in wanted if canonicalize_name(need.name) != project["name"]]
    unmet = [
        str(need)
        for need in outside
        if not need.specifier.contains(pins.get(canonicalize_name(need.name), "0"))
    ]
    assert unmet == []


def test_environment_has_the_pinned_versions(pins: dict[str, str]) -> None:
    """The environment that runs the tests is the one that constraints.txt describes."""
    installed = {
        canonicalize_name(distribution.name): distribution.version
        for distribution in importlib.metadata.distributions()
    }
    common = installed.keys() & pins.keys()
    assert {name: installed[name] for name in common} == {name: pins[name] for name in common}


def test_client_imports_pyzmq_and_msgspec_only() -> None:
    """The client loads nothing beyond pyzmq, msgspec and the standard library."""
    added = loaded_after("import tickserve_client") - loaded_after("import msgspec, zmq")
    assert added - set(sys.stdlib_module_names) == {"tickserve_client"}


@pytest.mark.parametrize("package", [Path(package).name for package in PACKAGES])
def test_packages_import_light(package: str) -> None:
    """Importing a package loads none of the libraries that load, compile, score or store."""
    assert loaded_after(f"import {package}") & HEAVY == set()


def test_registry_facade_imports_light() -> None:
    """A notebook or a daemon opens the registry without loading any of the model libraries."""
    assert loaded_after("import tickserve_registry.model_registry") & HEAVY == set()


def test_every_module_opens_with_one_sentence(project_root: Path) -> None:
    """The first paragraph of each module is one sentence that says what the module is for."""
    wrong = {}
    for path in modules(project_root):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first = " ".join(text.split("\n\n")[0].split())
        if not first.endswith(".") or ". " in first:
            wrong[str(path.relative_to(project_root))] = first
    assert wrong == {}


def test_every_test_says_what_it_tests(project_root: Path) -> None:
    """Each test function opens with its sentence of behaviour."""
    silent = [
        f"{path.relative_to(project_root)}::{node.name}"
        for path in sorted((project_root / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def test_packages_are_typed(project_root: Path) -> None:
    """Each package tells type checkers that its annotations count."""
    assert [p for p in PACKAGES if not (project_root / p / "py.typed").is_file()] == []


def test_wheel_lists_every_package(pyproject: dict[str, Any], project_root: Path) -> None:
    """The wheel ships each package of the three source folders and nothing that does not exist."""
    listed = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    found = [
        str(path.parent.relative_to(project_root))
        for folder in ("registry", "clients", "server")
        for path in (project_root / folder).glob("*/__init__.py")
    ]
    assert sorted(listed) == sorted(found)


def test_extras_bring_one_xgboost_at_most(pyproject: dict[str, Any]) -> None:
    """Only the extra of that name brings an xgboost, and it is the CPU build."""
    extras = pyproject["project"]["optional-dependencies"]
    naming = {
        extra: Requirement(text).name
        for extra, texts in extras.items()
        for text in texts
        if Requirement(text).name.startswith("xgboost")
    }
    assert naming == {"xgboost": "xgboost-cpu"}


def test_make_help_lists_every_target(project_root: Path) -> None:
    """`make` alone explains each target that a person may call."""
    makefile = (project_root / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    run = subprocess.run(
        ["make", "--no-print-directory"],  # noqa: S607 - make is found where the machine has it
        cwd=project_root,
        env={key: value for key, value in os.environ.items() if not key.startswith("MAKE")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    explained = re.findall(r"^make ([\w-]+) +\w", run.stdout, re.MULTILINE)
    assert sorted(explained) == sorted(phony.group(1).split())


def test_make_refuses_a_missing_python(project_root: Path, tmp_path: Path) -> None:
    """With an interpreter that does not run, `make venv` says what it needs and fails."""
    run = subprocess.run(
        [  # noqa: S607 - make is found where the machine has it
            "make",
            "--no-print-directory",
            f"VENV={tmp_path / 'venv'}",
            "PYTHON=python-that-is-not-there",
            "venv",
        ],
        cwd=project_root,
        env={key: value for key, value in os.environ.items() if not key.startswith("MAKE")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode != 0
    assert "needs Python 3.11 or newer" in run.stderr
    assert not (tmp_path / "venv").exists()


def test_package_version_is_in_the_changelog(project_root: Path) -> None:
    """The changelog's newest entry is the installed version, or what is not released yet."""
    changelog = (project_root / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[([^\]]+)\]", changelog, re.MULTILINE)
    assert headings
    assert headings[0] in {"Unreleased", importlib.metadata.version("tickserve")}
