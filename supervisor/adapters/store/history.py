"""Reading the history. Every method may raise ``StoreError``; none takes a lock that a writer would wait for (WAL)."""

import json
import sqlite3
from collections.abc import Callable
from typing import Any, Self, TypeVar

from supervisor.adapters.store.connection import Link
from supervisor.adapters.store.rows import ATTEMPTS, GOOD_RUNS, INCIDENTS, QUARANTINE, RUNS, SLOTS, R, Table, Value, from_micros
from supervisor.core.model import Incident, Outcome, RunId, Wall
from supervisor.core.records import AttemptRow, Delivery, NotificationKind, QuarantinedRecord, RunRow, SlotRow
from supervisor.errors import StoreError

T = TypeVar("T")

_GOOD = ", ".join(f"'{outcome.value}'" for outcome in Outcome if not outcome.is_bad)


def select(connection: sqlite3.Connection, table: Table[R], rest: str, *values: Value) -> list[R]:
    """The records of *table* that the SQL *rest* (WHERE, ORDER, LIMIT) lets through."""
    rows = connection.execute(f"SELECT {table.column_list} FROM {table.name} {rest}", values).fetchall()  # noqa: S608 - our own text
    return [table.record_of(row) for row in rows]


def _first(rows: list[R]) -> R | None:
    return rows[0] if rows else None


