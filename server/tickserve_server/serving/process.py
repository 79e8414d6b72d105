"""Composition root of the serving process: configure, open, ready, drain, close."""

from __future__ import annotations

import gc
import os
import queue
import sys
import time
from importlib.util import find_spec
from typing import Any

import structlog
import zmq

from tickserve_client.messages import PROTOCOL_VERSION, Welcome
from tickserve_registry.model_registry import ModelRegistry
from tickserve_registry.signing import Signers
from tickserve_registry.trust import Trust
from tickserve_server.access.gate import open_gate
from tickserve_server.admin import Admin
from tickserve_server.child import Lifeline, Signals
from tickserve_server.doors import Doors
from tickserve_server.errors import ExtraMissing, StorageUnusable
from tickserve_server.halting import StandingHalts
from tickserve_server.ops.health import ServingState
from tickserve_server.runtime import Runtime
from tickserve_server.serving.bookkeeper import Bookkeeper
from tickserve_server.serving.children.native import NativeHost
from tickserve_server.serving.children.prover import Prover
from tickserve_server.serving.jobs import JobPool
from tickserve_server.serving.loader import Loader
from tickserve_server.serving.loop import ServingLoop
from tickserve_server.serving.model import LiveModel
from tickserve_server.serving.parts import Parts
from tickserve_server.serving.records import RecordSender
from tickserve_server.serving.responder import Responder
from tickserve_server.serving.self_test import SelfTest
from tickserve_server.serving.table import ModelTable
from tickserve_server.serving.watchdog import Watchdog
from tickserve_server.settings import RegistrySettings, Settings

log = structlog.get_logger(__name__)

STATISTICS_S = 1.0
QUIET_S = 0.1
SWITCH_S = 0.0002
"""How long another thread may hold the interpreter when the loop wants it."""

SERVER_NAME = "tickserve"


