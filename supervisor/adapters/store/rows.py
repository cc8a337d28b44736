"""Records to SQL values and back, derived from the records' own fields. Which rows exist and when they change is said elsewhere."""

import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from supervisor.core.model import Incident, Wall
from supervisor.core.records import AttemptRow, GoodRow, JobMemo, Notification, QuarantinedRecord, Row, RunRow, SlotRow

Value = str | int | float | None
R = typing.TypeVar("R", RunRow, AttemptRow, SlotRow, Incident, Notification, JobMemo, GoodRow, QuarantinedRecord)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(wall: Wall) -> int:
    """Microseconds since 1970 in UTC."""
    return (wall - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> Wall:
    """The aware datetime in UTC. ``OverflowError`` beyond the year 9999."""
    return _EPOCH + timedelta(microseconds=micros)


def clean(text: str) -> str:
    """*text* as SQLite can hold it: half a surrogate pair (an undecodable byte of some file name or output) becomes U+FFFD."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace") if not text.isascii() else text


def encode(value: object) -> Value:
    """One field's value as SQL value. ``TypeError`` for a type that no record has."""
    match value:
        case None:
            return None
        case datetime():
            return to_micros(value)
        case StrEnum():
            return value.value
        case bool():
            return int(value)
        case str():
            return clean(value)
        case float():
            return value if value == value else 0.0  # noqa: PLR0124 - NaN is bound as NULL, and one such row would fail for ever
        case int():
            return value
        case tuple():  # of names, none of which has a comma
            return clean(",".join(value))
    raise TypeError(f"{type(value).__name__} has no column type")


def _decoder(hint: object) -> Callable[[typing.Any], object]:
    plain = hint
    if typing.get_origin(hint) is tuple:
        return lambda text: tuple(text.split(",")) if text else ()
    if isinstance(hint, types.UnionType):
        (plain,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
    convert: Callable[[typing.Any], object] = from_micros if plain is datetime else typing.cast("type", plain)
    if plain is hint:
        return convert
    return lambda value: None if value is None else convert(value)


@dataclass(frozen=True, slots=True)
class Table(typing.Generic[R]):
    """Where records of one type are kept: the table, its key, and the order of the columns."""

    name: str
    record: type[R]
    key: tuple[str, ...]
    columns: tuple[str, ...]
    decoders: tuple[Callable[[typing.Any], object], ...]

    @property
    def column_list(self) -> str:
        """The columns, quoted, as SELECT and INSERT want them."""
        return ", ".join(f'"{column}"' for column in self.columns)

    def values(self, row: R) -> list[Value]:
        return [encode(getattr(row, column)) for column in self.columns]

    def record_of(self, values: Sequence[typing.Any]) -> R:
        """The record; ``ValueError``, ``TypeError`` or ``OverflowError`` when the file holds what no record can hold."""
        make = typing.cast("Callable[..., R]", self.record)
        return make(*(decode(value) for decode, value in zip(self.decoders, values, strict=True)))


def _table(name: str, record: type[R], *key: str) -> Table[R]:
    hints = typing.get_type_hints(record)
    columns = record.__struct_fields__
    return Table(name, record, key, columns, tuple(_decoder(hints[column]) for column in columns))


RUNS = _table("runs", RunRow, "id")
ATTEMPTS = _table("attempts", AttemptRow, "run", "attempt")
SLOTS = _table("slots", SlotRow, "job", "slot")
MEMOS = _table("memos", JobMemo, "job")
INCIDENTS = _table("incidents", Incident, "id")
GOOD_RUNS = _table("good_runs", GoodRow, "job")
QUARANTINE = _table("quarantine", QuarantinedRecord, "job", "key")
OUTBOX = _table("outbox", Notification, "key")

# A slot that ran stays "ran" whatever a later, less informed decision says: that is what keeps it from being run twice.
_SLOT_GUARD = " WHERE slots.result = 'skipped' OR (slots.result = 'late' AND excluded.result <> 'skipped')"


def _upsert(table: Table[typing.Any], guard: str = "") -> str:
    marks = ", ".join("?" * len(table.columns))
    key = ", ".join(f'"{column}"' for column in table.key)
    sets = ", ".join(f'"{column}" = excluded."{column}"' for column in table.columns if column not in table.key)
    return f"INSERT INTO {table.name} ({table.column_list}) VALUES ({marks}) ON CONFLICT ({key}) DO UPDATE SET {sets}{guard}"  # noqa: S608


_ENQUEUE = (
    f"INSERT INTO outbox ({OUTBOX.column_list}, state, tries, due_at) VALUES (?, ?, ?, ?, ?, ?, 'due', 0, ?)"  # noqa: S608
    " ON CONFLICT (key) DO NOTHING"
)
_UPSERTS: dict[type, tuple[Table[typing.Any], str]] = {
    table.record: (table, _upsert(table, _SLOT_GUARD if table is SLOTS else ""))
    for table in (RUNS, ATTEMPTS, SLOTS, MEMOS, INCIDENTS, GOOD_RUNS, QUARANTINE)
}


def statement(row: Row) -> tuple[str, list[Value]]:
    """The SQL that writes *row*, and its values. A notification is written once: asking again changes nothing."""
    if isinstance(row, Notification):
        return _ENQUEUE, [*OUTBOX.values(row), to_micros(row.created_at)]
    table, sql = _UPSERTS[type(row)]
    return sql, table.values(row)
