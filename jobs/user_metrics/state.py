"""What is kept between runs, in one SQLite file: who was seen, what they did per integer day, where each source was read to, what was rejected, results.

Each batch is one transaction that holds its rows, its counts, its rejects *and* the position after it, so a kill at any instant leaves a state in which every
row of the source is either wholly counted and behind the position, or not at all and before it. Everything that grows with history is kept as small aggregates
(user-days, edges, first contacts) beside the events themselves, which are needed to know an id again.
"""

import contextlib
import fcntl
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from user_metrics.check import RAW_MAX, Account, Checked, Event, Item, Reason, Row, Table, day_of
from user_metrics.errors import Code, JobError
from user_metrics.source import Position

SCHEMA_VERSION: Final = 1
ASK: Final = 500  # ids per question; SQLite takes at least 999 parameters
KEEP_RUNS: Final = 1000

SCHEMA: Final = """
CREATE TABLE person (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, system INTEGER NOT NULL DEFAULT 0);
CREATE TABLE account (person INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, day INTEGER NOT NULL, invited_by INTEGER, system INTEGER NOT NULL);
CREATE TABLE item (id TEXT PRIMARY KEY, owner TEXT) WITHOUT ROWID;
CREATE TABLE event (seq INTEGER PRIMARY KEY, source TEXT NOT NULL, id TEXT NOT NULL, at_us INTEGER NOT NULL, type TEXT NOT NULL, actor INTEGER NOT NULL,
                    target INTEGER);
CREATE UNIQUE INDEX event_id ON event (source, id);
CREATE TABLE event_day (day INTEGER NOT NULL, type TEXT NOT NULL, events INTEGER NOT NULL, PRIMARY KEY (day, type)) WITHOUT ROWID;
CREATE TABLE user_day (day INTEGER NOT NULL, actor INTEGER NOT NULL, events INTEGER NOT NULL, PRIMARY KEY (day, actor)) WITHOUT ROWID;
CREATE INDEX user_day_actor ON user_day (actor, day);
CREATE TABLE edge (actor INTEGER NOT NULL, target INTEGER NOT NULL, events INTEGER NOT NULL, PRIMARY KEY (actor, target)) WITHOUT ROWID;
CREATE TABLE first_contact (person INTEGER PRIMARY KEY, parent INTEGER NOT NULL, at_us INTEGER NOT NULL, seq INTEGER NOT NULL);
CREATE TABLE quarantine (source TEXT NOT NULL, place TEXT NOT NULL, reason TEXT NOT NULL, raw TEXT NOT NULL, run INTEGER NOT NULL, first_seen REAL NOT NULL,
                         PRIMARY KEY (source, place, reason, raw)) WITHOUT ROWID;
CREATE TABLE tally (source TEXT NOT NULL, what TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (source, what)) WITHOUT ROWID;
CREATE TABLE position (source TEXT PRIMARY KEY, position TEXT NOT NULL, watermark_us INTEGER) WITHOUT ROWID;
CREATE TABLE result (metric TEXT NOT NULL, name TEXT NOT NULL, labels TEXT NOT NULL, value REAL NOT NULL, PRIMARY KEY (name, labels)) WITHOUT ROWID;
CREATE TABLE metric (name TEXT PRIMARY KEY, succeeded_at REAL, seconds REAL, errors INTEGER NOT NULL DEFAULT 0, error TEXT, rounds INTEGER, rounds_limit INTEGER)
    WITHOUT ROWID;
CREATE TABLE run (number INTEGER PRIMARY KEY, started_at REAL NOT NULL, ended_at REAL, result TEXT, stages TEXT);
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

# What belongs to the data (wiped by --full), and not to the history of runs.
DATA_TABLES: Final = (
    "person", "account", "item", "event", "event_day", "user_day", "edge", "first_contact", "quarantine", "tally", "position", "result", "metric", "fact",
)  # fmt: skip

_NEWEST_FIRST_CONTACT: Final = """
INSERT INTO first_contact (person, parent, at_us, seq) VALUES (?, ?, ?, ?)
ON CONFLICT (person) DO UPDATE SET parent = excluded.parent, at_us = excluded.at_us, seq = excluded.seq
WHERE (excluded.at_us, excluded.seq) < (first_contact.at_us, first_contact.seq)
"""


@dataclass(slots=True)
class Tally:
    """What became of rows: ``read`` = ``accepted`` + ``repeated`` + all of ``rejected``, always."""

    read: int = 0
    accepted: int = 0
    repeated: int = 0
    late: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    @property
    def rejected_total(self) -> int:
        return sum(self.rejected.values())

    def add(self, other: "Tally") -> None:
        """Count *other* in."""
        self.read += other.read
        self.accepted += other.accepted
        self.repeated += other.repeated
        self.late += other.late
        self.rejected += other.rejected


@dataclass(frozen=True, slots=True)
class Reject:
    """A quarantined row."""

    source: str
    place: str
    reason: str
    raw: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One number of a result: the series *name* with *labels* of one metric."""

    name: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