class ServingProcess:
    """Owns the sockets, the models and the order in which they come and go."""

    def __init__(self, settings: Settings, lifeline: Lifeline) -> None:
        self._settings = settings
        self._lifeline = lifeline
        self._signals = Signals()
        self._started_at = time.time()
        self._statistics_at = 0.0
        self._counted: dict[LiveModel, tuple[int, int]] = {}
        self._announcements: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
        runtime = Runtime(settings.storage_root)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._records = RecordSender(
            self._context,
            runtime.records,
            backlog=settings.serving.record_backlog,
            backlog_bytes=settings.serving.record_backlog_bytes,
        )
        cores = os.cpu_count() or 1
        self._parts = Parts(cores, is_quiet=self._is_quiet)
        self._jobs = JobPool(
            per_client=settings.serving.jobs_per_client,
            most=settings.serving.max_jobs,
            threads=cores,
        )
        self._prover = Prover()
        self._prover.start()
        trust = Trust(settings.registry.allow_pickle, settings.registry.trusted_types)
        self._native = NativeHost(trust)
        self._self_test = SelfTest()
        self._bookkeeper = Bookkeeper(self._records.add)
        self._halts = StandingHalts(settings.storage_root)
        self._responder = Responder(
            settings.serving, parts=self._parts, halts=self._halts, welcome=self._welcome
        )
        self._loader = Loader(
            ModelRegistry(
                str(settings.storage_root),
                allow_pickle=settings.registry.allow_pickle,
                trusted_types=settings.registry.trusted_types,
                max_artefact_bytes=settings.registry.max_artefact_bytes,
            ),
            settings.serving,
            signers=_signers(settings.registry),
            prover=self._prover,
            native=self._native,
            publish=self._publish,
            announce=lambda topic, body: self._announcements.put((topic, body)),
        )
        self._gate = open_gate(self._context, settings)
        self._doors = Doors()
        self._socket = self._open()
        self._admin = Admin(self._context, runtime.admin_serving, report=self._report)
        self._loop = ServingLoop(
            self._socket,
            self._responder,
            self._bookkeeper,
            self._jobs,
            gate=self._gate,
            spin_us=settings.serving.spin_us,
            housekeeping=self._housekeeping,
        )

        self._watchdog = Watchdog(
            self._loop, self._responder, run_seconds=settings.serving.run_seconds
        )

    def run(self) -> int:
        """Load, say ready, serve until told to stop, then drain and close."""
        sys.setswitchinterval(SWITCH_S)
        self._loader.refresh()
        self._require_models()
        self._responder.ready = True
        self._halts.start()
        self._loader.start()
        self._watchdog.start()
        gc.collect()
        gc.freeze()
        gc.disable()
        self._lifeline.ready(models=sorted(self._responder.table.models))
        self._loop.run()
        self._drain()
        self._close()
        return 0

    def _require_models(self) -> None:
        """Refuse to start on storage from which nothing can be served, though something should."""
        loader, root = self._loader, self._settings.storage_root
        if loader.degraded is not None:
            raise StorageUnusable(root=root, reason=loader.degraded)
        if loader.failures and not self._responder.table.models:
            reasons = "; ".join(f"{build}: {why}" for build, why in loader.failures.items())
            raise StorageUnusable(
                root=root, reason=f"no production model can be loaded ({reasons})"
            )

    def _open(self) -> zmq.Socket[bytes]:
        limits = self._settings.serving
        socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        socket.router_mandatory = True
        socket.linger = 500
        socket.sndhwm = limits.queue_length
        socket.rcvhwm = limits.queue_length
        socket.maxmsgsize = limits.max_tensor_bytes
        if self._gate is not None:
            self._gate.secure(socket, "predict")
            self._gate.start()
        mode = self._settings.security.ipc_permissions
        self._doors.open(socket, self._settings.endpoints.predict, name="predict", mode=mode)
        return socket

    def _publish(self, table: ModelTable) -> None:
        self._responder.table = table

    def _is_quiet(self) -> bool:
        """Whether no bot has lately asked for a single row."""
        return time.monotonic() - self._loop.answered_at > QUIET_S

    def _housekeeping(self, now: float) -> bool:
        while not self._announcements.empty():
            self._records.announce(*self._announcements.get_nowait())
        if now - self._statistics_at >= STATISTICS_S:
            dropped = self._records.dropped
            figures = {"models": self._changed(), "records_dropped": dropped}
            self._records.statistics({**figures, "state": self._state()})
            self._statistics_at = now
            self._self_test.run(self._responder.table)
            if self._gate is not None:
                self._gate.service()
        self._records.service(now)
        self._admin.service()
        if self._signals.take_hangup():
            self._loader.rescan()
        self._doors.service(now)
        self._lifeline.beat(now)
        return not (self._signals.end or self._lifeline.is_cut)

    def _state(self) -> ServingState:
        """Return what monitoring is to know of this process."""
        models = self._responder.table.models.values()
        return ServingState(
            pid=os.getpid(),
            ready=self._responder.ready,
            good=sum(model.quarantined is None for model in models),
            failing=len(self._loader.failures),
            halted=sum(self._halts.of(model.entry) is not None for model in models),
            reloads=self._loader.reloads,
            load_failures=self._loader.load_failures,
            connections_refused=0 if self._gate is None else self._gate.refused,
            degraded=tuple(self._degraded()),
        )

    def _changed(self) -> list[dict[str, Any]]:
        """Return the figures of the models that have answered since the last call."""
        models = self._responder.table.models.values()
        counted = {model: (model.predictions, sum(model.errors.values())) for model in models}
        changed = [
            model for model, figures in counted.items() if self._counted.get(model) != figures
        ]
        self._counted = counted
        return [model.status() for model in changed]

    def _drain(self) -> None:
        """Answer what waits and hand every record over, within one deadline."""
        deadline = time.monotonic() + self._settings.serving.drain_seconds
        self._watchdog.stop()
        self._loader.stop()
        self._halts.stop()
        self._loop.drain(deadline)
        while not self._records.is_settled and time.monotonic() < deadline:
            self._records.service(time.monotonic())
            time.sleep(0.005)
        log.info("drained", uncommitted=self._records.uncommitted, dropped=self._records.dropped)

    def _close(self) -> None:
        self._prover.close()
        self._native.close()
        self._jobs.close()
        self._parts.close()
        self._admin.close()
        self._records.close()
        self._doors.close()
        self._socket.close()
        if self._gate is not None:
            self._gate.stop()
        self._context.term()

    def _welcome(self, request_id: str | int | None) -> Welcome:
        endpoints, limits = self._settings.endpoints, self._settings.serving
        return Welcome(
            id=request_id,
            server=SERVER_NAME,
            server_time=time.time_ns() // 1_000_000,
            versions=[PROTOCOL_VERSION],
            endpoints={
                "predict": endpoints.predict,
                "feedback": endpoints.feedback,
                "events": endpoints.events,
            },
            limits={
                "message_bytes": limits.max_message_bytes,
                "tensor_bytes": limits.max_tensor_bytes,
                "rows": limits.max_tensor_rows,
                "rows_in_message": limits.max_rows,
                "models": limits.max_models,
                "jobs_per_client": limits.jobs_per_client,
                "queue_length": limits.queue_length,
            },
        )

    def _report(self) -> dict[str, Any]:
        responder, loader = self._responder, self._loader
        return {
            "process": "serving",
            "pid": os.getpid(),
            "started_at": self._started_at,
            "requests": self._bookkeeper.requests,
            "errors": dict(self._bookkeeper.errors),
            "jobs": self._jobs.under_way,
            "undeliverable": self._loop.undeliverable,
            "records_uncommitted": self._records.uncommitted,
            "records_dropped": self._records.dropped,
            "models": [model.status() for model in responder.table.models.values()],
            "halts": self._halts.current.standing,
            "keys_revision": None if self._gate is None else self._gate.ring.revision,
            "failures": loader.failures,
            "degraded": self._degraded(),
            "last_reload": loader.last_reload,
        }

    def _degraded(self) -> list[str]:
        """Return every reason why not all is as it should be."""
        loader, models = self._loader, self._responder.table.models.values()
        reasons = [each for each in (loader.degraded, self._halts.problem) if each is not None]
        reasons += [f"{build} is not loaded: {why}" for build, why in loader.failures.items()]
        reasons += [
            f"{model.build} is in quarantine: {model.quarantined}"
            for model in models
            if model.quarantined is not None
        ]
        if self._gate is not None and self._gate.problem is not None:
            reasons.append(self._gate.problem)
        if self._doors.is_full:
            reasons.append("new connections are refused: every descriptor is in use")
        if self._records.dropped:
            reasons.append(f"{self._records.dropped} prediction records were dropped")
        return reasons


def _signers(settings: RegistrySettings) -> Signers | None:
    """Return whose signatures are asked for, None where none are. Raises ExtraMissing."""
    if not settings.require_signed:
        return None
    if find_spec("cryptography") is None:
        raise ExtraMissing(package="cryptography", extra="signing")
    return Signers(settings.signers)


def run(settings: Settings, lifeline: int) -> int:
    """Run the serving process to its end; returns the exit code."""
    return ServingProcess(settings, Lifeline(lifeline)).run()
