"""Keeps the model table equal to what is in production: watch, diff, load off the loop, swap."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import structlog
import watchfiles

from tickserve_registry.catalog import Entry
from tickserve_registry.errors import RegistryError
from tickserve_registry.model_registry import ModelRegistry, ServingModel
from tickserve_registry.signing import Signers
from tickserve_server.serving.children.native import NativeHost
from tickserve_server.serving.children.prover import Prover, Trial
from tickserve_server.serving.model import LiveModel, row_shape_of
from tickserve_server.serving.priority import yield_to_the_loop
from tickserve_server.serving.table import ModelTable
from tickserve_server.settings import ServingSettings

log = structlog.get_logger(__name__)

Announce = Callable[[str, dict[str, Any]], None]
Fingerprint = tuple[int, int, int] | None

COMPILED = "onnxruntime"
LONGEST_PAUSE_S = 300.0


class Failure(NamedTuple):
    """Why a build could not be loaded, how often, and when (monotonic) it may be tried again."""

    reason: str
    digest: str
    attempts: int
    retry_at: float


class Loader:
    """Level-triggered: each round reads the desired set whole and loads the difference.

    A build is keyed by its serving digest, so metadata figures never cause a reload. The new
    table is published as one reference only when everything loadable in it has reproduced its
    golden rows, compiled models in a child process first; where a family's new build fails, the
    family's loaded build goes on answering. A build that failed is tried again, less and less
    often.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        settings: ServingSettings,
        *,
        signers: Signers | None = None,
        prover: Prover,
        native: NativeHost,
        publish: Callable[[ModelTable], None],
        announce: Announce,
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._signers = signers
        self._prover = prover
        self._native = native
        self._publish = publish
        self._announce = announce
        self._loaded: dict[str, LiveModel] = {}
        self._failures: dict[str, Failure] = {}
        self._proven: set[str] = set()
        self._quarantined: set[str] = set()
        self._fingerprint: Fingerprint = None
        self._stopping = threading.Event()
        self._call = _Call(self._stopping)
        self._thread = threading.Thread(target=self._run, name="loader", daemon=True)
        self.degraded: str | None = None
        self.failures: dict[str, str] = {}
        self.last_reload: dict[str, Any] | None = None
        self.reloads = self.load_failures = 0

    def start(self) -> None:
        """Go on watching in the background; refresh() has been called once before."""
        self._thread.start()

    def stop(self) -> None:
        """End the background thread."""
        self._stopping.set()
        self._thread.join(timeout=self._settings.poll_seconds + 1)

    def rescan(self) -> None:
        """Look at once whether anything has changed, and try again what has failed."""
        self._call.pending = True

    def refresh(self) -> None:
        """Bring the table in line with production, if anything changed since the last call."""
        self._note_quarantines()
        fingerprint = _fingerprint(self._catalog)
        now = time.monotonic()
        due = any(failure.retry_at <= now for failure in self._failures.values())
        if fingerprint == self._fingerprint and self.degraded is None and not due:
            return
        try:
            entries = self._registry.entries()
        except (RegistryError, OSError) as error:
            self._degrade(str(error))
            return
        self.degraded = None
        self._fingerprint = fingerprint
        self._apply(entries)

    def _note_quarantines(self) -> None:
        """Tell of builds that the loop has put into quarantine since the last look."""
        for build, model in self._loaded.items():
            if model.quarantined is not None and build not in self._quarantined:
                self._quarantined.add(build)
                log.error("model_quarantined", build=build, reason=model.quarantined)
                body = {"state": "quarantined", "reason": model.quarantined}
                self._announce(f"model.{build}", body)

    @property
    def _catalog(self) -> Path:
        return Path(self._registry.storage_root) / "metadata" / "registry.json"

    def _apply(self, entries: Iterable[Entry]) -> None:
        known = tuple(entries)
        desired = {entry.build: entry for entry in known if entry.environment == "production"}
        started = time.perf_counter()
        before = dict(self._loaded)
        after = self._load_difference(desired)
        kept = self._stand_ins(before, after, desired)
        self._failures = {b: f for b, f in self._failures.items() if b in desired}
        self._loaded = {**after, **kept}
        # Replaced whole, since the loop reads it from its own thread.
        self.failures = {build: failure.reason for build, failure in self._failures.items()}
        self._publish(ModelTable(self._loaded.values(), known=known, failures=self.failures))
        self._report(before, seconds=time.perf_counter() - started)

    def _load_difference(self, desired: dict[str, Entry]) -> dict[str, LiveModel]:
        after: dict[str, LiveModel] = {}
        wanted: list[ServingModel] = []
        for build, entry in desired.items():
            loaded = self._loaded.get(build)
            if loaded is not None and loaded.entry.serving_digest == entry.serving_digest:
                after[build] = loaded
            elif self._may_try(entry):
                source = self._read(entry)
                if source is not None:
                    wanted.append(source)
        for source in self._proven_of(wanted):
            model = self._load(source)
            if model is not None:
                after[source.entry.build] = model
        return after

    def _may_try(self, entry: Entry) -> bool:
        failure = self._failures.get(entry.build)
        if failure is None or failure.digest != entry.serving_digest:
            return True
        return failure.retry_at <= time.monotonic()

    def _read(self, entry: Entry) -> ServingModel | None:
        """Read a build's files and check their digests and, where asked for, who signed them."""
        try:
            source = self._registry.serving_model(entry)
            if self._signers is not None:
                self._signers.signer_of(source.metadata)
        except (RegistryError, OSError) as error:
            self._fail(entry, str(error))
            return None
        return source

    def _proven_of(self, sources: Sequence[ServingModel]) -> list[ServingModel]:
        """Return those whose compiled file a child process could load, each digest once."""
        new = [
            source
            for source in sources
            if source.metadata.serving.engine == COMPILED
            and source.entry.serving_digest not in self._proven
        ]
        refused = set()
        verdicts = self._prover.prove([_trial(source) for source in new])
        for source, reason in zip(new, verdicts, strict=True):
            if reason is None:
                self._proven.add(source.entry.serving_digest)
            else:
                refused.add(source.entry.build)
                self._fail(source.entry, reason)
        return [source for source in sources if source.entry.build not in refused]

    def _load(self, source: ServingModel) -> LiveModel | None:
        try:
            model = LiveModel(source, self._settings, native=self._native.predict)
        except Exception as error:  # noqa: BLE001 - no artefact, whatever it does, may stop the loop
            self._fail(source.entry, str(error))
            return None
        self._failures.pop(model.build, None)
        self._quarantined.discard(model.build)
        return model

    def _fail(self, entry: Entry, reason: str) -> None:
        """Note a failure; the pause before the next attempt doubles each time."""
        known = self._failures.get(entry.build)
        same = known is not None and known.digest == entry.serving_digest
        attempts = known.attempts + 1 if known is not None and same else 1
        pause = min(self._settings.retry_seconds * 2 ** (attempts - 1), LONGEST_PAUSE_S)
        self._failures[entry.build] = Failure(
            reason, entry.serving_digest, attempts, time.monotonic() + pause
        )
        self.load_failures += 1
        log.error(
            "model_load_failed", build=entry.build, reason=reason, attempts=attempts, retry_s=pause
        )
        self._announce(f"model.{entry.build}", {"state": "failed", "reason": reason})

    @staticmethod
    def _stand_ins(
        before: dict[str, LiveModel], after: dict[str, LiveModel], desired: dict[str, Entry]
    ) -> dict[str, LiveModel]:
        """Loaded builds that left production while their family's successor cannot be loaded."""
        unready = {entry.family for build, entry in desired.items() if build not in after}
        return {
            build: model
            for build, model in before.items()
            if build not in after and model.entry.family in unready
        }

    def _report(self, before: dict[str, LiveModel], *, seconds: float) -> None:
        added = [build for build, model in self._loaded.items() if before.get(build) is not model]
        removed = [build for build in before if build not in self._loaded]
        if not added and not removed:
            return
        self.reloads += 1
        self.last_reload = {
            "at": time.time(),
            "seconds": seconds,
            "added": added,
            "removed": removed,
        }
        log.info("models_reloaded", added=added, removed=removed, seconds=round(seconds, 6))
        for build in added:
            digest = self._loaded[build].digest
            self._announce(f"model.{build}", {"state": "serving", "digest": digest})
        for build in removed:
            self._announce(f"model.{build}", {"state": "unloaded"})

    def _degrade(self, reason: str) -> None:
        if self.degraded != reason:
            log.error("registry_unreadable", reason=reason, serving=sorted(self._loaded))
        self.degraded = reason

    def _run(self) -> None:
        yield_to_the_loop()
        while not self._stopping.is_set():
            try:
                for _ in self._changes():
                    self.refresh()
            except OSError as error:
                self._degrade(f"cannot watch the registry: {error}")
                self._stopping.wait(self._settings.poll_seconds)
            except Exception:
                log.exception("loader_failed")
                self._stopping.wait(self._settings.poll_seconds)

    def _changes(self) -> Iterator[object]:
        """Yield when the index may have changed: on file events, and at every poll."""
        folder = self._catalog.parent
        watched = _fingerprint(folder)
        if self._call.pending:
            self._call.pending = False
            self._fingerprint = None
            self._failures = {b: f._replace(retry_at=0.0) for b, f in self._failures.items()}
        yield None
        for change in watchfiles.watch(
            folder,
            debounce=self._settings.debounce_ms,
            step=max(1, self._settings.debounce_ms // 2),
            rust_timeout=round(self._settings.poll_seconds * 1000),
            yield_on_timeout=True,
            stop_event=self._call,
            raise_interrupt=False,
            recursive=False,
        ):
            yield change
            if _inode(_fingerprint(folder)) != _inode(watched):
                return


class _Call:
    """Calls the watching thread away from its files: to end, or to look anew."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self.pending = False

    def is_set(self) -> bool:
        """Whether to stop watching, as watchfiles asks."""
        return self.pending or self._stopping.is_set()


def _trial(source: ServingModel) -> Trial:
    metadata = source.metadata
    golden = metadata.golden
    return Trial(
        source.artefact, row_shape_of(metadata), golden.inputs, golden.outputs, golden.tolerance
    )


def _fingerprint(path: Path) -> Fingerprint:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _inode(fingerprint: Fingerprint) -> int | None:
    return None if fingerprint is None else fingerprint[0]
