"""One SQLite connection that notices when its file was exchanged, and errors in words. It knows no table."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self, TypeVar
from urllib.parse import quote

from supervisor.errors import StoreError

T = TypeVar("T")

CACHE_KIB = 256  # for each connection; SQLite would keep 2 MiB, and the pages that we come back to are few
BUSY_S = 0.5  # other writers of ours are done in milliseconds; the brain's loop waits here, with limits to watch
_PRIMARY = 0xFF  # extended result codes carry the primary one in the low byte

# What a damaged file can make of a read: SQLite's own errors, those among them whose text is no UTF-8, and values that no record can hold.
UNREADABLE = (sqlite3.Error, ValueError, TypeError, OverflowError)

_HINTS = {
    sqlite3.SQLITE_BUSY: "another process holds it; stop that process",
    sqlite3.SQLITE_LOCKED: "another process holds it; stop that process",
    sqlite3.SQLITE_FULL: "make room on the disk",
    sqlite3.SQLITE_IOERR: "look at the disk and its quota",
    sqlite3.SQLITE_READONLY: "make it writable",
    sqlite3.SQLITE_CANTOPEN: "check the directory and its permissions",
    sqlite3.SQLITE_CORRUPT: "the file is damaged",
    sqlite3.SQLITE_NOTADB: "the file is damaged",
}


def code_of(err: BaseException) -> int:
    """SQLite's primary result code, 0 when the error is not SQLite's own."""
    return int(getattr(err, "sqlite_errorcode", 0)) & _PRIMARY


def store_error(path: str, doing: str, err: BaseException) -> StoreError:
    """*err* as one line: place, finding, mend."""
    hint = _HINTS.get(code_of(err))
    return StoreError(f"{path}: {doing}: {err}" + (f"; {hint}" if hint else ""))


def connect(path: str, *, read_only: bool = False, any_thread: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode to an existing file. Raises what ``UNREADABLE`` has."""
    uri = f"file:{quote(path)}?mode={'ro' if read_only else 'rw'}"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=not any_thread)
    try:
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        if not read_only:
            connection.execute("PRAGMA synchronous = NORMAL")
    except UNREADABLE:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Takes the write lock at once, commits at the end, rolls back on any exception."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled back by itself already
            connection.execute("ROLLBACK")
        raise


class Link:
    """A connection opened at first use and again when the file at *path* is another one (set aside, restored, removed)."""

    def __init__(self, path: str, *, read_only: bool, any_thread: bool = False) -> None:
        self.path = path
        self._read_only = read_only
        self._any_thread = any_thread
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; the next use opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def use(self, doing: str, work: Callable[[sqlite3.Connection], T]) -> T:
        """*work* done with the connection. ``StoreError`` naming the file and *doing* when it cannot be."""
        try:
            return work(self._current())
        except UNREADABLE as err:
            raise store_error(self.path, doing, err) from err
        except OSError as err:
            raise StoreError(f"{self.path}: {doing}: {err.strerror}; check the state directory") from err

    def write(self, doing: str, work: Callable[[sqlite3.Connection], T]) -> T:
        """As ``use``, in one transaction."""

        def whole(connection: sqlite3.Connection) -> T:
            with transaction(connection):
                return work(connection)

        return self.use(doing, whole)

    def _current(self) -> sqlite3.Connection:
        status = os.stat(self.path)
        file = (status.st_dev, status.st_ino)
        if self._connection is None or file != self._file:
            self.close()
            self._connection = connect(self.path, read_only=self._read_only, any_thread=self._any_thread)
            self._file = file
        return self._connection
