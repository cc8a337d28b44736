"""Reads accounts and events from a SQLite file or from any database that SQLAlchemy has a driver for, in the order of a key.

The key is SQLite's rowid where there is one, else the id column. The position is the last key with a digest of its row: a table that was rewritten or
renumbered no longer has that row there, and is read again from the start. Of a server, the last ``overlap`` integer keys are read again each run, because
a transaction with a lower key may commit after one with a higher key; what is known already counts as repeated.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from user_metrics.check import RAW_MAX, Reason, Row, Table
from user_metrics.errors import Code, JobError
from user_metrics.source import Batch, Options, Position, Source, Stream, plain_tables, present_columns

if TYPE_CHECKING:
    import sqlalchemy as sa

Keyed = tuple[Any, tuple[Any, ...]]


class Reader(Protocol):
    """How rows of one table are asked for; each returns (key, values in the order of the kind's fields)."""

    def after(self, key: Any, limit: int) -> list[Keyed]: ...
    def same(self, key: Any) -> list[Keyed]: ...
    def count(self, key: Any) -> int: ...


class SqlStream:
    """One table of a database."""

    def __init__(self, table: Table, reader: Reader, key_name: str, overlap: int) -> None:
        self.table = table
        self._reader = reader
        self._key_name = key_name
        self._overlap = overlap

    def batches(self, position: Position | None, size: int) -> Iterator[Batch]:
        """See ``source.Stream``."""
        key = self._start(position)
        total = self._reader.count(key)
        done = 0
        while found := self._reader.after(key, size):
            batch = self._whole_keys(found, size)
            key = batch[-1][0]
            done += len(batch)
            last = [values for at, values in batch if at == key]
            rows = [self._row(at, values) for at, values in batch]
            yield Batch(rows, {"key": key, "digest": _digest(last)}, min(done, total), total)
            if len(found) < size:
                return

    def _start(self, position: Position | None) -> Any:
        if position is None:
            return None
        key = position["key"]
        if _digest([values for _, values in self._reader.same(key)]) != position["digest"]:
            return None
        return key - self._overlap if self._overlap and isinstance(key, int) else key

    def _whole_keys(self, found: list[Keyed], size: int) -> list[Keyed]:
        """*found* without a key that may go on in the next batch: a position must not stand between two rows of one key."""
        if len(found) < size:
            return found
        last = found[-1][0]
        return [row for row in found if row[0] != last] or self._reader.same(last)

    def _row(self, key: Any, values: tuple[Any, ...]) -> Row:
        raw = ",".join("" if value is None else str(value) for value in values)[:RAW_MAX]
        place = f"{self.table.relation}:{self._key_name}={key}"
        if not raw.isascii() and any("\udc80" <= char <= "\udcff" for char in raw):
            return Row(place, (), raw.encode(errors="surrogateescape").decode(errors="backslashreplace"), Reason.ENCODING)
        return Row(place, values, raw)


def _digest(rows: Sequence[tuple[Any, ...]]) -> str:
    return hashlib.blake2b(repr(sorted(map(repr, rows))).encode(errors="surrogateescape"), digest_size=16).hexdigest()


# ---------------------------------------------------------------- SQLite, with the standard library


def open_file(path: str, options: Options) -> Source:
    """The SQLite file *path*, opened for reading only. ``JobError`` when it is none, or lacks a table or a column."""
    try:
        connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None)
        connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")
        streams: list[Stream] = [_sqlite_stream(path, connection, table) for table in plain_tables(options)]
    except sqlite3.Error as err:
        raise JobError(f"{path}: {err}; --source takes a directory of CSV files, a SQLite file or a database URL") from err
    return Source(path, streams, options.system_users, connection.close)


def _sqlite_stream(path: str, connection: sqlite3.Connection, table: Table) -> SqlStream:
    name = _quoted(table.relation)
    found = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
    if not found:
        option = f"--{table.name}-table"
        raise JobError(f"{path}: there is no table {table.relation!r}; name it with {option}")
    columns = present_columns(table, found, f"{path}: table {table.relation}")
    key = "rowid" if _has_rowid(connection, table.relation) else _quoted(str(columns[0]))
    return SqlStream(table, SqliteReader(path, connection, name, key, columns), key.strip('"'), overlap=0)


def _has_rowid(connection: sqlite3.Connection, relation: str) -> bool:
    row = connection.execute("SELECT type FROM sqlite_master WHERE name = ?", (relation,)).fetchone()
    if row is None or row[0] != "table":
        return False
    try:
        connection.execute(f"SELECT rowid FROM {_quoted(relation)} LIMIT 0")  # noqa: S608 - the name is quoted
    except sqlite3.OperationalError:  # WITHOUT ROWID
        return False
    return True


