"""Judges rows: a raw row becomes an account, an item or an event with integer times, or it is rejected with a reason.

Knows nothing of files, databases or earlier rows; whether an id was seen before is decided by ``state``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
DAY_US: Final = 86_400_000_000
RAW_MAX: Final = 4096  # characters of a rejected row that are kept
ID_MAX: Final = 200  # characters; longer ids are rejected, or one broken quote would make megabytes of keys


class Reason(StrEnum):
    """Why a row was rejected: a closed list, the label values of ``user_metrics_rows_rejected_total``."""

    COLUMNS_WRONG = "columns_wrong"
    ENCODING = "encoding"
    ID_MISSING = "id_missing"
    ID_DUPLICATE = "id_duplicate"
    TIMESTAMP_MISSING = "timestamp_missing"
    TIMESTAMP_UNPARSABLE = "timestamp_unparsable"
    TIMESTAMP_OUT_OF_RANGE = "timestamp_out_of_range"
    ACTOR_MISSING = "actor_missing"
    ACTOR_UNKNOWN = "actor_unknown"
    TARGET_MISSING = "target_missing"
    TYPE_UNKNOWN = "type_unknown"


class Kind(StrEnum):
    """What the rows of a table are. Items are things with an owner (posts) to which events point."""

    ACCOUNTS = "accounts"
    ITEMS = "items"
    EVENTS = "events"


FIELDS: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.ACCOUNTS: ("id", "created_at", "invited_by"),
    Kind.ITEMS: ("id", "owner"),
    Kind.EVENTS: ("id", "ts", "type", "actor", "target"),
}


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a source. ``name`` is the label ``source`` of its counts; ``columns`` has one source column per field of its kind, None: not there.

    For events: ``one_type`` is the type of all rows where no column says it; ``types`` translates the source's codes, and rows whose code is in ``skip`` are
    no events at all; ``by_item``: the target column names an item, its owner is the target; ``needs_target``: types that must have a target ("*": all).
    """

    name: str
    kind: Kind
    relation: str
    columns: tuple[str | None, ...]
    one_type: str = ""
    types: Mapping[str, str] = field(default_factory=dict)
    skip: frozenset[str] = frozenset()
    by_item: bool = False
    needs_target: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Row:
    """A raw row: its place for people ("users.csv.gz:17:402" is file, line, byte), its values in the order of ``FIELDS``, its text as it came."""

    place: str
    values: tuple[Any, ...]
    raw: str
    problem: Reason | None = None


@dataclass(frozen=True, slots=True)
class Account:
    id: str
    at_us: int
    invited_by: str | None


@dataclass(frozen=True, slots=True)
class Item:
    id: str
    owner: str | None


@dataclass(frozen=True, slots=True)
class Event:
    id: str
    at_us: int
    type: str
    actor: str
    target: str | None


Checked = Account | Item | Event


@dataclass(frozen=True, slots=True)
class Rules:
    """What a row has to obey. Times are microseconds since the epoch; ``types`` empty means any."""

    earliest_us: int
    latest_us: int
    types: frozenset[str] = frozenset()
    reject_unknown_actors: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What earlier tables told: ids that have an account, and the owner of each item."""

    accounts: Mapping[str, Any]
    owners: Mapping[str, str | None]


def microseconds(value: Any) -> int | Reason:
    """*value* as microseconds since the epoch: ISO 8601 text (without an offset: UTC), a datetime, or a number of seconds."""
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return Reason.TIMESTAMP_MISSING
        try:
            value = datetime.fromisoformat(text)
        except ValueError:
            return Reason.TIMESTAMP_UNPARSABLE
    if value is None:
        return Reason.TIMESTAMP_MISSING
    if isinstance(value, bool):
        return Reason.TIMESTAMP_UNPARSABLE
    if isinstance(value, int | float):
        return round(value * 1_000_000) if abs(value) < 1e12 else Reason.TIMESTAMP_OUT_OF_RANGE
    if not isinstance(value, datetime):
        return Reason.TIMESTAMP_UNPARSABLE
    aware: datetime = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return (aware - EPOCH) // MICROSECOND


def identifier(value: Any) -> str | None:
    """*value* as an id, None when it is missing."""
    if value is None:
        return None
    text = value.strip() if isinstance(value, str) else str(value)
    return text or None


def day_of(at_us: int) -> int:
    """The day since the epoch (UTC) of a time in microseconds. Integer days are the only calendar beyond this point: every engine agrees on them."""
    return at_us // DAY_US


def check(row: Row, table: Table, rules: Rules, known: Known) -> Checked | Reason:
    """The checked row, or its first failing reason."""
    if row.problem is not None:
        return row.problem
    name = identifier(row.values[0])
    if name is None:
        return Reason.ID_MISSING
    if len(name) > ID_MAX:
        return Reason.COLUMNS_WRONG
    match table.kind:
        case Kind.EVENTS:
            return _event(name, row.values, table, rules, known)
        case Kind.ACCOUNTS:
            at_us = _time(row.values[1], rules)
            return at_us if isinstance(at_us, Reason) else Account(name, at_us, _short(row.values[2]))
        case Kind.ITEMS:
            return Item(name, _short(row.values[1]))


def _event(name: str, values: tuple[Any, ...], table: Table, rules: Rules, known: Known) -> Event | Reason:
    _, ts, raw_type, raw_actor, raw_target = values
    at_us = _time(ts, rules)
    if isinstance(at_us, Reason):
        return at_us
    actor = _short(raw_actor)
    if actor is None:
        return Reason.ACTOR_MISSING
    if rules.reject_unknown_actors and actor not in known.accounts:
        return Reason.ACTOR_UNKNOWN
    kind = table.one_type or identifier(raw_type)
    if kind and table.types:
        kind = table.types.get(kind)
    if kind is None or len(kind) > ID_MAX or (rules.types and kind not in rules.types):
        return Reason.TYPE_UNKNOWN
    target = _short(raw_target)
    if table.by_item:
        target = known.owners.get(target) if target else None
    if target is None and (kind in table.needs_target or "*" in table.needs_target):
        return Reason.TARGET_MISSING
    return Event(name, at_us, kind, actor, target)


def _short(value: Any) -> str | None:
    """An id of bearable length, None when it is missing or longer than anything we would keep."""
    text = identifier(value)
    return text if text is None or len(text) <= ID_MAX else None


def _time(value: Any, rules: Rules) -> int | Reason:
    at_us = microseconds(value)
    if isinstance(at_us, Reason):
        return at_us
    return at_us if rules.earliest_us <= at_us <= rules.latest_us else Reason.TIMESTAMP_OUT_OF_RANGE
