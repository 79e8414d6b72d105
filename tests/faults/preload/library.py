"""Libraries that are preloaded into the daemon: its files traced, its disk or clock at fault."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

STRICT = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-O1"]


def preload(name: str, folder: Path) -> str:
    """Compile a library into a folder, or skip the test where there is no compiler; return it."""
    compiler = shutil.which("cc")
    if compiler is None:
        if os.environ.get("CI") == "true":
            pytest.fail("a C compiler is missing where CI=true: run make conformance first")
        pytest.skip("a C compiler is missing")
    library = folder / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run([compiler, *STRICT, str(source), "-o", str(library), "-ldl"], check=True)
    return str(library)