class SqliteReader:
    """Rows of a SQLite table; one writer at a time commits them in order, so no overlap is needed."""

    def __init__(self, path: str, connection: sqlite3.Connection, name: str, key: str, columns: Sequence[str | None]) -> None:
        picked = ", ".join("NULL" if column is None else _quoted(column) for column in columns)
        self._path = path
        self._connection = connection
        self._select = f"SELECT {key}, {picked} FROM {name}"  # noqa: S608 - all names are quoted
        self._count = f"SELECT count(*) FROM {name}"  # noqa: S608
        self._key = key

    def after(self, key: Any, limit: int) -> list[Keyed]:
        """At most *limit* rows whose key is greater than *key* (None: all), in order."""
        where, parameters = ("", ()) if key is None else (f" WHERE {self._key} > ?", (key,))
        return self._fetch(f"{self._select}{where} ORDER BY {self._key} LIMIT ?", (*parameters, limit))

    def same(self, key: Any) -> list[Keyed]:
        """All rows of one key."""
        return self._fetch(f"{self._select} WHERE {self._key} = ?", (key,))

    def count(self, key: Any) -> int:
        """How many rows come after *key*."""
        where, parameters = ("", ()) if key is None else (f" WHERE {self._key} > ?", (key,))
        return int(self._execute(f"{self._count}{where}", parameters)[0][0])

    def _fetch(self, statement: str, parameters: tuple[Any, ...]) -> list[Keyed]:
        return [(row[0], row[1:]) for row in self._execute(statement, parameters)]

    def _execute(self, statement: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, parameters).fetchall()
        except sqlite3.Error as err:
            raise JobError(f"{self._path}: {err}; the file has to be a whole SQLite database that this user can read") from err


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# ---------------------------------------------------------------- any other database, with SQLAlchemy


def open_url(url: str, options: Options) -> Source:
    """The database at *url*. ``JobError`` when there is no driver for it, nobody answers, or a table or column is missing."""
    if url.startswith("sqlite:///"):
        return open_file(url.removeprefix("sqlite:///"), options)
    import sqlalchemy as sa

    shown = url
    try:
        shown = sa.make_url(url).render_as_string(hide_password=True)
        engine = sa.create_engine(url)
        connection = engine.connect()
        streams: list[Stream] = [_sql_stream(shown, connection, table, options) for table in plain_tables(options)]
    except ImportError as err:
        raise JobError(f"{shown}: the driver {err.name or err} is not installed; install it beside SQLAlchemy", Code.FAILED) from err
    except sa.exc.SQLAlchemyError as err:
        raise JobError(f"{shown}: {_one_line(err)}; check the URL, the server and the password") from err
    return Source(shown, streams, options.system_users, partial(_close, connection, engine))


def _close(connection: "sa.Connection", engine: "sa.Engine") -> None:
    connection.close()
    engine.dispose()


def _sql_stream(shown: str, connection: "sa.Connection", table: Table, options: Options) -> SqlStream:
    import sqlalchemy as sa

    schema, _, name = table.relation.rpartition(".")
    try:
        found = [str(column["name"]) for column in sa.inspect(connection).get_columns(name, schema=schema or None)]
    except sa.exc.NoSuchTableError as err:
        raise JobError(f"{shown}: there is no table {table.relation!r}; name it with --{table.name}-table") from err
    columns = present_columns(table, found, f"{shown}: table {table.relation}")
    return SqlStream(table, CoreReader(shown, connection, schema, name, columns), str(columns[0]), options.overlap)


class CoreReader:
    """Rows of a table of any engine, in the order of the id column. Each question is a transaction of its own."""

    def __init__(self, shown: str, connection: "sa.Connection", schema: str, name: str, columns: Sequence[str | None]) -> None:
        import sqlalchemy as sa

        present = [column for column in columns if column is not None]
        self._shown = shown
        self._connection = connection
        self._table = sa.table(name, *(sa.column(column) for column in present), schema=schema or None)
        self._key = self._table.c[str(columns[0])]
        self._picked = [self._key, *(sa.null() if column is None else self._table.c[column] for column in columns)]

    def after(self, key: Any, limit: int) -> list[Keyed]:
        """At most *limit* rows whose key is greater than *key* (None: all), in order."""
        import sqlalchemy as sa

        statement = sa.select(*self._picked).order_by(self._key).limit(limit)
        return self._fetch(statement if key is None else statement.where(self._key > key))

    def same(self, key: Any) -> list[Keyed]:
        """All rows of one key."""
        import sqlalchemy as sa

        return self._fetch(sa.select(*self._picked).where(self._key == key))

    def count(self, key: Any) -> int:
        """How many rows come after *key*."""
        import sqlalchemy as sa

        statement = sa.select(sa.func.count()).select_from(self._table)
        return int(self._execute(statement if key is None else statement.where(self._key > key))[0][0])

    def _fetch(self, statement: "sa.Select[Any]") -> list[Keyed]:
        return [(row[0], tuple(row[1:])) for row in self._execute(statement)]

    def _execute(self, statement: "sa.Select[Any]") -> Sequence[Any]:
        import sqlalchemy as sa

        try:
            rows = self._connection.execute(statement).fetchall()
            self._connection.rollback()
        except sa.exc.SQLAlchemyError as err:
            raise JobError(f"{self._shown}: {_one_line(err)}; what was read so far is kept, the next run goes on from there") from err
        return rows


def _one_line(err: Exception) -> str:
    origin = getattr(err, "orig", None) or err
    return (str(origin).strip().splitlines() or ["?"])[0]
