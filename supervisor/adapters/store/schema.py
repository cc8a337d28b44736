"""The tables and how an older file becomes a current one. What the columns mean is said by ``core.records``.

Every wall time is an integer of microseconds since 1970 in UTC. Migrations only ever get appended: number *n* (from 1) turns
schema *n - 1* into schema *n*, and a fresh file runs through all of them, so that old and new files have the same text.
"""

import sqlite3

APPLICATION_ID = 0x4D61696E  # "Main"; file(1) and we tell a stranger's database by it

_FIRST = """
CREATE TABLE meta (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE memos (job TEXT PRIMARY KEY NOT NULL, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE counters (metric TEXT NOT NULL, labels TEXT NOT NULL, value REAL NOT NULL, PRIMARY KEY (metric, labels)) WITHOUT ROWID;
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL, "trigger" TEXT NOT NULL, slot INTEGER, started_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL, ended_at INTEGER, outcome TEXT, summary TEXT NOT NULL, duration_s REAL NOT NULL,
    memory_peak_bytes INTEGER NOT NULL, cpu_s REAL NOT NULL
);
CREATE INDEX runs_of_job ON runs (job, id);
CREATE INDEX runs_open ON runs (id) WHERE ended_at IS NULL;
CREATE INDEX runs_by_end ON runs (job, ended_at) WHERE ended_at IS NOT NULL;
CREATE TABLE attempts (
    run INTEGER NOT NULL, attempt INTEGER NOT NULL, job TEXT NOT NULL, phase TEXT NOT NULL, epoch TEXT NOT NULL, boot_id TEXT NOT NULL,
    intended_at INTEGER NOT NULL, pid INTEGER, pid_started INTEGER, started_at INTEGER, ended_at INTEGER, outcome TEXT,
    exit_code INTEGER, signal INTEGER, report TEXT, PRIMARY KEY (run, attempt)
);
CREATE INDEX attempts_of_job ON attempts (job, run, attempt);
CREATE INDEX attempts_open ON attempts (run, attempt) WHERE phase <> 'ended';
CREATE TABLE slots (
    job TEXT NOT NULL, slot INTEGER NOT NULL, result TEXT NOT NULL, reason TEXT, run INTEGER, PRIMARY KEY (job, slot)
) WITHOUT ROWID;
CREATE INDEX slots_by_time ON slots (slot);
CREATE TABLE incidents (
    id INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL, fingerprint TEXT NOT NULL, outcome TEXT NOT NULL, summary TEXT NOT NULL,
    severity TEXT NOT NULL, opened_at INTEGER NOT NULL, last_at INTEGER NOT NULL, run INTEGER NOT NULL, last_run INTEGER NOT NULL,
    occurrences INTEGER NOT NULL, alerted INTEGER NOT NULL, reminded_at INTEGER, acknowledged INTEGER NOT NULL, closed_at INTEGER,
    closed_because TEXT
);
CREATE INDEX incidents_open ON incidents (id) WHERE closed_at IS NULL;
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, receiver TEXT NOT NULL, kind TEXT NOT NULL, incident INTEGER NOT NULL,
    created_at INTEGER NOT NULL, body TEXT NOT NULL, state TEXT NOT NULL, tries INTEGER NOT NULL, due_at INTEGER NOT NULL, done_at INTEGER,
    last_error TEXT
);
CREATE INDEX outbox_due ON outbox (receiver, due_at, seq) WHERE state = 'due';
CREATE INDEX outbox_of_incident ON outbox (receiver, incident, seq);
CREATE INDEX outbox_done ON outbox (receiver, state, done_at);
"""

# Who acknowledged and resolved an incident, regressions, summaries; and what each job was made of when it last ran well.
_SECOND = """
ALTER TABLE incidents ADD COLUMN acknowledged_at INTEGER;
ALTER TABLE incidents ADD COLUMN acknowledged_by TEXT NOT NULL DEFAULT '';
ALTER TABLE incidents ADD COLUMN acknowledged_note TEXT NOT NULL DEFAULT '';
ALTER TABLE incidents ADD COLUMN closed_by TEXT NOT NULL DEFAULT '';
ALTER TABLE incidents ADD COLUMN fix TEXT NOT NULL DEFAULT '';
ALTER TABLE incidents ADD COLUMN regression_of INTEGER;
ALTER TABLE incidents ADD COLUMN regression_note TEXT NOT NULL DEFAULT '';
ALTER TABLE incidents ADD COLUMN gathered TEXT NOT NULL DEFAULT '';
CREATE TABLE good_runs (job TEXT PRIMARY KEY NOT NULL, run INTEGER NOT NULL, ended_at INTEGER NOT NULL, survey TEXT NOT NULL) WITHOUT ROWID;
"""

# Records that are set aside because they killed their job.
_THIRD = """
CREATE TABLE quarantine (
    job TEXT NOT NULL, "key" TEXT NOT NULL, at INTEGER NOT NULL, run INTEGER NOT NULL, attempt INTEGER NOT NULL, outcome TEXT NOT NULL,
    fingerprint TEXT NOT NULL, summary TEXT NOT NULL, released_at INTEGER, released_because TEXT, PRIMARY KEY (job, "key")
) WITHOUT ROWID;
"""

# The latest end is not that of the newest run: a service has been running since long before.
_FOURTH = """
CREATE INDEX reports_by_end ON attempts (ended_at) WHERE report IS NOT NULL;
CREATE INDEX reports_of_job_by_end ON attempts (job, ended_at) WHERE report IS NOT NULL;
"""

MIGRATIONS: tuple[str, ...] = (_FIRST, _SECOND, _THIRD, _FOURTH)
SCHEMA = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, known: int) -> None:
    """Brings a file of schema *known* (0: empty) up to ``SCHEMA`` in one transaction. Raises ``sqlite3.Error``.

    The version stands twice, in the header and in ``meta``: one flipped bit of the header must not look like a newer Mainstay.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        for script in MIGRATIONS[known:]:
            for statement in script.split(";\n"):
                connection.execute(statement)
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (str(SCHEMA),))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def text_of(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """The file's own description of its tables and indices, (name, SQL), sorted."""
    return sorted(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'").fetchall())


def expected_text() -> list[tuple[str, str]]:
    """What ``text_of`` says of a sound file of the current schema."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        migrate(connection, 0)
        return text_of(connection)
    finally:
        connection.close()
