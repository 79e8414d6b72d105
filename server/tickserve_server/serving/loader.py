"""Keeps the model table equal to what is in production: watch, diff, load off the loop, swap."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import structlog
import watchfiles

from tickserve_registry.catalog import Entry
from tickserve_registry.errors import RegistryError
from tickserve_registry.model_registry import ModelRegistry
from tickserve_server.serving.model import LiveModel
from tickserve_server.serving.table import ModelTable
from tickserve_server.settings import ServingSettings

log = structlog.get_logger(__name__)

Announce = Callable[[str, dict[str, Any]], None]
Fingerprint = tuple[int, int, int] | None


class Failure:
    """A build that could not be loaded, and when it may be tried again."""

    def __init__(self, reason: str, *, digest: str, retry_at: float) -> None:
        self.reason = reason
        self.digest = digest
        self.retry_at = retry_at


class Loader:
    """Level-triggered: each round reads the desired set whole and loads the difference.

    A build is keyed by its serving digest, so metadata figures never cause a reload. The new
    table is published as one reference only when everything loadable in it has reproduced its
    golden rows; where a family's new build fails, the family's loaded build goes on answering.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        settings: ServingSettings,
        *,
        publish: Callable[[ModelTable], None],
        announce: Announce,
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._publish = publish
        self._announce = announce
        self._loaded: dict[str, LiveModel] = {}
        self._failures: dict[str, Failure] = {}
        self._fingerprint: Fingerprint = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loader", daemon=True)
        self.degraded: str | None = None
        self.failures: dict[str, str] = {}
        self.last_reload: dict[str, Any] | None = None

    def start(self) -> None:
        """Go on watching in the background; refresh() has been called once before."""
        self._thread.start()

    def stop(self) -> None:
        """End the background thread."""
        self._stopping.set()
        self._thread.join(timeout=self._settings.poll_seconds + 1)

    def refresh(self) -> None:
        """Bring the table in line with production, if anything changed since the last call."""
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
        for build, entry in desired.items():
            loaded = self._loaded.get(build)
            if loaded is not None and loaded.entry.serving_digest == entry.serving_digest:
                after[build] = loaded
            elif self._may_try(entry):
                model = self._load(entry)
                if model is not None:
                    after[build] = model
        return after

    def _may_try(self, entry: Entry) -> bool:
        failure = self._failures.get(entry.build)
        if failure is None or failure.digest != entry.serving_digest:
            return True
        return failure.retry_at <= time.monotonic()

    def _load(self, entry: Entry) -> LiveModel | None:
        try:
            source = self._registry.serving_model(entry)
            native = self._registry.native_predict
            model = LiveModel(source, self._settings, native=native)
        except Exception as error:  # noqa: BLE001 - no artefact, whatever it does, may stop the loop
            self._failures[entry.build] = Failure(
                str(error),
                digest=entry.serving_digest,
                retry_at=time.monotonic() + self._settings.retry_seconds,
            )
            log.error("model_load_failed", build=entry.build, reason=str(error))
            self._announce(f"model.{entry.build}", {"state": "failed", "reason": str(error)})
            return None
        self._failures.pop(entry.build, None)
        return model

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
        yield None
        for change in watchfiles.watch(
            folder,
            debounce=self._settings.debounce_ms,
            step=max(1, self._settings.debounce_ms // 2),
            rust_timeout=round(self._settings.poll_seconds * 1000),
            yield_on_timeout=True,
            stop_event=self._stopping,
            raise_interrupt=False,
            recursive=False,
        ):
            yield change
            if _inode(_fingerprint(folder)) != _inode(watched):
                return


def _fingerprint(path: Path) -> Fingerprint:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _inode(fingerprint: Fingerprint) -> int | None:
    return None if fingerprint is None else fingerprint[0]
