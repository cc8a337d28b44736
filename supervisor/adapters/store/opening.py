"""Getting a sound history file: make it, prove it, set a damaged one aside. What is asked of it later is not known here."""

import os
import sqlite3
import stat

from supervisor.adapters.store import schema
from supervisor.adapters.store.connection import UNREADABLE, code_of, connect, store_error, transaction
from supervisor.adapters.store.history import select
from supervisor.adapters.store.rows import ATTEMPTS, INCIDENTS, MEMOS, QUARANTINE, RUNS, to_micros
from supervisor.core.model import Wall
from supervisor.errors import StoreError

FILE_NAME = "history.db"
SIDES = ("-wal", "-shm", "-journal")
CHECK_MAX_BYTES = 256 * 2**20  # a whole check reads the file: beyond this it would hold up the start by seconds
JOURNAL_KEPT_BYTES = 16 * 2**20

# The surroundings fail, not the file: setting it aside would lose the history and mend nothing.
_SURROUNDINGS = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)


class DamagedError(Exception):
    """The file is no history of ours, or no longer; the text says how it shows."""


def prepare_directory(state_dir: str) -> None:
    """Makes *state_dir* (0700) if it is missing. ``StoreError`` when it cannot be used."""
    try:
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
    except OSError as err:
        raise StoreError(
            f"{state_dir}: cannot make the state directory: {err.strerror}; create it for this user or set supervisor.state_dir"
        ) from err
    if not os.access(state_dir, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise StoreError(f"{state_dir}: no permission to write the state directory; give it to this user or set supervisor.state_dir")


def create(path: str) -> None:
    """A fresh, empty history at *path*, mode 0600: built aside and renamed, so that no half-made one is ever found."""
    new = f"{path}.new"
    try:
        _remove(new, *(new + side for side in SIDES))
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        connection = connect(new)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            schema.migrate(connection, 0)
        finally:
            connection.close()
        _remove(*(path + side for side in SIDES))  # a leftover journal must not be played into the new file
        os.rename(new, path)
        _sync_directory(os.path.dirname(path))
    except OSError as err:
        raise StoreError(f"{path}: cannot be made: {err.strerror}; check the state directory and its disk") from err
    except sqlite3.Error as err:
        raise store_error(path, "cannot be made", err) from err


def open_sound(path: str, now: Wall) -> sqlite3.Connection:
    """A writing connection to a file that has proved to be readable and writable, of the current schema.

    Raises ``DamagedError`` when the file itself is bad, ``StoreError`` when it is newer than we are or cannot be reached.
    """
    _check_files(path)
    connection: sqlite3.Connection | None = None
    try:
        connection = connect(path, any_thread=True)
        _check_version(path, connection)
        _prove(path, connection, now)
    except UNREADABLE as err:
        _close(connection)
        if code_of(err) in _SURROUNDINGS:
            raise store_error(path, "cannot be opened", err) from err
        raise DamagedError(str(err)) from err
    except (DamagedError, StoreError):
        _close(connection)
        raise
    return connection


def set_aside(path: str, now: Wall) -> str:
    """Renames the file and its journals to ``PATH.broken-TIME``; answers that name. ``StoreError`` when it cannot."""
    stem = f"{path}.broken-{now:%Y%m%dT%H%M%SZ}"
    name = next(name for n in range(10**6) if not os.path.lexists(name := stem + (f"-{n}" if n else "")))
    try:
        for side in SIDES:
            if os.path.lexists(path + side):
                os.rename(path + side, name + side)
        os.rename(path, name)
    except OSError as err:
        raise StoreError(f"{path}: is damaged and cannot be set aside: {err.strerror}; move it away by hand") from err
    return name


def _check_files(path: str) -> None:
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise DamagedError("not a regular file")
    if any(os.path.lexists(path + side) and not stat.S_ISREG(os.lstat(path + side).st_mode) for side in SIDES):
        raise DamagedError("its journal is not a regular file")
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        raise StoreError(f"{path}: no permission to read and write it; give it to this user or set supervisor.state_dir")
    status = os.stat(path)
    if status.st_size == 0:
        raise DamagedError("empty file")
    if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) & 0o077:
        os.chmod(path, 0o600)


def _check_version(path: str, connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != schema.APPLICATION_ID:
        raise DamagedError("not a history of Mainstay")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    stated = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    if stated is None or str(stated[0]) != str(version) or version < 1:
        raise DamagedError("its schema number is damaged")
    if version > schema.SCHEMA:
        raise StoreError(
            f"{path}: state is from a newer Mainstay (schema {version}, we know {schema.SCHEMA}): use that version or another state_dir"
        )
    if version < schema.SCHEMA:
        schema.migrate(connection, version)
    if schema.text_of(connection) != schema.expected_text():
        raise DamagedError("its tables are not ours")


def _prove(path: str, connection: sqlite3.Connection, now: Wall) -> None:
    """Does what every start does with the file, so that a file that passed cannot fail the start afterwards."""
    if os.path.getsize(path) <= CHECK_MAX_BYTES:
        (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if finding != "ok":
            raise DamagedError(finding)
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise DamagedError(f"its journal cannot be set to WAL (stays {mode})")
    connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_KEPT_BYTES}")
    with transaction(connection):
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('opened_at', ?)", (str(to_micros(now)),))
    select(connection, RUNS, "WHERE ended_at IS NULL")
    select(connection, ATTEMPTS, "WHERE phase <> 'ended'")
    select(connection, INCIDENTS, "WHERE closed_at IS NULL")
    select(connection, MEMOS, "")
    select(connection, QUARANTINE, "WHERE released_at IS NULL")
    for _, _, value in connection.execute("SELECT metric, labels, value FROM counters").fetchall():
        float(value)
    connection.execute("SELECT name, seq FROM sqlite_sequence").fetchall()


def _close(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        connection.close()


def _remove(*paths: str) -> None:
    for path in paths:
        if os.path.lexists(path):
            os.unlink(path)


def _sync_directory(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