class Reads:
    """The questions; ``_ask`` is how a subclass puts them to its connection."""

    def _ask(self, doing: str, work: Callable[[sqlite3.Connection], T]) -> T:
        raise NotImplementedError

    def _rows(self, table: Table[R], rest: str, *values: Value) -> list[R]:
        return self._ask(f"reading {table.name}", lambda connection: select(connection, table, rest, *values))

    def runs(self, job: str | None = None, limit: int = 100, before_id: RunId | None = None) -> list[RunRow]:
        """Newest first; *before_id* is the last id of the page before."""
        last = before_id if before_id is not None else 2**63 - 1
        if job is None:
            return self._rows(RUNS, "WHERE id < ? ORDER BY id DESC LIMIT ?", last, limit)
        return self._rows(RUNS, "WHERE job = ? AND id < ? ORDER BY id DESC LIMIT ?", job, last, limit)

    def run(self, run: RunId) -> RunRow | None:
        return _first(self._rows(RUNS, "WHERE id = ?", run))

    def attempts(self, run: RunId) -> list[AttemptRow]:
        """In the order they were made."""
        return self._rows(ATTEMPTS, "WHERE run = ? ORDER BY attempt", run)

    def report(self, run: RunId, attempt: int | None = None) -> dict[str, Any] | None:
        """The dossier of one attempt, or of the run's last attempt that has one."""
        if attempt is None:
            return self._report("run = ? ORDER BY attempt DESC", run)
        return self._report("run = ? AND attempt = ?", run, attempt)

    def last_report(self, job: str | None = None, *, bad_only: bool = False) -> dict[str, Any] | None:
        """The dossier of the latest end, of one job or of all; with *bad_only* of the latest bad one. A service's crash of now has a low run number."""
        bad = f" AND outcome NOT IN ({_GOOD})" if bad_only else ""
        latest = "ORDER BY ended_at DESC, run DESC, attempt DESC"
        if job is None:
            return self._report(f"1{bad} {latest}")
        return self._report(f"job = ?{bad} {latest}", job)

    def report_of_incident(self, incident: int, run: RunId) -> dict[str, Any] | None:
        """The dossier of the last attempt of *run* that belongs to *incident*: others of that run died of something else, or went well."""
        its = "CASE WHEN json_valid(report) THEN json_extract(report, '$.incident') END = ?"
        return self._report(f"run = ? AND {its} ORDER BY attempt DESC", run, incident)

    def slots(self, job: str, limit: int = 100) -> list[SlotRow]:
        """Newest first."""
        return self._rows(SLOTS, "WHERE job = ? ORDER BY slot DESC LIMIT ?", job, limit)

    def good_run(self, job: str) -> tuple[str, RunId, Wall] | None:
        """(survey, run, end) of the job's last good run whose survey is known: as it was kept, which is what it was made of until then.

        One that ended before it was surveyed is none: it may have been made of something else.
        """
        kept = _first(self._rows(GOOD_RUNS, "WHERE job = ?", job))
        if kept is None:
            return None
        was_surveyed = "CASE WHEN json_valid(report) THEN json_type(report, '$.changed') = 'object' END"
        last = _first(
            self._rows(
                ATTEMPTS,
                f"WHERE job = ? AND run > ? AND outcome = 'succeeded' AND {was_surveyed} ORDER BY run DESC LIMIT 1",
                job,
                kept.run,
            )
        )
        return (kept.survey, kept.run, kept.ended_at) if last is None or last.ended_at is None else (kept.survey, last.run, last.ended_at)

    def incidents(self, *, open_only: bool = False, limit: int = 100) -> list[Incident]:
        """Newest first."""
        return self._rows(INCIDENTS, f"{'WHERE closed_at IS NULL ' if open_only else ''}ORDER BY id DESC LIMIT ?", limit)

    def quarantine(self, job: str) -> list[QuarantinedRecord]:
        """The job's records that are set aside, the latest last."""
        return self._rows(QUARANTINE, "WHERE job = ? AND released_at IS NULL ORDER BY at, key", job)

    def incident(self, incident: int) -> Incident | None:
        return _first(self._rows(INCIDENTS, "WHERE id = ?", incident))

    def deliveries(self, incident: int) -> list[Delivery]:
        """What became of each notification about an incident, in the order in which they were asked for."""
        sql = "SELECT receiver, kind, state, tries, done_at, last_error FROM outbox WHERE incident = ? ORDER BY seq"
        rows = self._ask("reading the outbox", lambda connection: connection.execute(sql, (incident,)).fetchall())
        return [
            Delivery(receiver, NotificationKind(kind), state, tries, None if done is None else from_micros(done), error or "")
            for receiver, kind, state, tries, done, error in rows
        ]

    def last_refusal(self, receiver: str) -> str:
        """Why the newest notification that still waits for *receiver*, and was tried, did not go through; "" when none was."""
        sql = "SELECT last_error FROM outbox WHERE receiver = ? AND state = 'due' AND last_error IS NOT NULL ORDER BY seq DESC LIMIT 1"
        return self._ask("reading the outbox", lambda c: next((row[0] for row in c.execute(sql, (receiver,))), ""))

    def meta_beginning_with(self, prefix: str) -> dict[str, str]:
        """All small facts whose key begins with *prefix*, which holds none of LIKE's wildcards."""
        sql = "SELECT key, value FROM meta WHERE key LIKE ? ORDER BY key"
        return dict(self._ask("reading meta", lambda connection: connection.execute(sql, (prefix + "%",)).fetchall()))

    def meta(self, key: str) -> str | None:
        """A small fact kept with ``Store.set_meta``."""
        return self._ask(
            "reading meta", lambda c: next((row[0] for row in c.execute("SELECT value FROM meta WHERE key = ?", (key,))), None)
        )

    def _report(self, where: str, *values: Value) -> dict[str, Any] | None:
        def read(connection: sqlite3.Connection) -> dict[str, Any] | None:
            sql = f"SELECT report, run, attempt FROM attempts WHERE report IS NOT NULL AND {where} LIMIT 1"  # noqa: S608 - our own text
            row = connection.execute(sql, values).fetchone()
            if row is None:
                return None
            text, run, attempt = row
            try:
                report = json.loads(text)
            except ValueError as err:
                raise StoreError(f"the dossier of run {run}, attempt {attempt} is damaged: {err}") from err
            return report if isinstance(report, dict) else None

        return self._ask("reading a report", read)


class Reader(Reads):
    """The history for one reading thread, over a read-only connection of its own. Close it, or use it in ``with``."""

    def __init__(self, path: str, on_error: Callable[[], None] | None = None) -> None:
        self._link = Link(path, read_only=True)
        self._on_error = on_error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._link.close()

    def _ask(self, doing: str, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._link.use(doing, work)
        except StoreError:
            if self._on_error is not None:
                self._on_error()
            raise
