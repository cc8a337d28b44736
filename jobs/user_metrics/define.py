"""The relational metrics: one SQLAlchemy statement each over integer days, so that every engine gives the same numbers.

No engine's calendar, quantile or recursion is used: a day is an integer, quantiles are read off a small histogram here, walks belong to ``graph``. The tables
are the staged ones of ``state``; another engine has to offer tables of the same names and columns, and nothing else.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from user_metrics.check import DAY_US
from user_metrics.state import Sample

WINDOWS: Final = (1, 7, 30)  # days
RETENTION_WEEKS: Final = (1, 4, 8)
QUANTILES: Final = (0.5, 0.9, 0.99, 1.0)
MAX_TYPES: Final = 20  # a type is a label; what comes after the most frequent ones is published as "other"
DAY_S: Final = DAY_US // 1_000_000

_METADATA = sa.MetaData()


def _table(name: str, *columns: str) -> sa.Table:
    return sa.Table(
        name, _METADATA, *(sa.Column(column, sa.Text if column in ("type", "source", "id") else sa.BigInteger) for column in columns)
    )


account = _table("account", "person", "at_us", "day", "invited_by", "system")
event = _table("event", "seq", "source", "id", "at_us", "type", "actor", "target")
event_day = _table("event_day", "day", "type", "events")
user_day = _table("user_day", "day", "actor", "events")
edge = _table("edge", "actor", "target", "events")
first_contact = _table("first_contact", "person", "parent", "at_us", "seq")

Rows = Sequence[tuple[Any, ...]]
Query = sa.Select[Any] | sa.CompoundSelect[Any]


@dataclass(frozen=True, slots=True)
class Metric:
    """A relational metric: *statement* (as of a day, since the epoch), and how its rows become samples."""

    name: str
    says: str
    statement: Callable[[int], Query]
    samples: Callable[[Rows], list[Sample]]


def _window(value: sa.ColumnElement[Any], upto: Any, days: int) -> sa.ColumnElement[bool]:
    """*value* lies within the *days* days that end with *upto*."""
    return sa.and_(value > upto - days, value <= upto)


def _users(_: int) -> Query:
    return sa.select(sa.func.count()).select_from(account).where(account.c.system == 0)


def _signups(day: int) -> Query:
    return sa.union_all(
        *(
            sa.select(sa.literal(days).label("days"), sa.func.count())
            .select_from(account)
            .where(account.c.system == 0, _window(account.c.day, day, days))
            for days in WINDOWS
        )
    )


def _active(day: int) -> Query:
    distinct = sa.func.count(user_day.c.actor.distinct())
    return sa.union_all(
        *(sa.select(sa.literal(days).label("days"), distinct).where(_window(user_day.c.day, day, days)) for days in WINDOWS)
    )


def _events(_: int) -> Query:
    return sa.select(event_day.c.type, sa.func.sum(event_day.c.events)).group_by(event_day.c.type)


def _histogram(_: int) -> Query:
    """How many active users have so many events: small however many users there are."""
    each = sa.select(sa.func.sum(user_day.c.events).label("events")).group_by(user_day.c.actor).subquery()
    return sa.select(each.c.events, sa.func.count()).group_by(each.c.events).order_by(each.c.events)


def _retention(day: int) -> Query:
    """Per week w: users whose days 7w to 7w+6 after signing up are over, and how many of them acted on one of these days."""
    return sa.union_all(*(_retention_of(week, day) for week in RETENTION_WEEKS))


def _retention_of(week: int, day: int) -> sa.Select[Any]:
    first = account.c.day + 7 * week
    came_back = sa.exists().where(user_day.c.actor == account.c.person, user_day.c.day >= first, user_day.c.day <= first + 6)
    returned = sa.func.coalesce(sa.func.sum(sa.case((came_back, 1), else_=0)), 0)
    old_enough = sa.and_(account.c.system == 0, first + 6 <= day)
    return sa.select(sa.literal(week).label("week"), sa.func.count(), returned).select_from(account).where(old_enough)


def _busiest(_: int) -> Query:
    """The day on which most people acted (the first of equals), their events, and the active users of the windows that end with it."""
    days = sa.select(user_day.c.day.label("day"), sa.func.sum(user_day.c.events).label("events")).group_by(user_day.c.day)
    top = days.order_by(sa.func.count().desc(), user_day.c.day).limit(1).cte("top")
    distinct = sa.func.count(user_day.c.actor.distinct())
    return sa.union_all(
        sa.select(sa.literal("day").label("what"), top.c.day),
        sa.select(sa.literal("events"), top.c.events),
        *(
            sa.select(sa.literal(f"{days}d"), distinct).select_from(user_day.join(top, _window(user_day.c.day, top.c.day, days)))
            for days in WINDOWS
        ),
    )


def _self_events(_: int) -> Query:
    return sa.select(sa.func.coalesce(sa.func.sum(edge.c.events), 0)).where(edge.c.actor == edge.c.target)


def _identical(_: int) -> Query:
    """Events that repeat an earlier one in all but the id: real events, never dropped, but worth knowing."""
    alike = (
        sa.select(sa.func.count().label("n"))
        .select_from(event)
        .group_by(event.c.at_us, event.c.type, event.c.actor, event.c.target)
        .having(sa.func.count() > 1)
        .subquery()
    )
    return sa.select(sa.func.coalesce(sa.func.sum(alike.c.n - 1), 0))


def _one(name: str) -> Callable[[Rows], list[Sample]]:
    return lambda rows: [Sample(name, float(rows[0][0]))]


def _windows(name: str) -> Callable[[Rows], list[Sample]]:
    return lambda rows: [Sample(name, float(count), (("window", f"{days}d"),)) for days, count in rows]


def _by_type(rows: Rows) -> list[Sample]:
    ranked = sorted(((float(count), str(kind)) for kind, count in rows), key=lambda pair: (-pair[0], pair[1]))
    named = {kind: count for count, kind in ranked[:MAX_TYPES]}
    rest = sum(count for count, _ in ranked[MAX_TYPES:])
    if rest:
        named["other"] = named.get("other", 0.0) + rest
    return [Sample("events_total", count, (("type", kind),)) for kind, count in named.items()]


def quantile(histogram: Iterable[tuple[int, int]], q: float) -> int:
    """The smallest value that at least the share *q* of all counted have at most; *histogram* is (value, how many), ascending. 0 when it is empty."""
    pairs = list(histogram)
    wanted = max(1, math.ceil(q * sum(count for _, count in pairs)))
    seen = 0
    for value, count in pairs:
        seen += count
        if seen >= wanted:
            return value
    return 0


def _per_user(rows: Rows) -> list[Sample]:
    histogram = [(int(events), int(users)) for events, users in rows]
    samples = [Sample("events_per_active_user", float(quantile(histogram, q)), (("quantile", f"{q:g}"),)) for q in QUANTILES]
    return [*samples, Sample("acting_users", float(sum(users for _, users in histogram)))]


def _retained(rows: Rows) -> list[Sample]:
    samples = []
    for week, eligible, returned in rows:
        label = (("week", str(week)),)
        samples += [Sample("retention_eligible_users", float(eligible), label), Sample("retention_returned_users", float(returned), label)]
        if eligible:  # a ratio of nobody is not 0: it is not there
            samples.append(Sample("retention_ratio", returned / eligible, label))
    return samples


def _busiest_samples(rows: Rows) -> list[Sample]:
    found = {str(what): value for what, value in rows}
    if "day" not in found:
        return []
    samples = [Sample("busiest_day_timestamp_seconds", float(found["day"] * DAY_S)), Sample("busiest_day_events", float(found["events"]))]
    return samples + [Sample("busiest_day_active_users", float(found[f"{days}d"]), (("window", f"{days}d"),)) for days in WINDOWS]


_ALL: Final = (
    Metric("users", "accounts of people", _users, _one("users")),
    Metric("signups", "new accounts within 1, 7 and 30 days", _signups, _windows("signups")),
    Metric("events", "events by type", _events, _by_type),
    Metric("active_users", "people who acted within 1, 7 and 30 days", _active, _windows("active_users")),
    Metric("events_per_active_user", "quantiles of events per person who ever acted", _histogram, _per_user),
    Metric("retention", "share of new users who acted in week 1, 4 and 8 after signing up", _retention, _retained),
    Metric("busiest_day", "the day on which most people acted", _busiest, _busiest_samples),
    Metric("self_events", "events of a user to itself", _self_events, _one("self_events_total")),
    Metric("identical_events", "events that repeat another one in all but the id", _identical, _one("identical_events_total")),
)
METRICS: Final[Mapping[str, Metric]] = {metric.name: metric for metric in _ALL}


def compiled(metric: Metric, day: int, dialect: str) -> str:
    """The statement of *metric* as *dialect* ("sqlite", "postgresql", "mysql") wants it."""
    target = sa.make_url(f"{dialect}://").get_dialect()()
    return str(metric.statement(day).compile(dialect=target, compile_kwargs={"literal_binds": True}))