@contextlib.contextmanager
def locked(directory: str) -> Iterator[None]:
    """Hold the state in *directory*, made if needed, for this process alone. ``JobError`` ALREADY_RUNNING when another one has it."""
    try:
        os.makedirs(directory, exist_ok=True)
        fd = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as err:
        raise JobError(f"{directory}: {err.strerror}; --state takes a directory that this user can write to") from err
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JobError(
                f"{directory}: another run is using this state; wait for its end or give --state another directory", Code.ALREADY_RUNNING
            ) from None
        yield
    finally:
        os.close(fd)


class State:
    """The state file. All writing methods are one transaction each."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.connection = sqlite3.connect(path, isolation_level=None)
            self.connection.execute("PRAGMA journal_mode = WAL")
            self.connection.execute("PRAGMA synchronous = FULL")
            version = self.connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._create()
            elif version != SCHEMA_VERSION:
                raise JobError(
                    f"{path}: the state has version {version}, this job knows {SCHEMA_VERSION}; start afresh with another --state"
                )
        except sqlite3.Error as err:
            raise JobError(f"{path}: {err}; restore the state from a copy, or remove it to read everything again") from err
        self._numbers: dict[str, int] | None = None

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def _create(self) -> None:
        with self._transaction():
            for statement in SCHEMA.split(";\n"):
                if statement.strip():
                    self.connection.execute(statement)
            self.connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a question."""
        return self.connection.execute(statement, parameters).fetchall()

    # ------------------------------------------------------------ runs

    def begin_run(self, now: float) -> int:
        """A new run's number. A run that never ended was killed; it is recorded so."""
        with self._transaction() as db:
            killed = db.execute("UPDATE run SET result = 'killed' WHERE result IS NULL").rowcount
            self._count("run", {"killed": killed})
            number = db.execute("INSERT INTO run (started_at) VALUES (?)", (now,)).lastrowid
            db.execute("DELETE FROM run WHERE number <= ?", ((number or 0) - KEEP_RUNS,))
        return number or 0

    def end_run(self, number: int, now: float, result: str, stages: Mapping[str, float]) -> None:
        """The run is over."""
        with self._transaction() as db:
            db.execute(
                "UPDATE run SET ended_at = ?, result = ?, stages = ? WHERE number = ?", (now, result, json.dumps(dict(stages)), number)
            )
            self._count("run", {result: 1})

    def wipe(self, source: str) -> None:
        """Forget all data, keep the history of runs: the next batch starts from nothing, of *source*."""
        with self._transaction() as db:
            runs = self.rows("SELECT what, count FROM tally WHERE source = 'run'")
            for table in DATA_TABLES:
                db.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
            self._count("run", dict(runs))
            db.execute("INSERT INTO fact VALUES ('source', ?)", (source,))
        self._numbers = None

    # ------------------------------------------------------------ facts

    def fact(self, name: str) -> str | None:
        """A remembered fact."""
        row = self.connection.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def remember(self, name: str, value: str) -> None:
        """Remember a fact."""
        with self._transaction() as db:
            db.execute("INSERT INTO fact VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (name, value))

    # ------------------------------------------------------------ batches

    def position(self, source: str) -> Position | None:
        """How far *source* was read."""
        row = self.connection.execute("SELECT position FROM position WHERE source = ?", (source,)).fetchone()
        return json.loads(row[0]) if row else None

    def accounts(self) -> dict[str, bool]:
        """Ids that have an account."""
        return dict.fromkeys(
            (row[0] for row in self.rows("SELECT person.id FROM account JOIN person ON person.number = account.person")), True
        )

    def owners(self) -> dict[str, str | None]:
        """The owner of each item."""
        return dict(self.rows("SELECT id, owner FROM item"))

    def mark_system(self, ids: Iterable[str]) -> None:
        """These ids are no people: they have a number, and are left out of every count of users."""
        with self._transaction() as db:
            numbers = self._number_all(ids)
            db.executemany("UPDATE person SET system = 1 WHERE number = ? AND system = 0", [(number,) for number in numbers.values()])

    def commit(self, table: Table, checked: Sequence[tuple[Row, Checked | Reason]], position: Position, *, run: int, now: float) -> Tally:
        """Take a batch of *table* whole: rows, counts, rejects and the *position* after it, in one transaction. What became of the rows."""
        tally = Tally(read=len(checked))
        with self._transaction() as db:
            rejects = [(row, verdict) for row, verdict in checked if isinstance(verdict, Reason)]
            good = [(row, verdict) for row, verdict in checked if not isinstance(verdict, Reason)]
            watermark: int | None = None
            if good:
                conflicts, watermark = self._take(table, good, tally)
                rejects += [(row, Reason.ID_DUPLICATE) for row in conflicts]
            self._quarantine(table.name, rejects, tally, run, now)
            self._count(table.name, {"read": tally.read, "accepted": tally.accepted, "repeated": tally.repeated, "late": tally.late})
            self._count(table.name, {f"rejected:{reason}": count for reason, count in tally.rejected.items()})
            db.execute(
                "INSERT INTO position VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET position = excluded.position, "
                "watermark_us = max(ifnull(watermark_us, excluded.watermark_us), ifnull(excluded.watermark_us, watermark_us))",
                (table.name, json.dumps(position, default=str), watermark),
            )
        return tally

    def _take(self, table: Table, good: Sequence[tuple[Row, Checked]], tally: Tally) -> tuple[list[Row], int | None]:
        """The new ones of *good* into their tables; (rows that contradict a known id, newest time)."""
        first = good[0][1]
        if isinstance(first, Item):
            return self._take_items([(row, item) for row, item in good if isinstance(item, Item)], tally), None
        if isinstance(first, Account):
            accounts = [(row, account) for row, account in good if isinstance(account, Account)]
            return self._take_accounts(accounts, tally), max(account.at_us for _, account in accounts)
        events = [(row, event) for row, event in good if isinstance(event, Event)]
        return self._take_events(table, events, tally), max(event.at_us for _, event in events)

    def _take_items(self, items: Sequence[tuple[Row, Item]], tally: Tally) -> list[Row]:
        known: dict[Any, Any] = self._known("SELECT id, owner FROM item WHERE id IN ({})", (), [item.id for _, item in items])
        new, conflicts = _sift(((row, item.id, item.owner) for row, item in items), known, tally)
        self.connection.executemany("INSERT INTO item VALUES (?, ?)", [(name, known[name]) for name in new])
        return conflicts

    def _take_accounts(self, accounts: Sequence[tuple[Row, Account]], tally: Tally) -> list[Row]:
        numbers = self._number_all(name for _, account in accounts for name in (account.id, account.invited_by) if name is not None)
        triples = ((row, numbers[a.id], (a.at_us, numbers[a.invited_by] if a.invited_by is not None else None)) for row, a in accounts)
        known = {
            person: (at_us, invited_by)
            for person, at_us, invited_by in self._ask(
                "SELECT person, at_us, invited_by FROM account WHERE person IN ({})", (), [numbers[a.id] for _, a in accounts]
            )
        }
        new, conflicts = _sift(triples, known, tally)
        system = {row[0] for row in self.rows("SELECT number FROM person WHERE system = 1")}
        self.connection.executemany(
            "INSERT INTO account VALUES (?, ?, ?, ?, ?)",
            [(person, known[person][0], day_of(known[person][0]), known[person][1], person in system) for person in new],
        )
        return conflicts

    def _take_events(self, table: Table, events: Sequence[tuple[Row, Event]], tally: Tally) -> list[Row]:
        numbers = self._number_all(name for _, event in events for name in (event.actor, event.target) if name is not None)
        found = self._ask(
            "SELECT id, at_us, type, actor, target FROM event WHERE source = ? AND id IN ({})",
            (table.name,),
            [event.id for _, event in events],
        )
        known = {row[0]: tuple(row[1:]) for row in found}
        triples = (
            (row, e.id, (e.at_us, e.type, numbers[e.actor], numbers[e.target] if e.target is not None else None)) for row, e in events
        )
        new, conflicts = _sift(triples, known, tally)
        before = self.rows("SELECT watermark_us FROM position WHERE source = ?", (table.name,))
        if before and before[0][0] is not None:
            tally.late = sum(known[name][0] < before[0][0] for name in new)
        self._store_events(table.name, [(name, *known[name]) for name in new])
        return conflicts

    def _store_events(self, source: str, new: Sequence[tuple[str, int, str, int, int | None]]) -> None:
        db = self.connection
        system = {row[0] for row in self.rows("SELECT number FROM person WHERE system = 1")}
        first = int(self.rows("SELECT ifnull(max(seq), 0) + 1 FROM event")[0][0])
        db.executemany(
            "INSERT INTO event (seq, source, id, at_us, type, actor, target) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(seq, source, *event) for seq, event in enumerate(new, first)],
        )
        days = Counter((day_of(at_us), kind) for _, at_us, kind, _, _ in new)
        active = Counter((day_of(at_us), actor) for _, at_us, _, actor, _ in new if actor not in system)
        people = [event for event in new if event[4] is not None and event[3] not in system and event[4] not in system]
        edges = Counter((actor, target) for _, _, _, actor, target in people)
        upsert = "INSERT INTO {} VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET events = events + excluded.events"
        for name, counts in (("event_day", days), ("user_day", active), ("edge", edges)):
            db.executemany(upsert.format(name), [(*key, count) for key, count in counts.items()])
        contacts: dict[int, tuple[int, int, int]] = {}
        for seq, (_, at_us, _, actor, target) in enumerate(new, first):
            if target is None or target == actor or actor in system or target in system:
                continue
            if target not in contacts or at_us < contacts[target][1]:
                contacts[target] = (actor, at_us, seq)
        db.executemany(_NEWEST_FIRST_CONTACT, [(person, *contact) for person, contact in contacts.items()])

    def _quarantine(self, source: str, rejects: Sequence[tuple[Row, Reason]], tally: Tally, run: int, now: float) -> None:
        """Set *rejects* aside. One that already is there, same place and text, was only read again: it counts as repeated."""
        for row, reason in rejects:
            new = self.connection.execute(
                "INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?, ?, ?)", (source, row.place, reason.value, row.raw[:RAW_MAX], run, now)
            ).rowcount
            if new:
                tally.rejected[reason.value] += 1
            else:
                tally.repeated += 1

    def _number_all(self, ids: Iterable[str]) -> dict[str, int]:
        """The number of each person; new ones get the next numbers. Inside a transaction; after a rollback the process ends."""
        if self._numbers is None:
            self._numbers = dict(self.rows("SELECT id, number FROM person"))
        numbers = self._numbers
        new = [name for name in dict.fromkeys(ids) if name not in numbers]
        numbers.update((name, number) for number, name in enumerate(new, len(numbers)))
        self.connection.executemany("INSERT INTO person (number, id) VALUES (?, ?)", [(numbers[name], name) for name in new])
        return numbers

    def _known(self, statement: str, fixed: Sequence[Any], ids: Sequence[Any]) -> dict[Any, Any]:
        return dict(self._ask(statement, fixed, ids))

    def _ask(self, statement: str, fixed: Sequence[Any], ids: Sequence[Any]) -> list[Any]:
        found: list[Any] = []
        for start in range(0, len(ids), ASK):
            part = ids[start : start + ASK]
            found += self.rows(statement.format(",".join("?" * len(part))), (*fixed, *part))
        return found

    def _count(self, source: str, counts: Mapping[str, int]) -> None:
        self.connection.executemany(
            "INSERT INTO tally VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
            [(source, what, n) for what, n in counts.items()],
        )

    # ------------------------------------------------------------ counts

    def tallies(self) -> dict[str, Tally]:
        """What became of the rows of each source since the state was made."""
        tallies: dict[str, Tally] = {}
        for source, what, count in self.rows("SELECT source, what, count FROM tally WHERE source <> 'run'"):
            tally = tallies.setdefault(source, Tally())
            if what.startswith("rejected:"):
                tally.rejected[what.removeprefix("rejected:")] += count
            else:
                setattr(tally, what, count)
        return tallies

    def rejects(self, reason: str | None, limit: int) -> list[Reject]:
        """Quarantined rows, at most *limit*."""
        statement = "SELECT source, place, reason, raw FROM quarantine WHERE ? IS NULL OR reason = ? LIMIT ?"
        return [Reject(*row) for row in self.rows(statement, (reason, reason, limit))]

    def newest_day(self) -> int | None:
        """The day of the newest event."""
        return self.rows("SELECT max(day) FROM event_day")[0][0]  # type: ignore[no-any-return]  # an integer or NULL

    def data_version(self) -> str:
        """A text that changes whenever accepted data changes."""
        return "{}.{}".format(*self.rows("SELECT (SELECT ifnull(max(seq), 0) FROM event), (SELECT count(*) FROM account)")[0])

    # ------------------------------------------------------------ results

    def store_results(self, metric: str, samples: Sequence[Sample], *, now: float, seconds: float, rounds: tuple[int, int] | None) -> None:
        """Replace all samples of *metric* in one transaction. *rounds* are those its loop took and might have taken."""
        with self._transaction() as db:
            db.execute("DELETE FROM result WHERE metric = ?", (metric,))
            db.executemany("INSERT INTO result VALUES (?, ?, ?, ?)", [(metric, s.name, json.dumps(s.labels), s.value) for s in samples])
            db.execute(
                "INSERT INTO metric VALUES (?, ?, ?, 0, NULL, ?, ?) ON CONFLICT DO UPDATE SET succeeded_at = excluded.succeeded_at, "
                "seconds = excluded.seconds, error = NULL, rounds = excluded.rounds, rounds_limit = excluded.rounds_limit",
                (metric, now, seconds, *(rounds or (None, None))),
            )

    def store_error(self, metric: str, error: str) -> None:
        """*metric* could not be computed; its old samples stay."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO metric (name, errors, error) VALUES (?, 1, ?) ON CONFLICT DO UPDATE SET errors = errors + 1, error = excluded.error",
                (metric, error),
            )

    def results(self) -> list[Sample]:
        """All samples of the last computation of each metric."""
        found = self.rows("SELECT name, labels, value FROM result ORDER BY name, labels")
        return [Sample(name, value, tuple((key, text) for key, text in json.loads(labels))) for name, labels, value in found]


def _sift(rows: Iterable[tuple[Row, Any, Any]], known: dict[Any, Any], tally: Tally) -> tuple[list[Any], list[Row]]:
    """Sort (row, id, content) by what *known* says: new ids (returned, and added to *known*), the same again (counted), contradictions (returned)."""
    new: list[Any] = []
    conflicts: list[Row] = []
    for row, name, content in rows:
        if name not in known:
            known[name] = content
            new.append(name)
        elif known[name] == content:
            tally.repeated += 1
        else:
            conflicts.append(row)
    tally.accepted += len(new)
    return new, conflicts
