"""ModelRegistry: the one object through which notebooks, commands and the daemon use a registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tickserve_registry import lookup
from tickserve_registry.catalog import Entry
from tickserve_registry.errors import (
    NothingToRestore,
    ReasonMissing,
    RegistryError,
    TransitionRefused,
)
from tickserve_registry.halts import ALL_MODELS, Halt, HaltFile, Halts
from tickserve_registry.history import Change, read_history
from tickserve_registry.inspection import Inspection, Report
from tickserve_registry.layout import ENVIRONMENTS, Environment, Layout
from tickserve_registry.lifecycle import Lifecycle, PromotionRecord
from tickserve_registry.metadata import Metadata
from tickserve_registry.model_file import ModelFiles
from tickserve_registry.policy import PromotionPolicy
from tickserve_registry.reader import LARGEST_BYTES, BuildReader
from tickserve_registry.repair import Repair
from tickserve_registry.sandbox import Sandbox
from tickserve_registry.span import Moment
from tickserve_registry.store import make_folder
from tickserve_registry.trading_calendar import Calendar
from tickserve_registry.transaction import Transactions
from tickserve_registry.trust import Trust

if TYPE_CHECKING:
    import pandas as pd

    from tickserve_registry.formats.native import Predict
    from tickserve_registry.intake import Imported
    from tickserve_registry.listing import Listing
    from tickserve_registry.replay import Replay
    from tickserve_registry.signing import Signature


class ServingModel(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon needs of a build: its metadata and the verified bytes it runs."""

    entry: Entry
    metadata: Metadata
    artefact: bytes


