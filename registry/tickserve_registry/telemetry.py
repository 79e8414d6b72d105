"""ONNX Runtime reports to its maker what it runs, unless told not to before it is imported."""

from __future__ import annotations

from collections.abc import MutableMapping


def silence_telemetry(environment: MutableMapping[str, str]) -> None:
    """Have it report nothing and keep no file for it; a user's own choice stays."""
    environment.setdefault("ORT_DISABLE_TELEMETRY", "1")
