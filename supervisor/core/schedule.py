"""When a job is due: next fire time, missed fire times, which of them are caught up. Starting runs is the engine's business.

A *slot* is a fire time, an aware datetime in UTC; it names the run that stands for it. The rule for zones with daylight saving is
Debian cron's (cron(8)), by which cronsim goes as well:

- A *fixed-time* line (neither its minute nor its hour field begins with ``*``) fires once per named time of the day. A time that the
  gap in spring leaves out fires once, in the first minute after the gap; a time that the overlap in autumn holds twice fires the first
  time only.
- Any other line follows the clock on the wall: nothing in the gap, both turns of the overlap.
- ``Every`` follows elapsed time and knows no zone.

cronsim reads the expression and says which days match; the hours and minutes are placed here, because cronsim walks the hours in
steps of 3,600 s and so leaves out ``*/10 5 * * *`` at 05:00, 05:10 and 05:20 on a night when the clock moves by half an hour
(Australia/Lord_Howe). A zone that moves twice within one day is not handled; there is none in the time zone database after 1970.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from msgspec import Struct

from supervisor.core.jobs import CatchUp, Cron, Every, Manual, Schedule, Service
from supervisor.core.model import Wall

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from cronsim import CronSim

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HORIZON_YEARS = 50  # 29 February on a given weekday can be 40 years away (over the year 2100)
LAST_YEAR = 9998  # datetime ends with 9999; a year of room for "the next day" and for zones
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
FEW_SLOTS = 64  # up to here walking forward is cheaper than listing whole days
DAY_SLOTS_MAX = 25 * 60


class _Line(Struct, frozen=True):
    """A cron expression, read: ``hours`` and ``minutes`` ascending; ``fixed`` as in the module's text; ``matcher`` knows the days."""

    zone: "ZoneInfo"
    hours: tuple[int, ...]
    minutes: tuple[int, ...]
    months: frozenset[int]
    fixed: bool
    matcher: "CronSim"


def next_fire(schedule: Schedule, job: str, after: Wall) -> Wall | None:
    """The first slot strictly after *after*, in UTC; None for a job without fire times or without one in the next 50 years.

    The slot itself carries no jitter (see ``start_at``), so *job* does not change it. ``ValueError`` for an expression that
    ``problem`` objects to.
    """
    del job
    match schedule.when:
        case Every(every_s=every_s):
            return _next_multiple(every_s, after)
        case Cron(expression=expression, timezone=timezone):
            return _next_of_line(_parse(expression, timezone), after)
        case _:
            return None


def start_at(schedule: Schedule, job: str, slot: Wall) -> Wall:
    """When the run for *slot* starts: the slot plus a share of ``jitter_s`` that depends on job and slot alone."""
    if schedule.jitter_s <= 0:
        return slot
    from supervisor.core.jitter import unit  # late: its hashlib would load OpenSSL with the config, which asks only about fire times

    return slot + timedelta(seconds=schedule.jitter_s * unit(job, slot.astimezone(UTC).isoformat()))


def missed(schedule: Schedule, job: str, since: Wall, until: Wall, limit: int = 1000) -> tuple[Wall, ...]:
    """The slots in (*since*, *until*], ascending; of more than *limit* the latest. Empty when the clock went backwards."""
    del job
    if until <= since or limit < 1:
        return ()
    match schedule.when:
        case Every(every_s=every_s):
            return _multiples(every_s, since, until, limit)
        case Cron(expression=expression, timezone=timezone):
            return _line_slots(_parse(expression, timezone), since, until, limit)
        case _:
            return ()


def catch_up(schedule: Schedule, missed_slots: Sequence[Wall], now: Wall) -> tuple[tuple[Wall, ...], tuple[Wall, ...]]:
    """Which of *missed_slots* are still run, and which are skipped, both ascending; together they are all of *missed_slots*.

    ``none`` runs nothing, ``last`` the latest slot, ``all`` every slot; a slot older than ``within_s`` is not run in any case.
    """
    slots = sorted(missed_slots)
    fresh = [slot for slot in slots if schedule.within_s is None or (now - slot).total_seconds() <= schedule.within_s]
    match schedule.catch_up:
        case CatchUp.NONE:
            run: list[Wall] = []
        case CatchUp.LAST:
            run = fresh[-1:]
        case CatchUp.ALL:
            run = fresh
    chosen = set(run)
    return tuple(run), tuple(slot for slot in slots if slot not in chosen)


def shortest_gap(schedule: Schedule) -> timedelta | None:
    """The least time between two of a few dozen fire times in a row; None for fewer than two. ``ValueError`` as ``next_fire``."""
    slots = [next_fire(schedule, "", datetime(2026, 1, 1, tzinfo=UTC))]
    while slots[-1] is not None and len(slots) < FEW_SLOTS:
        slots.append(next_fire(schedule, "", slots[-1]))
    found = [slot for slot in slots if slot is not None]
    return min((after - before for before, after in pairwise(found)), default=None)