class ModelRegistry:
    """A registry in a storage root; opening it creates the folders it lacks.

    A name is a family (its newest version), a model_id (its newest build) or a build. `policy`
    is what a promotion must show; without one the root's own promotion.toml counts, if any.
    `allow_pickle` lets models that only a pickle can hold be saved and loaded, which can run any
    code; `trusted_types` names further types that scikit-learn models may hold.
    Model files of more than `max_artefact_bytes` are refused unread.
    """

    def __init__(
        self,
        storage_root: str | Path = "./model_storage",
        *,
        policy: PromotionPolicy | None = None,
        allow_pickle: bool = False,
        trusted_types: Sequence[str] = (),
        max_artefact_bytes: int = LARGEST_BYTES,
    ) -> None:
        self.storage_root = str(storage_root)
        self._layout = Layout(Path(storage_root))
        self._trust = Trust(allow_pickle, tuple(trusted_types))
        self._reader = BuildReader(self._layout, largest=max_artefact_bytes)
        self._transactions = Transactions(self._layout)
        self._lifecycle = Lifecycle(self._layout, self._transactions, self._reader, policy=policy)
        self._inspection = Inspection(self._layout, self._transactions, self._reader)
        self._repair = Repair(self._layout, self._transactions, self._reader, self._inspection)
        self._sandbox = Sandbox()
        self._files = ModelFiles(self._sandbox, trust=self._trust)
        self._halts = HaltFile(self._layout)
        self._listing: Listing | None = None
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
        and golden rows are drawn, and with which live inputs are compared. Straight to
        production it is a promotion, policy and all.
        Raises NameRefused, MetadataRefused, FormatRefused, PromotionRefused or BuildExists; then
        nothing has been written.
        """
        from tickserve_registry.saving import make_build

        _require_environment(environment, name="the new model")
        self._files.try_onnx(model)
        new = make_build(model, model_info, sample=training_sample, trust=self._trust)
        self._sandbox.trust(new.artefact)
        entry = self._lifecycle.store(new, environment=environment)
        root = self._layout.root
        return str(root / entry.file_path), str(root / entry.metadata_path)

    def save_file(
        self,
        path: str | Path,
        model_info: Mapping[str, Any],
        environment: Environment = "staging",
        *,
        training_sample: Any = None,
    ) -> tuple[str, str]:
        """Save a model from its file, as `save_model` does from an object.

        The file's first bytes tell its framework; a child process loads it first. Features that
        `model_info` does not name are those of the model, if it knows them. Raises
        ArtefactRefused, PickleRefused, or what `save_model` raises.
        """
        model, names = self._files.load(Path(path))
        info = {"features": list(names)} | dict(model_info) if names else model_info
        return self.save_model(model, info, environment, training_sample=training_sample)

    def import_folder(self, folder: str | Path, *, dry_run: bool = False) -> Iterator[Imported]:
        """Bring in models laid out by the naming convention's own utility; yields each outcome.

        Environments and creation times are kept, and several production versions of a family
        stay in production. A model that cannot be taken over is reported and left alone. Raises
        ArtefactRefused or MetadataRefused when the folder or its index cannot be read.
        """
        from tickserve_registry.importing import Importer

        importer = Importer(self._transactions, self._lifecycle, self._files, trust=self._trust)
        return importer.import_folder(Path(folder), dry_run=dry_run)

    def load_model(
        self, model_id: str, version: Any = None, environment: str | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Return the native model and its metadata.

        A file that this process has not made is first loaded by a child process, which crashes in
        its stead. Raises ModelNotFound, ArtefactRefused or FormatRefused.
        """
        entry = self.find(model_id, version=version, environment=environment)
        metadata, data = self._reader.with_artefact(entry.build, served=False)
        self._reader.require_indexed(metadata, digest=entry.serving_digest)
        path = self._layout.root / entry.file_path
        model = self._files.load_proven(data, metadata, path=path)
        return model, metadata.document

    def list_models(
        self, environment: str | None = None, market: str | None = None, status: str | None = None
    ) -> pd.DataFrame:
        """Return one row for each build that fits, with the figures of its metadata.

        The columns are those of `tickserve_registry.listing`.
        """
        chosen = [
            entry
            for entry in self.entries()
            if environment in (None, entry.environment)
            and market in (None, entry.market)
            and status in (None, entry.status)
        ]
        chosen.sort(key=lambda entry: (entry.family, entry.version, entry.date))
        if self._listing is None:
            from tickserve_registry.listing import Listing

            self._listing = Listing(self._layout, self._reader)
        return self._listing.frame(chosen)

    def compare(self, names: Sequence[str] = ()) -> pd.DataFrame:
        """Return builds side by side: backtest, validation, live, and the decay between them.

        A family stands for the newest build of each of its versions; no name at all for
        everything in production. Columns as in `tickserve_registry.comparison.compare`. Raises
        ModelNotFound.
        """
        from tickserve_registry.comparison import compare

        entries = [each for name in names for each in lookup.versions(self.entries(), name)]
        chosen = dict.fromkeys(entries if names else self.production())
        return compare([(each, *self._documents_of(each)) for each in chosen])

    def promote_model(
        self,
        model_id: str,
        to_environment: Environment = "production",
        *,
        keep: bool = False,
        reason: str | None = None,
        force: bool = False,
    ) -> PromotionRecord:
        """Move a build to an environment, in one transaction.

        Promoting to production archives the family's present production build unless `keep`.
        `force` overrules the promotion policy and needs a reason, for the audit trail. Raises
        ModelNotFound, TransitionRefused, PromotionRefused or ReasonMissing.
        """
        _require_environment(to_environment, name=model_id)
        if force and not (reason or "").strip():
            raise ReasonMissing(action="a forced promotion")
        entry = lookup.find_first(
            self.entries(), model_id, "staging" if to_environment != "archive" else "production"
        )
        return self._lifecycle.move(entry, to_environment, keep=keep, reason=reason, force=force)

    def archive_model(self, model_id: str, *, reason: str | None = None) -> PromotionRecord:
        """Move a build to the archive; nothing is deleted."""
        return self.promote_model(model_id, "archive", reason=reason)

    def rollback(self, family: str, *, reason: str | None = None) -> PromotionRecord:
        """Put back, in one step, what was in production before the family's champion.

        The champion's own name will do, too. A second rollback goes further back. Raises
        ModelNotFound or NothingToRestore.
        """
        entry = self.find(family)
        if lookup.normalised(family) != entry.family and entry.environment != "production":
            problem = f"{entry.model_id} is not in production; name the family"
            raise NothingToRestore(family=entry.family, reason=problem)
        return self._lifecycle.rollback(entry.family, reason=reason)

    def next_version(self, family: str) -> str:
        """Return the model_id under which the family's next version is to be saved.

        Any name of the family will do, also one that is not stored yet. Raises NameRefused.
        """
        return lookup.next_version(self.entries(), family)

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
            native=self.native_predict,
        )
        self._lifecycle.describe(entry.build, "validation", block, action="evaluate")
        return block

    def entries(self) -> tuple[Entry, ...]:
        """Return the index, read whole. Raises CatalogUnreadable."""
        return self._transactions.catalog().models

    def production(self) -> tuple[Entry, ...]:
        """Return the builds in production."""
        return tuple(entry for entry in self.entries() if entry.environment == "production")

    def find(self, name: str, *, version: Any = None, environment: str | None = None) -> Entry:
        """Return the newest build that goes by the name. Raises ModelNotFound."""
        return lookup.find(self.entries(), name, version=version, environment=environment)

    def metadata(self, name: str) -> Metadata:
        """Return one build's metadata, typed and whole."""
        return self._reader.metadata(self.find(name).build)

    def serving_model(self, entry: Entry) -> ServingModel:
        """Read what the daemon runs; the digests are checked on the very bytes returned.

        Raises ArtefactRefused when a file, or anything that determines an answer, has changed.
        """
        metadata, artefact = self._reader.with_artefact(entry.build, served=True)
        self._reader.require_indexed(metadata, digest=entry.serving_digest)
        return ServingModel(entry=entry, metadata=metadata, artefact=artefact)

    def native_predict(self, model: ServingModel) -> Predict:
        """Return the predictions of the framework of a model that was not compiled.

        A child process has loaded its file first. Raises ArtefactRefused, PickleRefused or
        FormatRefused, also when the framework is not installed.
        """
        from tickserve_registry.formats.frameworks import native_predictor

        path = self._layout.root / model.entry.file_path
        loaded = self._files.load_proven(model.artefact, model.metadata, path=path)
        return native_predictor(loaded, framework=model.metadata.framework)

    def halt_model(self, name: str = ALL_MODELS, *, reason: str) -> Halt:
        """Have a family, model_id or build give no predictions, or with `*` all models.

        It stands, across restarts of the daemon, until it is lifted. Raises ModelNotFound or
        ReasonMissing.
        """
        return self._halts.halt(self._known(name), reason=reason)

    def resume_model(
        self, name: str = ALL_MODELS, *, reason: str | None = None
    ) -> tuple[Halt, ...]:
        """Lift the halt of a name, or with `*` all; return what was lifted. Raises NotHalted."""
        return self._halts.resume(lookup.normalised(name), reason=reason)

    def sign_model(self, name: str, key: str | Path) -> Signature:
        """Vouch for a build with the private key in a file; needs tickserve[signing].

        Raises ModelNotFound, ArtefactRefused or SigningKeyUnusable.
        """
        from tickserve_registry.signing import read_key

        return self._lifecycle.sign(self.find(name).build, read_key(Path(key)))

    def halts(self) -> Halts:
        """Return which models are halted, and why. Raises HaltsUnreadable."""
        return self._halts.read()

    def history(self, name: str | None = None) -> list[Change]:
        """Return the audit trail, oldest first; of one family, model_id or build, if named."""
        changes = read_history(self._layout.history)
        if name is None:
            return changes
        self.find(name)
        called = lookup.called(self.entries(), name)
        wanted = {each.build for each in called}
        wanted |= {above for each in called for above in (each.model_id, each.family, ALL_MODELS)}
        return [change for change in changes if change.build in wanted]

    def verify(self) -> Report:
        """Check every file; the report is true when nothing is wrong."""
        return self._inspection.verify()

    def rebuild(self) -> Report:
        """Write registry.json anew from the metadata files."""
        return self._repair.rebuild()

    def _known(self, name: str) -> str:
        """Return a name as halts have it; raise ModelNotFound where nothing goes by it."""
        if name != ALL_MODELS:
            self.find(name)
        return lookup.normalised(name)

    def _documents_of(self, entry: Entry) -> tuple[dict[str, Any], str | None]:
        """Return a build's metadata, or nothing and why it cannot be read."""
        try:
            return self._reader.metadata(entry.build).document, None
        except (RegistryError, FileNotFoundError) as error:
            return {}, str(error)


def _require_environment(environment: str, *, name: str) -> None:
    if environment not in ENVIRONMENTS:
        reason = f"the environments are {', '.join(ENVIRONMENTS)}"
        raise TransitionRefused(build=name, origin="here", target=environment, reason=reason)
