"""ModelRegistry: the one object through which notebooks, commands and the daemon use a registry."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tickserve_registry.catalog import Entry, read_catalog
from tickserve_registry.digest import serving_digest
from tickserve_registry.errors import ArtefactRefused, ModelNotFound, TransitionRefused
from tickserve_registry.history import Change, read_history
from tickserve_registry.layout import ENVIRONMENTS, Environment, Layout
from tickserve_registry.lifecycle import Lifecycle, PromotionRecord
from tickserve_registry.metadata import Metadata
from tickserve_registry.naming import parse_version
from tickserve_registry.performance import Calendar
from tickserve_registry.repair import Report, rebuild, verify
from tickserve_registry.span import Moment
from tickserve_registry.store import make_folder

if TYPE_CHECKING:
    import pandas as pd

    from tickserve_registry.replay import Replay


class ServingModel(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon needs of a build: its metadata and the verified bytes it runs."""

    entry: Entry
    metadata: Metadata
    artefact: bytes


class ModelRegistry:
    """A registry in a storage root; opening it creates the folders it lacks.

    A name is a family (its newest version), a model_id (its newest build) or a build.
    """

    def __init__(self, storage_root: str | Path = "./model_storage") -> None:
        self.storage_root = str(storage_root)
        self._layout = Layout(Path(storage_root))
        self._lifecycle = Lifecycle(self._layout)
        for folder in ("metadata", *ENVIRONMENTS):
            make_folder(self._layout.root / folder)

    def save_model(
        self,
        model: Any,
        model_info: Mapping[str, Any],
        environment: Environment = "staging",
        *,
        training_sample: Any = None,
    ) -> tuple[str, str]:
        """Save a trained model with its metadata; returns (model_path, meta_path).

        `training_sample` is inputs [rows, …] like those of training, from which parity probes
        and golden rows are drawn. Raises NameRefused, MetadataRefused, FormatRefused or
        BuildExists; then nothing has been written.
        """
        from tickserve_registry.saving import make_build

        _require_environment(environment, name=str(model_info.get("model_id", "the new model")))
        new = make_build(model, model_info, sample=training_sample)
        first: Environment = "staging" if environment == "production" else environment
        entry = self._lifecycle.store(new, environment=first)
        if environment == "production":
            self.promote_model(entry.build)
            entry = self.find(entry.build)
        root = self._layout.root
        return str(root / entry.file_path), str(root / entry.metadata_path)

    def load_model(
        self, model_id: str, version: Any = None, environment: str | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Return the native model and its metadata. Raises ModelNotFound or ArtefactRefused."""
        from tickserve_registry.formats import load_native

        entry = self.find(model_id, version=version, environment=environment)
        metadata, data = self._lifecycle.with_artefact(entry.build, served=False)
        native_class = str(metadata.document.get("native_class"))
        model = load_native(data, framework=metadata.framework, native_class=native_class)
        return model, metadata.document

    def list_models(
        self, environment: str | None = None, market: str | None = None, status: str | None = None
    ) -> pd.DataFrame:
        """Return one row for each build that fits, with the figures of its metadata."""
        from tickserve_registry.listing import frame_of

        chosen = [
            entry
            for entry in self.entries()
            if environment in (None, entry.environment)
            and market in (None, entry.market)
            and status in (None, entry.status)
        ]
        return frame_of((entry, self._lifecycle.metadata(entry.build).document) for entry in chosen)

    def promote_model(
        self,
        model_id: str,
        to_environment: Environment = "production",
        *,
        keep: bool = False,
        reason: str | None = None,
    ) -> PromotionRecord:
        """Move a build to an environment, in one transaction.

        Promoting to production archives the family's present production build unless `keep`.
        Raises ModelNotFound or TransitionRefused.
        """
        _require_environment(to_environment, name=model_id)
        entry = self.find(model_id)
        return self._lifecycle.move(entry, to_environment, keep=keep, reason=reason)

    def archive_model(self, model_id: str, *, reason: str | None = None) -> PromotionRecord:
        """Move a build to the archive; nothing is deleted."""
        return self.promote_model(model_id, "archive", reason=reason)

    def record_live_performance(self, build: str, block: dict[str, Any]) -> None:
        """Set `performance.live` of a build; costs the same however many models there are."""
        self._lifecycle.describe(build, "live", block)

    def evaluate(
        self,
        model_id: str,
        bars: Any = "eurusd_1h",
        *,
        costs: Mapping[str, float] | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        replay: Replay | None = None,
        calendar: Calendar | None = None,
        starting_equity: float = 10_000.0,
    ) -> dict[str, Any]:
        """Trade a model on bars it never saw and write what came of it as validation figures.

        `bars` is a name, a CSV or Parquet path or a DataFrame; those after the training period
        count, or those from `start` to `end` (dates or times, UTC). `costs` are `spread` in price
        units and `fee_rate` a side; `replay` defaults to that of tickserve[bots]. Returns the
        block. Raises ModelNotFound, ArtefactRefused, EvaluationRefused, BarsRefused,
        FeatureUnknown or ReplayMissing; then nothing has been written.
        """
        from tickserve_registry.evaluation import evaluate
        from tickserve_registry.replay import installed_replay

        entry = self.find(model_id)
        block = evaluate(
            self.serving_model(entry),
            bars=bars,
            replay=replay or installed_replay(),
            costs=costs,
            start=start,
            end=end,
            calendar=calendar,
            starting_equity=starting_equity,
        )
        self._lifecycle.describe(entry.build, "validation", block)
        return block

    def entries(self) -> tuple[Entry, ...]:
        """Return the index, read whole. Raises CatalogUnreadable."""
        return read_catalog(self._layout.catalog)

    def production(self) -> tuple[Entry, ...]:
        """Return the builds in production."""
        return tuple(entry for entry in self.entries() if entry.environment == "production")

    def find(self, name: str, *, version: Any = None, environment: str | None = None) -> Entry:
        """Return the newest build that goes by the name. Raises ModelNotFound."""
        entries = self.entries()
        name = name.lower().removesuffix(".model")
        wanted = None if version is None else parse_version(version)
        found = [
            entry
            for entry in entries
            if name in (entry.family, entry.model_id, entry.build)
            and wanted in (None, entry.version)
            and environment in (None, entry.environment)
        ]
        if not found:
            known = {each for entry in entries for each in (entry.family, entry.model_id)}
            raise ModelNotFound(name=name, nearest=difflib.get_close_matches(name, known))
        return max(found, key=lambda entry: (entry.version, entry.date))

    def metadata(self, name: str) -> Metadata:
        """Return one build's metadata, typed and whole."""
        return self._lifecycle.metadata(self.find(name).build)

    def serving_model(self, entry: Entry) -> ServingModel:
        """Read what the daemon runs; the digests are checked on the very bytes returned.

        Raises ArtefactRefused when a file, or anything that determines an answer, has changed.
        """
        metadata, artefact = self._lifecycle.with_artefact(entry.build, served=True)
        found = serving_digest(metadata.document, serving_sha256=metadata.serving.sha256)
        if found != entry.serving_digest:
            problem = "its features, input, output, thresholds or golden rows were changed"
            path = self._lifecycle.metadata_path(entry.build)
            raise ArtefactRefused(path=path, problem=problem)
        return ServingModel(entry=entry, metadata=metadata, artefact=artefact)

    def history(self) -> list[Change]:
        """Return the audit trail, oldest first."""
        return read_history(self._layout.history)

    def verify(self) -> Report:
        """Check every file; the report is true when nothing is wrong."""
        return verify(self._layout, self._lifecycle)

    def rebuild(self) -> Report:
        """Write registry.json anew from the metadata files."""
        return rebuild(self._layout, self._lifecycle)


def _require_environment(environment: str, *, name: str) -> None:
    if environment not in ENVIRONMENTS:
        reason = f"the environments are {', '.join(ENVIRONMENTS)}"
        raise TransitionRefused(build=name, origin="here", target=environment, reason=reason)
