"""What is shipped for container engines says the same as the daemon and the image."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tickserve_server.settings import load_settings


@pytest.fixture
def folder(project_root: Path) -> Path:
    """Return config/container."""
    return project_root / "config" / "container"


def locked(container: dict[str, Any]) -> bool:
    """Whether a container can neither write its root nor gain rights."""
    context = container["securityContext"]
    return (
        context["readOnlyRootFilesystem"]
        and not context["allowPrivilegeEscalation"]
        and context["capabilities"]["drop"] == ["ALL"]
    )


def settings_of(variables: dict[str, str], tmp_path: Path) -> Any:
    """Return the daemon's settings under these variables; a wrong name would be refused."""
    token = tmp_path / "token"
    token.write_text("long enough to be a token\n")
    known = {**variables, "TICKSERVE_OPS__TOKEN_FILE": str(token)}
    return load_settings(file=None, environment=known, flags={})


def test_compose_runs_it_locked_with_keys(folder: Path, tmp_path: Path) -> None:
    """Read-only, without capabilities, bounded, with keys and a token; mounted files are there."""
    services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    daemon = services["tickserve"]
    assert daemon["read_only"]
    assert daemon["cap_drop"] == ["ALL"]
    assert daemon["mem_limit"] == "2g"
    settings = settings_of(daemon["environment"], tmp_path)
    assert settings.security.curve
    assert settings.ops.listen.endswith(":9464")
    for service in services.values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith(".") or (folder / source).exists(), source


def test_kubernetes_runs_one_locked_replica(folder: Path, tmp_path: Path) -> None:
    """One writer, stopped before it is replaced; probes; a budget; nothing it need not have."""
    documents = list(yaml.safe_load_all((folder / "kubernetes.yaml").read_text()))
    kinds = {document["kind"]: document for document in documents}
    assert set(kinds) == {
        "PersistentVolumeClaim",
        "Deployment",
        "Service",
        "PodDisruptionBudget",
    }
    spec = kinds["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    pod = spec["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert all(locked(each) for each in [*pod["containers"], *pod["initContainers"]])
    (daemon,) = pod["containers"]
    settings = settings_of({each["name"]: each["value"] for each in daemon["env"]}, tmp_path)
    assert settings.security.curve
    assert daemon["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert daemon["livenessProbe"]["exec"]["command"] == ["tickserve", "ping"]
    ports = {each["name"]: each["containerPort"] for each in daemon["ports"]}
    listened = [*settings.endpoints.__struct_fields__]
    for name in listened:
        assert getattr(settings.endpoints, name).endswith(f":{ports[name]}")
    budget = kinds["PodDisruptionBudget"]["spec"]
    assert budget["selector"] == spec["selector"]
    assert kinds["Service"]["spec"]["selector"] == spec["selector"]["matchLabels"]


def test_the_build_script_is_sound(folder: Path) -> None:
    """The shell can read it, it says how it is used, and does nothing unasked."""
    script = folder / "build.sh"
    shell = shutil.which("dash") or shutil.which("sh")
    assert shell is not None
    assert subprocess.run([shell, "-n", str(script)], check=False).returncode == 0
    used = subprocess.run([shell, str(script)], capture_output=True, text=True, check=False)
    assert used.returncode == 2
    assert "build.sh python SOURCE" in used.stderr
