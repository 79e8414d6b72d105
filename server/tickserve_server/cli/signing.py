"""Commands of signatures: sign, signing-key."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import typer

from tickserve_server.cli.output import JsonFlag, console, print_json
from tickserve_server.cli.registry import MODEL, STORAGE, open_registry
from tickserve_server.errors import ExtraMissing

KEY = typer.Option(..., "--key", help="Private key, as signing-key makes it.")
FILE = typer.Argument(..., help="New file for the private key.")
NAME = typer.Option("signer", "--name", help="Under which the daemon's settings know the key.")


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(epilog="Example: tickserve sign eurusd_1h_xgb_trend_v2 --key alice.pem")(sign)
    app.command("signing-key", epilog="Example: tickserve signing-key alice.pem --name alice")(
        signing_key
    )


def sign(
    model: str = MODEL,
    key: Path = KEY,
    storage: str | None = STORAGE,
    as_json: bool = JsonFlag,
) -> None:
    """Vouch for a build: its name, files, features, golden rows and thresholds as they are."""
    _require_cryptography()
    registry = open_registry(storage)
    build = registry.find(model).build
    signature = registry.sign_model(build, key)
    if as_json:
        print_json({"build": build, "signature": signature})
    else:
        console().print(f"{build} is signed by {signature.key}", highlight=False, markup=False)


def signing_key(file: Path = FILE, name: str = NAME, as_json: bool = JsonFlag) -> None:
    """Make a key for signing; prints what goes into `signers` of the daemon's settings."""
    _require_cryptography()
    from tickserve_registry.signing import create_key

    public = create_key(file)
    if as_json:
        print_json({"file": str(file), "signer": f"{name}:{public}"})
    else:
        console().print(f"{name}:{public}", highlight=False, markup=False)


def _require_cryptography() -> None:
    if find_spec("cryptography") is None:
        raise ExtraMissing(package="cryptography", extra="signing")
