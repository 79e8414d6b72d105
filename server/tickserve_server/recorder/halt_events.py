"""Tells subscribers which models are halted, and which go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from tickserve_registry.errors import RegistryError
from tickserve_registry.halts import Halt
from tickserve_registry.layout import Layout
from tickserve_registry.model_registry import ModelRegistry
from tickserve_server.watch import FileWatch

log = structlog.get_logger(__name__)


class HaltEvents:
    """Publishes `halt.<model_id>` for models in production, whichever name the halt was given.

    A halt of a family, or of all, reaches a model that is promoted later, too.
    """

    def __init__(
        self,
        root: Path,
        registry: ModelRegistry,
        *,
        publish: Callable[[str, dict[str, Any]], None],
    ) -> None:
        layout = Layout(root)
        self._registry = registry
        self._publish = publish
        self._told: dict[str, Halt] = {}
        self._watch = FileWatch([layout.halts, layout.catalog], self.refresh)

    def start(self) -> None:
        """Tell what is halted now, and from then on what changes."""
        self.refresh()
        self._watch.start()

    def stop(self) -> None:
        """Tell no more."""
        self._watch.stop()

    def refresh(self) -> None:
        """Tell what has changed since the last time; files that cannot be read change nothing."""
        try:
            halts = self._registry.halts()
            production = self._registry.production()
        except (RegistryError, OSError) as error:
            log.warning("halts_not_told", reason=str(error))
            return
        found = {entry.model_id: halts.of(entry) for entry in production}
        halted = {model_id: halt for model_id, halt in found.items() if halt is not None}
        for model_id, halt in halted.items():
            if self._told.get(model_id) != halt:
                body = {"state": "halted", "reason": halt.reason, "by": halt.by, "at": halt.at}
                self._publish(f"halt.{model_id}", body)
        for model_id in self._told.keys() - halted.keys():
            self._publish(f"halt.{model_id}", {"state": "resumed"})
        self._told = halted
