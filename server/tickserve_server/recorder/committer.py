"""A turn's transaction: feedback, records and the figures made of them become durable together."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence

import sqlalchemy as sa
import structlog

from tickserve_client.messages import Ack
from tickserve_server.errors import LedgerUnusable
from tickserve_server.latency import LatencyHistogram
from tickserve_server.parcel import open_parcel
from tickserve_server.recorder import schema
from tickserve_server.recorder.feedback import Feedback, Told
from tickserve_server.recorder.ledger import Ledger, LogInDoubt
from tickserve_server.recorder.live import Labelled, LiveBook
from tickserve_server.recorder.records import Arrivals, RecordReceiver

log = structlog.get_logger(__name__)

LOG_BYTES = 64 << 20
"""The write-ahead log stays below; a reader that holds an old state keeps it from being emptied."""

LOG_RESERVE = 8 << 20
"""More than one turn writes."""

MOST_TASKS = 256
"""Of what the jobs hand over, in one turn."""

PAUSE_S = 0.5
"""After a failed turn the next ones are refused at once for so long: each try may block."""

TIDY_S = 1.0
"""How often what the jobs have changed is stored when nothing else comes in."""

PROBE_S = 5.0
"""After so long without anything to store, see whether something could be."""

Task = Callable[[Ledger], None]
"""What a job has done to the ledger by the one that writes it."""

BOOK_TABLES = (
    schema.accounts,
    schema.live_tracks,
    schema.live_serving,
    schema.live_quality,
    schema.live_equity,
)


class CannotStore(Exception):
    """The ledger cannot be written now; nothing of the turn is stored."""


class Committer:
    """Owns the order of a transaction, and what is done after one that failed.

    From its first change to its commit the book is ahead of the ledger; if the commit fails, the
    book is read anew before the next turn.
    """

    def __init__(
        self, ledger: Ledger, book: LiveBook, feedback: Feedback, records: RecordReceiver
    ) -> None:
        self._ledger = ledger
        self._book = book
        self._feedback = feedback
        self._records = records
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._taken: list[Task] = []
        self._is_behind = True
        self._is_broken = False
        self._tidied_at = self._again_at = 0.0
        self.turns = self.failures = 0
        self.failure: str | None = None
        self.seconds = LatencyHistogram()

    def hand_over(self, task: Task) -> None:
        """Have the next turn do something to the ledger; from any thread."""
        self._tasks.put(task)

    @property
    def has_chores(self) -> bool:
        """Whether there is something to be stored though nothing came in."""
        if self.failure is not None and time.monotonic() < self._again_at:
            return False
        if self._is_behind or self._taken or not self._tasks.empty():
            return True
        idle = time.monotonic() - self._tidied_at
        return idle > PROBE_S or (idle > TIDY_S and self._book.has_unstored)

    def commit(self, requests: Sequence[Told]) -> tuple[list[Ack], Arrivals]:
        """Store requests, received records and chores; return acknowledgements and arrivals.

        Raises CannotStore; any other exception is a fault in a request. Both undo everything.
        """
        if self.failure is not None and time.monotonic() < self._again_at:
            raise CannotStore(self.failure)
        self.turns += 1
        try:
            with self._book.changing():
                done = self._store(requests)
        except sa.exc.DBAPIError as error:
            raise self._failed(" ".join(str(error.orig).split())) from error
        except (CannotStore, LedgerUnusable, LogInDoubt) as error:
            raise self._failed(str(error)) from error
        except BaseException:
            self._ledger.rollback()
            raise
        self.failure = None
        return done

    def _store(self, requests: Sequence[Told]) -> tuple[list[Ack], Arrivals]:
        if self._is_broken:
            self._ledger.reopen()
            self._is_broken = False
        self._bound_log()
        self._ledger.begin()
        if self._is_behind:
            self._load()
        self._is_behind = True
        arrivals = self._records.store()
        self._count(arrivals)
        self._feedback.join(arrivals.parcels)
        acks = self._feedback.apply(requests)
        self._write_book()
        self._do_tasks()
        started = time.perf_counter_ns()
        self._ledger.commit()
        self.seconds.add(time.perf_counter_ns() - started)
        self._is_behind = False
        self._book.stored()
        self._taken = []
        return acks, arrivals

    def _load(self) -> None:
        self._book.clear()
        for table in BOOK_TABLES:
            for row in self._ledger.all(table):
                self._book.load(table.name, row)
        for build, position in self._book.quality_positions().items():
            for row in self._ledger.labels_since(build, position):
                self._book.label(Labelled(row["position"], build, row["value"], row["output"]))
        self._feedback.load()

    def _count(self, arrivals: Arrivals) -> None:
        """Count predictions, and their inputs where the model has a reference."""
        for summary, body in arrivals.parcels:
            tallies = {build: self._book.tally(build) for build in summary.rows}
            watched = any(tally.watches_inputs for tally in tallies.values())
            records = open_parcel(body) if watched else []
            for build, tally in tallies.items():
                own = [each for each in records if each.build == build]
                tally.add_rows(summary.rows[build], own)

    def _write_book(self) -> None:
        for name, rows in self._book.unstored().items():
            self._ledger.put(schema.tables.tables[name], rows)
        self._tidied_at = time.monotonic()

    def _do_tasks(self) -> None:
        """Do some of what the jobs have handed over; after a failed turn the same again."""
        while len(self._taken) < MOST_TASKS and not self._tasks.empty():
            self._taken.append(self._tasks.get_nowait())
        for task in self._taken:
            task(self._ledger)

    def _bound_log(self) -> None:
        """Keep the write-ahead log small. Records wait first: the serving process keeps them."""
        if self._ledger.database.wal_bytes() <= LOG_BYTES // 2:
            return
        size = self._ledger.empty_log()
        if size > LOG_BYTES // 2:
            self._records.drop()
        if size > LOG_BYTES - LOG_RESERVE:
            raise CannotStore("a reader holds an old state of the ledger; its log is full")

    def _failed(self, reason: str) -> CannotStore:
        """Note that the connection is not to be trusted any more: the next turn takes another."""
        self._is_broken = True
        self._again_at = time.monotonic() + PAUSE_S
        self.failures += 1
        if self.failure is None:
            log.error("ledger_unwritable", reason=reason)
        self.failure = reason
        return CannotStore(reason)
