"""The one writer of the history. Rows come from the core as they are; which ones, and when, is decided there."""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Self, TypeVar

import structlog

from supervisor.adapters.store import opening
from supervisor.adapters.store.connection import UNREADABLE, Link, code_of, store_error, transaction
from supervisor.adapters.store.history import Reader, Reads
from supervisor.adapters.store.queue import OutboxQueue
from supervisor.adapters.store.rows import ATTEMPTS, INCIDENTS, MEMOS, QUARANTINE, RUNS, clean, encode, statement, to_micros
from supervisor.core.model import Incident, Wall
from supervisor.core.records import AttemptRow, QuarantinedRecord, Row, RunRow
from supervisor.errors import StoreError

T = TypeVar("T")

log = structlog.get_logger()

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
KEEP_ATTEMPTS = 50  # of a run that goes on: all restarts of a service are one run, and each leaves a report
REPORTS_KEPT = 200  # dossiers of a job, beside those that its incidents speak of
RUNS_MAX = 10_000  # of a job, however young
_FOREVER = 2**63 - 1
PRUNE_BATCH = 200  # runs per transaction: some milliseconds, so that the writer never waits long

_OLD_RUNS = """
    SELECT id FROM runs WHERE job = ? AND ended_at IS NOT NULL AND ended_at < ? AND id < ?
    AND id NOT IN (SELECT run FROM incidents WHERE closed_at IS NULL UNION SELECT last_run FROM incidents WHERE closed_at IS NULL
        UNION SELECT run FROM quarantine WHERE released_at IS NULL)
    LIMIT ?
"""
_OLD_ATTEMPTS = """
    DELETE FROM attempts WHERE (run, attempt) IN (
        SELECT a.run, a.attempt FROM attempts a JOIN runs r ON r.id = a.run
        WHERE r.ended_at IS NULL AND a.phase = 'ended' AND a.attempt <= (SELECT max(attempt) FROM attempts WHERE run = a.run) - ?
        AND NOT EXISTS (SELECT 1 FROM quarantine q WHERE q.run = a.run AND q.attempt = a.attempt AND q.released_at IS NULL)
        LIMIT ?
    )
"""
_REPORTS_FROM = "SELECT run, attempt FROM attempts WHERE job = ? AND report IS NOT NULL ORDER BY run DESC, attempt DESC LIMIT 1 OFFSET ?"
_OLD_REPORTS = """
    UPDATE attempts SET report = NULL WHERE (run, attempt) IN (
        SELECT a.run, a.attempt FROM attempts a WHERE a.job = ?1 AND a.report IS NOT NULL AND (a.run, a.attempt) <= (?2, ?3)
        AND NOT (
            a.run IN (SELECT run FROM incidents WHERE job = ?1 UNION SELECT last_run FROM incidents WHERE job = ?1)
            AND a.attempt = (SELECT max(attempt) FROM attempts WHERE run = a.run)
        )
        AND NOT EXISTS (SELECT 1 FROM quarantine q WHERE q.run = a.run AND q.attempt = a.attempt AND q.released_at IS NULL) LIMIT ?4
    )
"""
_OLD_REST = (
    "DELETE FROM slots WHERE (job, slot) IN (SELECT job, slot FROM slots WHERE slot < ? LIMIT ?)",
    "DELETE FROM incidents WHERE id IN (SELECT id FROM incidents WHERE closed_at < ? LIMIT ?)",
    "DELETE FROM quarantine WHERE (job, key) IN (SELECT job, key FROM quarantine WHERE released_at < ? LIMIT ?)",
    """
    DELETE FROM outbox WHERE seq IN (
        SELECT o.seq FROM outbox o LEFT JOIN incidents i ON i.id = o.incident
        WHERE o.state <> 'due' AND o.created_at < ? AND (i.id IS NULL OR i.closed_at IS NOT NULL) LIMIT ?
    )
    """,
)