def problem(schedule: Schedule) -> str | None:
    """What is wrong with the fire times of *schedule*, in words for the author of a config; None when nothing is."""
    try:
        match schedule.when:
            case Every(every_s=every_s) if not every_s > 0:
                return f"{every_s:g} s is not an interval; write a duration above zero, e.g. 5m"
            case Cron(expression=expression, timezone=timezone):
                _parse(expression, timezone)
            case _:
                pass
    except ValueError as err:
        return str(err)
    return None


# ---------------------------------------------------------------- every


def _next_multiple(every_s: float, after: Wall) -> Wall | None:
    step = _step(every_s)
    try:
        return EPOCH + ((after - EPOCH) // step + 1) * step
    except OverflowError:
        return None  # past the year 9999


def _multiples(every_s: float, since: Wall, until: Wall, limit: int) -> tuple[Wall, ...]:
    step = _step(every_s)
    last = (until - EPOCH) // step
    first = max((since - EPOCH) // step + 1, last - limit + 1)
    return tuple(EPOCH + n * step for n in range(first, last + 1))


def name_of(when: Every | Cron | Manual | Service) -> str:
    """The same text for the same fire times, in every version of ours: it is remembered."""
    match when:
        case Every(every_s):
            return f"every {every_s!r}"
        case Cron(expression, timezone):
            return f"cron {expression} {timezone}"
        case Manual():
            return "manual"
        case Service():
            return "service"


def _step(every_s: float) -> timedelta:
    step = timedelta(seconds=every_s)
    if step <= timedelta(0):
        raise ValueError(f"{every_s:g} s is not an interval; write a duration above zero, e.g. 5m")
    return step


# ---------------------------------------------------------------- cron


@lru_cache(maxsize=4096)  # a value computed from two strings; the cache only saves doing it again for each look at 1,000 jobs
def _parse(expression: str, timezone: str) -> _Line:
    from cronsim import CronSim, CronSimError  # late, as zoneinfo: without a cron expression nobody needs them, and they take half a MiB

    text = expression.strip()
    text = ALIASES.get(text.lower(), text)
    fields = text.split()
    if text.startswith("@"):
        raise ValueError(f'"{expression}" is not a known name; write one of {", ".join(ALIASES)}')
    if len(fields) != 5:
        raise ValueError(f'"{expression}" has {len(fields)} fields; write five: minute hour day-of-month month day-of-week')
    try:
        matcher = CronSim(text, EPOCH)
    except CronSimError as err:
        raise ValueError(f'"{expression}" can never fire or is not a cron expression: {str(err).lower()}') from err
    return _Line(
        zone=_zone(timezone),
        hours=tuple(sorted(matcher.hours)),
        minutes=tuple(sorted(matcher.minutes)),
        months=frozenset(month for month in matcher.months if isinstance(month, int)),
        fixed=not (fields[0].startswith("*") or fields[1].startswith("*")),
        matcher=matcher,
    )


def _zone(name: str) -> "ZoneInfo":
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as err:  # ValueError: "../x"; OSError: a folder such as "Europe"
        raise ValueError(f'"{name}" is not a known time zone; write a name such as Europe/London') from err


def _next_of_line(line: _Line, after: Wall) -> Wall | None:
    if after.year >= LAST_YEAR:
        return None
    start = _local(line, after).date()
    for day in _days(line, start - DAY, min(start.year + HORIZON_YEARS, LAST_YEAR)):
        slot = _first_of_day(line, day, after)
        if slot is None:
            continue
        # An overlap around midnight can put a time of the next day before a later turn of this one.
        rival = _first_of_day(line, day + DAY, after) if _moves(line, day) and _matches(line, day + DAY) else None
        return slot if rival is None else min(slot, rival)
    return None


def _line_slots(line: _Line, since: Wall, until: Wall, limit: int) -> tuple[Wall, ...]:
    slots: list[Wall] = []
    at = _next_of_line(line, since)
    while at is not None and at <= until:
        slots.append(at)
        if len(slots) > FEW_SLOTS:  # a long absence: better from its end, where the limit cuts
            return _latest_slots(line, since, until, limit)
        at = _next_of_line(line, at)
    return tuple(slots[-limit:])


def _latest_slots(line: _Line, since: Wall, until: Wall, limit: int) -> tuple[Wall, ...]:
    first, day = _local(line, since).date() - DAY, _local(line, until).date() + DAY
    found: set[Wall] = set()
    while day >= first and len(found) < limit + DAY_SLOTS_MAX:  # a day more than asked for: neighbouring days can interleave
        if day.month not in line.months:
            day = day.replace(day=1) - DAY
            continue
        if _matches(line, day):
            found.update(slot for slot in _slots_of_day(line, day) if since < slot <= until)
        day -= DAY
    return tuple(sorted(found)[-limit:])


def _local(line: _Line, at: Wall) -> datetime:
    """*at* on the wall clock of the line's zone; kept off both ends of the calendar, where a zone's offset would leave it."""
    bounded = min(max(at, datetime(2, 1, 1, tzinfo=UTC)), datetime(LAST_YEAR, 12, 30, tzinfo=UTC))
    return bounded.astimezone(line.zone)


def _days(line: _Line, day: date, last_year: int) -> Iterator[date]:
    """The matching days from *day* on."""
    while day.year <= last_year:
        if day.month not in line.months:
            day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
            continue
        if line.matcher.match_day(day):
            yield day
        day += DAY


def _matches(line: _Line, day: date) -> bool:
    return day.month in line.months and line.matcher.match_day(day)


def _moves(line: _Line, day: date) -> bool:
    """Whether the zone's clock moves on *day*, or at either of its midnights."""
    return len(_offsets(line, day)) > 1


def _offsets(line: _Line, day: date) -> set[timedelta]:
    """How far the zone is from UTC at the midnights around *day*; more than one figure when the clock moves."""
    edges = (datetime.combine(edge, time(fold=fold), line.zone) for edge in (day, day + DAY) for fold in (0, 1))
    return {_offset(edge) for edge in edges}


def _first_of_day(line: _Line, day: date, after: Wall) -> Wall | None:
    """The first slot of *day* that is after *after*. On an ordinary day without looking at all of them."""
    if _moves(line, day):
        return _first_of_moving_day(line, day, after)
    local = _local(line, after)
    named = _first_time(line, local.time() if local.date() == day else None) if local.date() <= day else None
    return None if named is None else datetime.combine(day, named, line.zone).astimezone(UTC)


def _first_of_moving_day(line: _Line, day: date, after: Wall) -> Wall | None:
    """As ``_first_of_day``, by looking at every slot of those hours that can hold it."""
    offsets = _offsets(line, day)
    best: Wall | None = None
    for hour in line.hours:
        shown = datetime.combine(day, time(hour), UTC)
        if shown + timedelta(hours=1) - min(offsets) <= after:
            continue
        if best is not None and shown - max(offsets) > best:
            break
        locals_ = (datetime.combine(day, time(hour, minute), line.zone) for minute in line.minutes)
        later = [slot for local in locals_ for slot in _on_moving_day(line, local) if slot > after]
        best = min([*later, best] if best is not None else later, default=None)
    return best


def _first_time(line: _Line, after: time | None) -> time | None:
    """The first named time of a day, strictly after *after* (None: from the start of the day)."""
    if after is None:
        return time(line.hours[0], line.minutes[0])
    place = bisect_left(line.hours, after.hour)
    if place < len(line.hours) and line.hours[place] == after.hour:
        minute = bisect_left(line.minutes, after.minute + 1)
        if minute < len(line.minutes):
            return time(after.hour, line.minutes[minute])
        place += 1
    return time(line.hours[place], line.minutes[0]) if place < len(line.hours) else None


def _slots_of_day(line: _Line, day: date) -> set[Wall]:
    """Every slot that belongs to *day* of the line's zone (at most 1,440, on a night with an overlap more)."""
    moves = _moves(line, day)
    found: set[Wall] = set()
    for hour in line.hours:
        for minute in line.minutes:
            local = datetime.combine(day, time(hour, minute), line.zone)
            if moves:
                found.update(_on_moving_day(line, local))
            else:
                found.add(local.astimezone(UTC))
    return found


def _on_moving_day(line: _Line, local: datetime) -> set[Wall]:
    """The instants at which the wall clock shows *local*: none in a gap, two in an overlap, bent by the rule for fixed times."""
    before, after = _offset(local), _offset(local.replace(fold=1))
    if before < after:  # PEP 495: only in a gap does the second reading lie further from UTC than the first
        return {_after_gap(local)} if line.fixed else set()
    first = local.astimezone(UTC)
    return {first} if line.fixed or before == after else {first, local.replace(fold=1).astimezone(UTC)}


def _after_gap(local: datetime) -> Wall:
    """The first whole minute after the gap that *local* lies in."""
    before = _offset(local)
    low, high = int((local.replace(fold=1).astimezone(UTC) - EPOCH) / MINUTE), int((local.astimezone(UTC) - EPOCH) / MINUTE)
    while low < high:  # low: still before the clock moved, or the minute of it; high: certainly after
        middle = (low + high) // 2
        if _offset((EPOCH + middle * MINUTE).astimezone(local.tzinfo)) == before:
            low = middle + 1
        else:
            high = middle
    return EPOCH + low * MINUTE


def _offset(local: datetime) -> timedelta:
    return local.utcoffset() or timedelta(0)
