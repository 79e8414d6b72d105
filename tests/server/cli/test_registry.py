"""The registry's commands: tables for people, JSON for scripts, exit codes that mean something."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from tests.models import sum_model
from tickserve_registry.model_registry import ModelRegistry
from tickserve_server.cli import app, main
from tickserve_server.cli.registry import complete_families, complete_models
from tickserve_server.errors import RegistryMissing

FAMILY = "eurusd_1h_net_trend"
COMMANDS = [
    "models",
    "show",
    "save",
    "evaluate",
    "promote",
    "archive",
    "rollback",
    "compare",
    "verify",
    "rebuild",
    "import",
    "history",
    "next-version",
    "live",
    "trades",
    "export",
]

Run = Callable[..., Result]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """Return a storage root with v1 in production and v2 in staging."""
    registry = ModelRegistry(tmp_path / "storage")
    for version, sharpe in ((1, 1.5), (2, 0.5)):
        performance = {"validation": {"sharpe_ratio": sharpe, "n_trades": 100}}
        info = {"model_id": f"{FAMILY}_v{version}", "features": ["a", "b"]}
        registry.save_model(sum_model(), info | {"performance": performance})
    registry.promote_model(f"{FAMILY}_v1")
    return tmp_path / "storage"


@pytest.fixture
def run(storage: Path) -> Run:
    """Return a function that runs a command on the storage, as `main` does."""

    def invoke(*arguments: str, root: Path = storage) -> Result:
        screen = {"COLUMNS": None}  # a pipe, whatever the tests run in
        return CliRunner().invoke(app, [*arguments, "--storage", str(root)], env=screen)

    return invoke


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    """--help has an example and --json."""
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"tickserve {command}" in result.output
    assert "--json" in result.output


def test_models_lists_validation_beside_live(run: Run, storage: Path) -> None:
    """The table has both Sharpe ratios; the JSON has null where there is none."""
    build = ModelRegistry(storage).find(f"{FAMILY}_v1").build
    ModelRegistry(storage).record_live_performance(build, {"sharpe_ratio": -0.25})
    shown = run("models").output
    assert "1.50" in shown
    assert shown.index("_v1_") < shown.index("_v2_")
    assert "-0.25" in shown
    rows = json.loads(run("models", "--json", "--environment", "staging").output)
    assert [(row["model_id"], row["live_sharpe_ratio"]) for row in rows] == [(f"{FAMILY}_v2", None)]
    assert "no models" in run("models", "--market", "gold").output


def test_show_is_a_summary_and_json_is_everything(run: Run) -> None:
    """People see how it is served; scripts get the metadata."""
    assert "onnxruntime (error" in run("show", f"{FAMILY}_v1").output
    document = json.loads(run("show", FAMILY, "--json").output)
    assert (document["model_id"], document["features"]) == (f"{FAMILY}_v2", ["a", "b"])


def test_the_way_of_a_version(run: Run) -> None:
    """Promote, roll back, archive and read the trail."""
    record = json.loads(run("promote", f"{FAMILY}_v2", "--reason", "newer", "--json").output)
    assert (record["target"], len(record["archived"])) == ("production", 1)
    assert "from archive to production" in run("rollback", FAMILY, "--reason", "worse").output
    assert run("archive", f"{FAMILY}_v1").exit_code == 0
    trail = json.loads(run("history", FAMILY, "--json").output)
    assert [change["action"] for change in trail][-3:] == ["rollback", "archive", "archive"]
    assert len(json.loads(run("history", "--limit", "2", "--json").output)) == 2
    assert "worse" in run("history").output
    assert run("next-version", FAMILY).output.strip() == f"{FAMILY}_v3"
    assert json.loads(run("next-version", FAMILY, "--json").output) == {"model_id": f"{FAMILY}_v3"}


def test_compare_shows_what_was_lost(run: Run, storage: Path) -> None:
    """Every version of a family with its decay."""
    build = ModelRegistry(storage).find(f"{FAMILY}_v1").build
    ModelRegistry(storage).record_live_performance(build, {"sharpe_ratio": 0.75, "n_trades": 9})
    result = run("compare", FAMILY)
    assert "50%" in result.output
    assert "not comparable" in result.output
    rows = json.loads(run("compare", FAMILY, "--json").output)
    assert [row["live_sharpe_decay"] for row in rows] == [0.5, None]


def test_the_policy_has_its_own_exit_code(run: Run, storage: Path) -> None:
    """A refusal lists every unmet rule and ends with 3; force with a reason overrules it."""
    (storage / "promotion.toml").write_text("min_validation_sharpe = 1.0\nmax_sharpe_decay = 0.5\n")
    refused = run("promote", f"{FAMILY}_v2")
    assert refused.exit_code == 3
    assert "min_validation_sharpe" in refused.output
    assert "max_sharpe_decay" in refused.output
    listed = run("promote", f"{FAMILY}_v2", "--json").stdout
    assert [each["found"] for each in json.loads(listed)["unmet"]] == ["0.5", "none"]
    forced = run("promote", f"{FAMILY}_v2", "--force", "--reason", "a try")
    assert forced.exit_code == 0
    assert "overruled: min_validation_sharpe" in forced.output


def test_save_from_a_file(run: Run, tmp_path: Path) -> None:
    """A model file and its JSON become a build, in a storage root made for it."""
    model, info = tmp_path / "sum.onnx", tmp_path / "info.json"
    model.write_bytes(sum_model())
    info.write_text(json.dumps({"model_id": f"{FAMILY}_v7", "features": ["a", "b"]}))
    sample = tmp_path / "rows.csv"
    sample.write_text("a,b\n1,2\n3,4\n")
    fresh = tmp_path / "fresh"
    options = ["--info", str(info), "--sample", str(sample), "--json"]
    saved = json.loads(run("save", str(model), *options, root=fresh).output)
    assert Path(saved["model_path"]).is_file()
    assert ModelRegistry(fresh).verify()
    sample.write_text("a,b\none,2\n")
    refused = run("save", str(model), *options, root=tmp_path / "other")
    assert "training_sample holds no numbers" in str(refused.exception)
    sample.write_text("b,a\n1,2\n")
    assert run("save", str(model), *options, root=tmp_path / "third").exit_code == 0


def test_import_reports_each_and_fails_for_the_refused(run: Run, storage: Path) -> None:
    """Another root is taken over; what is refused makes the exit code 1."""
    other = storage.with_name("other")
    result = run("import", str(storage), root=other)
    assert (result.exit_code, "2 imported" in result.output) == (0, True)
    (storage / "staging" / f"{FAMILY}_v9_20250101.onnx").write_bytes(b"\x08nothing")
    result = run("import", str(storage), root=other)
    assert (result.exit_code, "2 present, 1 refused" in result.output) == (1, True)
    assert "there is no metadata beside it" in result.output


def test_verify_and_rebuild(run: Run, storage: Path) -> None:
    """A damaged index is named, and restored."""
    assert run("verify").exit_code == 0
    index = storage / "metadata" / "registry.json"
    index.write_bytes(index.read_bytes()[:50])
    assert run("verify").exit_code == 1
    assert run("rebuild").exit_code == 0
    assert json.loads(run("verify", "--json").output)["problems"] == []


def test_errors_are_one_line(
    storage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is refused is said in one line on standard error, with exit code 1."""
    for arguments, words in (
        (["show", "nothing_1h_at_all"], "no model is called"),
        (["promote", f"{FAMILY}_v2", "--force"], "needs a reason"),
        (["rollback", FAMILY], "no earlier production build"),
        (["next-version", "no name"], "is not allowed"),
    ):
        command = ["tickserve", *arguments, "--storage", str(storage)]
        monkeypatch.setattr("sys.argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line


def test_texts_of_others_change_nothing_on_the_screen(run: Run) -> None:
    """Brackets, escapes and line ends in a reason are shown, not obeyed."""
    reason = "back to [/path] [red]now[/red]\x1b[2J\nnext"
    assert run("promote", f"{FAMILY}_v2", "--reason", reason).exit_code == 0
    shown = run("history").output
    assert "back to [/path] [red]now[/red]" in shown
    assert "\x1b" not in shown


def test_a_pipe_gets_whole_tables(run: Run) -> None:
    """Nothing is cut where no terminal sets the width."""
    for command in ("models", "history", "compare"):
        assert "…" not in run(command).output
    assert "production" in run("models").output


def test_an_unknown_environment_is_wrong_usage(run: Run) -> None:
    """The names that there are, and exit code 2."""
    result = run("models", "--environment", "prod")
    assert result.exit_code == 2
    assert "staging" in result.output


def test_a_folder_without_a_registry(tmp_path: Path) -> None:
    """A mistyped storage is named, and not made."""
    with pytest.raises(RegistryMissing, match="--storage"):
        CliRunner().invoke(
            app, ["models", "--storage", str(tmp_path / "no")], catch_exceptions=False
        )
    assert not (tmp_path / "no").exists()


def test_names_are_completed(storage: Path, tmp_path: Path) -> None:
    """Completion reads the index, and says nothing where there is none or it is torn."""
    context: Any = typer.Context(typer.main.get_command(app))
    context.params = {"storage": str(storage)}
    assert complete_families(context, "eur") == [FAMILY]
    assert f"{FAMILY}_v1" in complete_models(context, FAMILY)
    context.params = {"storage": str(tmp_path / "nowhere")}
    assert complete_models(context, "") == []
    assert not (tmp_path / "nowhere").exists()