class Store(Reads):
    """The history in ``STATE_DIR/history.db`` (WAL). Any method may raise ``StoreError``; the store stays usable after one.

    One thread at a time writes (an inner lock sees to it); other threads read through ``reader()``. ``quarantined`` is the name that a
    damaged file was given when it was set aside, at opening or later, else None.
    """

    def __init__(self, path: str, now: Wall) -> None:
        self.path = path
        self.quarantined: str | None = None
        self._opened_at = now
        self._renewals = 0
        self._file: tuple[int, int] | None = None
        self._lock = threading.RLock()
        self._connection = self._open()

    @classmethod
    def open(cls, state_dir: str, *, now: Wall) -> Self:
        """Opens or creates the history. A file that is damaged or not ours is set aside.

        ``StoreError`` when the state is from a newer Mainstay, or cannot be read and written at all.
        """
        opening.prepare_directory(state_dir)
        return cls(os.path.join(os.path.abspath(state_dir), opening.FILE_NAME), now)

    def close(self) -> None:
        """Writes the journal back and lets go of the file: afterwards the file alone is the whole history, whoever still has it open for reading."""
        with self._lock:
            with contextlib.suppress(sqlite3.Error):  # a full disk: the journal stays beside the file, and nothing is lost
                # SQLite does it by itself only where nobody else has the file open; our readers' threads may outlast us by a moment.
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()

    def apply(self, rows: Sequence[Row], *, durable: bool = False, counters: Mapping[tuple[str, str], float] | None = None) -> None:
        """Writes all *rows* or none: each replaces the row of its key, except that a slot that ran stays so and a known
        notification stays as it is. With *durable* they survive a loss of power once this returns.

        *counters* are new values that go with the rows, (metric, canonical label text) → value; those that are not named keep theirs.
        """
        values = [(clean(metric), clean(labels), encode(value)) for (metric, labels), value in (counters or {}).items()]

        def work(connection: sqlite3.Connection) -> None:
            for row in rows:
                connection.execute(*statement(row))
            connection.executemany("INSERT OR REPLACE INTO counters VALUES (?, ?, ?)", values)

        self._write(f"writing {len(rows)} rows" if rows else "writing counters", work, durable=durable)

    def memos(self) -> dict[str, str]:
        """Job → what the engine asked to remember of it."""
        return {memo.job: memo.text for memo in self._rows(MEMOS, "")}

    def open_runs(self) -> list[RunRow]:
        return self._rows(RUNS, "WHERE ended_at IS NULL ORDER BY id")

    def open_attempts(self) -> list[AttemptRow]:
        return self._rows(ATTEMPTS, "WHERE phase <> 'ended' ORDER BY run, attempt")

    def open_incidents(self) -> list[Incident]:
        return self._rows(INCIDENTS, "WHERE closed_at IS NULL ORDER BY id")

    def records_aside(self) -> list[QuarantinedRecord]:
        """The records of all jobs that are set aside."""
        return self._rows(QUARANTINE, "WHERE released_at IS NULL ORDER BY job, at, key")

    def next_ids(self) -> tuple[int, int]:
        """The next run id and the next incident id: never one that was given out before, pruned rows included."""
        sequences: dict[str, int] = dict(self._ask("reading ids", lambda c: c.execute("SELECT name, seq FROM sqlite_sequence").fetchall()))
        return sequences.get("runs", 0) + 1, sequences.get("incidents", 0) + 1

    def counters(self) -> dict[tuple[str, str], float]:
        """(metric, canonical label text) → last saved value."""
        rows = self._ask("reading counters", lambda c: c.execute("SELECT metric, labels, value FROM counters").fetchall())
        return {(metric, labels): value for metric, labels, value in rows}

    def forget_counters(self, keys: Sequence[tuple[str, str]]) -> None:
        """Removes the counters of a job that has left."""
        self._write("writing counters", lambda c: c.executemany("DELETE FROM counters WHERE metric = ? AND labels = ?", keys))

    def set_meta(self, key: str, value: str) -> None:
        """Keeps a small fact, read with ``meta``."""
        self._write("writing meta", lambda c: c.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, clean(value))))

    def reader(self, on_error: Callable[[], None] | None = None) -> Reader:
        """For another thread: reads over a connection of its own, opened at the first question. *on_error* hears of each that fails."""
        return Reader(self.path, on_error)

    def outbox(self) -> OutboxQueue:
        """For a courier: the outbox over a connection of its own, opened at the first use, for one thread at a time."""
        return OutboxQueue(self.path, any_thread=True)

    def prune(self, before: Wall, keep_runs_per_job: int = 1000) -> int:
        """Removes what ended before *before*, except each job's newest *keep_runs_per_job* runs and all that an open incident
        or a record in quarantine speaks of; and however young: of a job all runs but the newest 10,000, of a run that goes on all attempts but
        the newest 50. Of what is kept the dossiers go, but for the newest 200 of a job and those that an incident or such a record speaks of.
        Answers how many rows went.

        Works in small transactions over a connection of its own: may run in another thread while this store is written.
        """
        removed = 0
        with Link(self.path, read_only=False) as link:
            for job, first_kept in link.use("pruning runs", lambda c: _first_kept(c, keep_runs_per_job)):
                values = (job, to_micros(before), first_kept, PRUNE_BATCH)
                while batch := link.write("pruning runs", lambda c, values=values: _prune_runs(c, values)):  # type: ignore[misc]
                    removed += batch
            for job, first_kept in link.use("pruning runs", lambda c: _first_kept(c, RUNS_MAX)):
                values = (job, _FOREVER, first_kept, PRUNE_BATCH)
                while batch := link.write("pruning runs", lambda c, values=values: _prune_runs(c, values)):  # type: ignore[misc]
                    removed += batch
            for job, run, attempt in link.use("pruning reports", _last_to_slim):
                slim = (job, run, attempt, PRUNE_BATCH)
                while link.write("pruning reports", lambda c, slim=slim: c.execute(_OLD_REPORTS, slim).rowcount):  # type: ignore[misc]
                    pass
            while batch := link.write("pruning attempts", lambda c: c.execute(_OLD_ATTEMPTS, (KEEP_ATTEMPTS, PRUNE_BATCH)).rowcount):
                removed += batch
            for sql in _OLD_REST:
                while batch := link.write("pruning", lambda c, sql=sql: c.execute(sql, (to_micros(before), PRUNE_BATCH)).rowcount):  # type: ignore[misc]
                    removed += batch
            link.use("pruning", lambda c: c.execute("PRAGMA incremental_vacuum(1000)").fetchall())
        return removed

    def _ask(self, doing: str, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                return work(self._connection)
            except UNREADABLE as err:
                raise store_error(self.path, doing, err) from err

    def _write(self, doing: str, work: Callable[[sqlite3.Connection], object], *, durable: bool = False) -> None:
        with self._lock:
            try:
                self._attempt(work, durable=durable)
            except UNREADABLE as err:
                if code_of(err) not in _DAMAGE:
                    raise store_error(self.path, doing, err) from err
                self._renew(f"{doing}: {err}")
                try:
                    self._attempt(work, durable=durable)
                except UNREADABLE as again:
                    raise store_error(self.path, doing, again) from again

    def _attempt(self, work: Callable[[sqlite3.Connection], object], *, durable: bool) -> None:
        if self._is_gone():  # SQLite would go on writing into the removed file, and all of it would be lost at the next start
            self._let_go()
            self._connection = self._open()
        if durable:
            self._connection.execute("PRAGMA synchronous = FULL")
        try:
            with transaction(self._connection):
                work(self._connection)
        finally:
            if durable:
                self._connection.execute("PRAGMA synchronous = NORMAL")

    def _let_go(self) -> None:
        """Whatever fails from here on, the next write opens anew."""
        self._connection.close()
        self._file = None

    def _is_gone(self) -> bool:
        try:
            status = os.stat(self.path)
        except OSError:
            return True
        return (status.st_dev, status.st_ino) != self._file

    def _open(self) -> sqlite3.Connection:
        if not os.path.lexists(self.path):
            opening.create(self.path)
        try:
            connection = opening.open_sound(self.path, self._opened_at)
        except opening.DamagedError as err:
            self._set_aside(str(err))
            connection = self._open_fresh()
        self._file = self._identity()
        return connection

    def _renew(self, finding: str) -> None:
        """The file broke while it was in use: goes on with a fresh one. The rows of what runs come back with their next change."""
        self._renewals += 1
        self._let_go()
        self._set_aside(finding)
        self._connection = self._open_fresh()
        self._file = self._identity()

    def _open_fresh(self) -> sqlite3.Connection:
        opening.create(self.path)
        try:
            connection = opening.open_sound(self.path, self._opened_at)
            with transaction(connection):
                _start_ids_at(connection, int(self._opened_at.timestamp()) + self._renewals * 1_000_000)
        except opening.DamagedError as err:
            raise StoreError(f"{self.path}: a fresh file does not read back: {err}; look at the disk") from err
        except sqlite3.Error as err:
            raise store_error(self.path, "cannot be made", err) from err
        return connection

    def _set_aside(self, finding: str) -> None:
        self.quarantined = opening.set_aside(self.path, self._opened_at)
        log.error("history_quarantined", path=self.path, kept_as=self.quarantined, finding=finding)

    def _identity(self) -> tuple[int, int]:
        status = os.stat(self.path)
        return status.st_dev, status.st_ino


def _start_ids_at(connection: sqlite3.Connection, first: int) -> None:
    """Ids of the lost history must not be given out again: logs, exit records and alerts are named by them.

    Seconds since 1970 are above any id so far, unless there was more than one run a second ever since 1970.
    """
    connection.executemany("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", [("runs", first), ("incidents", first)])


def _first_kept(connection: sqlite3.Connection, keep: int) -> list[tuple[str, int]]:
    """Each job with the oldest of its newest *keep* runs (at least one); jobs with no more than that are left out."""
    sql = "SELECT id FROM runs WHERE job = ? ORDER BY id DESC LIMIT 1 OFFSET ?"
    jobs = connection.execute("SELECT DISTINCT job FROM runs").fetchall()
    return [(job, row[0]) for (job,) in jobs if (row := connection.execute(sql, (job, max(keep, 1) - 1)).fetchone())]


def _last_to_slim(connection: sqlite3.Connection) -> list[tuple[str, int, int]]:
    """Each job that has more than ``REPORTS_KEPT`` dossiers, with the newest attempt whose dossier is too much."""
    jobs = connection.execute("SELECT DISTINCT job FROM runs").fetchall()
    found = ((job, connection.execute(_REPORTS_FROM, (job, REPORTS_KEPT)).fetchone()) for (job,) in jobs)
    return [(job, row[0], row[1]) for job, row in found if row]


def _prune_runs(connection: sqlite3.Connection, values: tuple[str, int, int, int]) -> int:
    ids = connection.execute(_OLD_RUNS, values).fetchall()
    connection.executemany("DELETE FROM attempts WHERE run = ?", ids)
    connection.executemany("DELETE FROM runs WHERE id = ?", ids)
    return len(ids)
