"""Runs a golden row of one loaded model after the other, for as long as they are served."""

from __future__ import annotations

from tickserve_server.serving.engine import Engine
from tickserve_server.serving.model import LiveModel
from tickserve_server.serving.table import ModelTable


class SelfTest:
    """Finds a model whose memory no longer gives what its file gave, and puts it in quarantine.

    Compiled models that answer quickly, one a call: tens of microseconds on the loop.
    """

    def __init__(self) -> None:
        self._turn = 0

    def run(self, table: ModelTable) -> None:
        """Test the next model of a table."""
        models = [model for model in table.models.values() if _is_testable(model)]
        if models:
            self._turn += 1
            models[self._turn % len(models)].test_itself()


def _is_testable(model: LiveModel) -> bool:
    is_quick = isinstance(model.engine, Engine) and not model.is_slow
    return is_quick and model.quarantined is None
