"""What a source is: tables whose rows come in batches, each batch with the position after it. Finds the shape of what it is given.

A position is a small JSON object. It says how far a table was read *and* how to recognise that what was read is still the same; a source that was
rewritten is read again from the start, and the rows already known are then counted as repeated. The readers are ``csv_source`` and ``sql_source``.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from user_metrics.check import FIELDS, Kind, Row, Table
from user_metrics.errors import Code, JobError

Position = dict[str, Any]

# Types of events that make no sense without an addressee, where the source is a plain table of events.
NEEDS_TARGET: Final = frozenset({"message", "reply", "answer", "comment", "invitation"})


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows, the position after them, and how far that is: ``done`` of ``total`` in the source's own unit (bytes, rows)."""

    rows: list[Row]
    position: Position
    done: int
    total: int | None


class Stream(Protocol):
    """One table of a source."""

    @property
    def table(self) -> Table: ...

    def batches(self, position: Position | None, size: int) -> Iterator[Batch]:
        """Batches of at most about *size* rows after *position* (None: from the start). Ends; ``JobError`` when the source cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says about a source. ``columns`` maps "TABLE.FIELD" to the source's name of the column."""

    users_table: str = "users"
    events_table: str = "events"
    columns: Mapping[str, str] = field(default_factory=dict)
    needs_target: frozenset[str] | None = None
    system_users: frozenset[str] = frozenset()
    overlap: int = 10_000


@dataclass(frozen=True, slots=True)
class Source:
    """Tables in the order in which they have to be read: accounts, items, events. ``system_users`` are ids that are no people."""

    name: str
    streams: Sequence[Stream]
    system_users: frozenset[str] = frozenset()
    close: Callable[[], None] = lambda: None


def open_source(where: str, options: Options) -> Source:
    """The source at *where*: a directory of CSV files, a SQLite file or a database URL. ``JobError`` when it is none of them."""
    from user_metrics import csv_source, sql_source

    if "://" in where:
        return sql_source.open_url(where, options)
    if os.path.isdir(where):
        return csv_source.open_directory(where, options)
    if os.path.isfile(where):
        return sql_source.open_file(where, options)
    raise JobError(
        f"{where}: there is no such file or directory; --source takes a directory of CSV files, a SQLite file or a database URL",
        Code.FAILED,
    )


def plain_tables(options: Options) -> tuple[Table, Table]:
    """The two tables of a plain source, ``users(id, created_at, invited_by)`` and ``events(id, ts, type, actor, target)``, with the names that *options* give."""
    needs = NEEDS_TARGET if options.needs_target is None else options.needs_target
    users = Table("users", Kind.ACCOUNTS, options.users_table, _columns(Kind.ACCOUNTS, options.users_table, options))
    events = Table("events", Kind.EVENTS, options.events_table, _columns(Kind.EVENTS, options.events_table, options), needs_target=needs)
    for key in options.columns:
        relation, _, name = key.partition(".")
        if (relation, name) not in {(table.relation, name) for table in (users, events) for name in FIELDS[table.kind]}:
            raise JobError(
                f"--column {key}: there is no such field; write TABLE.FIELD=NAME, e.g. {users.relation}.created_at=joined", Code.USAGE
            )
    return users, events


def _columns(kind: Kind, relation: str, options: Options) -> tuple[str | None, ...]:
    return tuple(options.columns.get(f"{relation}.{name}", name) for name in FIELDS[kind])


REQUIRED: Final[Mapping[Kind, frozenset[str]]] = {
    Kind.ACCOUNTS: frozenset({"id", "created_at"}),
    Kind.ITEMS: frozenset({"id", "owner"}),
    Kind.EVENTS: frozenset({"id", "ts", "actor"}),
}


def present_columns(table: Table, found: Sequence[str], place: str) -> tuple[str | None, ...]:
    """The table's columns as far as *found* has them. ``JobError`` when one is missing that cannot be done without."""
    present: list[str | None] = []
    for name, column in zip(FIELDS[table.kind], table.columns, strict=True):
        if column in found:
            present.append(column)
        elif column is not None and name in REQUIRED[table.kind]:
            raise JobError(
                f"{place}: there is no column {column!r} (found: {', '.join(found)}); name it with --column {table.relation}.{name}=NAME"
            )
        else:
            present.append(None)
    return tuple(present)
