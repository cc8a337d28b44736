"""Fire times: case tables, daylight saving against cronsim and against a walk over every minute, and properties."""

import time as stopwatch
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.jobs import CatchUp, Cron, Every, Manual, Schedule, Service
from supervisor.core.schedule import ALIASES, catch_up, missed, next_fire, problem, start_at

ZONES = (
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/Havana",  # moves at midnight: the day begins at 01:00
    "America/St_Johns",  # until 2011 it moved at 00:01, back over midnight
    "Australia/Lord_Howe",  # moves by half an hour
    "Asia/Kathmandu",  # 05:45 and no daylight saving
    "Africa/Cairo",  # moves at midnight on a Friday
    "Pacific/Apia",  # left out 30 December 2011
)


def wall(text):
    return datetime.fromisoformat(text).astimezone(UTC)


def cron(expression, zone="UTC", **options):
    return Schedule(when=Cron(expression, zone), **options)


def fires(schedule, after, until):
    found = []
    while (at := next_fire(schedule, "job", found[-1] if found else after)) is not None and at < until:
        found.append(at)
        assert len(found) < 100_000
    return found


def local(slots, zone):
    return [slot.astimezone(ZoneInfo(zone)).strftime("%d %H:%M%z") for slot in slots]


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        (Schedule(when=Every(60)), "2026-03-01T12:00:00Z", "2026-03-01T12:01:00Z"),  # on the slot: the next one
        (Schedule(when=Every(60)), "2026-03-01T12:00:00.000001Z", "2026-03-01T12:01:00Z"),
        (Schedule(when=Every(7 * 86400)), "2026-03-01T12:00:00Z", "2026-03-05T00:00:00Z"),  # the epoch was a Thursday
        (Schedule(when=Every(0.5)), "2026-03-01T12:00:00.25Z", "2026-03-01T12:00:00.5Z"),
        (Schedule(when=Every(3600)), "1969-12-31T22:30:00Z", "1969-12-31T23:00:00Z"),  # a clock before the epoch
        (cron("*/5 * * * *"), "2026-03-01T12:00:00Z", "2026-03-01T12:05:00Z"),
        (cron("@hourly"), "2026-03-01T12:00:01Z", "2026-03-01T13:00:00Z"),
        (cron("@daily", "Europe/London"), "2026-07-01T00:00:00Z", "2026-07-01T23:00:00Z"),  # summer: midnight is 23:00 UTC
        (cron("0 0 29 2 *"), "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"),  # 2100 is no leap year
        (cron("0 12 * * 1#1"), "2026-03-03T00:00:00Z", "2026-04-06T12:00:00Z"),  # first Monday
        (cron("0 12 L * *"), "2026-02-01T00:00:00Z", "2026-02-28T12:00:00Z"),  # last of the month
        (Schedule(when=Manual()), "2026-03-01T12:00:00Z", None),
        (Schedule(when=Service()), "2026-03-01T12:00:00Z", None),
    ],
)
def test_the_next_fire_time_is_the_first_strictly_after(schedule, after, expected):
    assert next_fire(schedule, "job", wall(after)) == (expected and wall(expected))


@pytest.mark.parametrize(
    ("expression", "zone", "day", "expected"),
    [
        # The gap in spring: a fixed time runs once, in the first minute after it.
        ("30 2 * * *", "Europe/Berlin", "2026-03-29", ["29 03:00+0200"]),
        ("0,30 2,3 * * *", "Europe/Berlin", "2026-03-29", ["29 03:00+0200", "29 03:30+0200"]),
        # Whatever follows the clock has nothing to run in the gap.
        ("*/30 2 * * *", "Europe/Berlin", "2026-03-29", []),
        ("0 */2 * * *", "Europe/Berlin", "2026-03-29", [f"29 {h:02}:00+0{1 if h < 2 else 2}00" for h in range(0, 24, 2) if h != 2]),
        # The overlap in autumn: a fixed time runs in its first turn, the rest in both.
        ("30 2 * * *", "Europe/Berlin", "2026-10-25", ["25 02:30+0200"]),
        ("*/30 2 * * *", "Europe/Berlin", "2026-10-25", ["25 02:00+0200", "25 02:30+0200", "25 02:00+0100", "25 02:30+0100"]),
        # Half an hour, where cronsim itself loses three slots.
        ("*/10 5 * * *", "Australia/Lord_Howe", "2026-04-05", [f"05 05:{m:02}+1030" for m in range(0, 60, 10)]),
        ("*/10 5 * * *", "Australia/Lord_Howe", "2026-10-04", [f"04 05:{m:02}+1100" for m in range(0, 60, 10)]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-04", ["04 02:30+1100"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-05", ["05 01:45+1100"]),
        ("*/15 1 * * *", "Australia/Lord_Howe", "2026-04-05", ["05 01:00+1100", "05 01:15+1100", "05 01:30+1100", "05 01:45+1100", "05 01:30+1030", "05 01:45+1030"]),
        # A day that begins at 01:00.
        ("0 0 * * *", "America/Havana", "2026-03-08", ["08 01:00-0400"]),
        # A clock that moves back over midnight, from 00:01 to 23:01 of the day before: that night has two last hours.
        ("*/30 23 * * *", "America/St_Johns", "2010-11-06", ["06 23:00-0230", "06 23:30-0230", "06 23:30-0330"]),
        # A day that never was runs its fixed time in the first minute of the next.
        ("0 12 30 12 *", "Pacific/Apia", "2011-12-31", ["31 00:00+1400"]),
    ],
)  # fmt: skip
def test_on_a_night_when_the_clock_moves_the_stated_rule_holds(expression, zone, day, expected):
    start = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) - timedelta(seconds=1)
    found = [
        slot for slot in fires(cron(expression, zone), start, start + timedelta(hours=30)) if local([slot], zone)[0].startswith(day[-2:])
    ]
    assert local(found, zone) == expected


def minute_by_minute(expression, zone, start, end):
    """The rule once more, as slow and plain as can be: look at the clock on the wall in every minute there is.

    A fixed time runs in the first minute in which the clock shows it; one that is jumped over runs in the minute after the jump.
    """
    matcher = CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC))
    fixed = not any(field.startswith("*") for field in expression.split()[:2])

    def wanted(shown):
        return (
            shown.minute in matcher.minutes and shown.hour in matcher.hours and shown.month in matcher.months and matcher.match_day(shown)
        )

    found, seen = [], set()
    at = start - timedelta(days=1)
    before = (at - timedelta(minutes=1)).astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)
    while at <= end:
        shown = at.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)
        jumped = [before + timedelta(minutes=n) for n in range(1, int((shown - before).total_seconds() // 60))]
        due = wanted(shown) if not fixed else (wanted(shown) and shown not in seen) or any(wanted(minute) for minute in jumped)
        if due and start < at <= end:
            found.append(at)
        seen.add(shown)
        before = shown
        at += timedelta(minutes=1)
    return found


NIGHTS = (
    ("Europe/Berlin", "2026-03-29"), ("Europe/Berlin", "2026-10-25"),
    ("Australia/Lord_Howe", "2026-04-05"), ("Australia/Lord_Howe", "2026-10-04"),
    ("America/Havana", "2026-03-08"), ("America/Havana", "2026-11-01"),
    ("America/St_Johns", "2010-03-14"), ("America/St_Johns", "2010-11-07"),
    ("Africa/Cairo", "2026-04-24"), ("Africa/Cairo", "2026-10-30"),
    ("Pacific/Apia", "2011-12-30"),
)  # fmt: skip
LINES = (
    "*/7 * * * *", "30 2 * * *", "0,30 1,2,3 * * *", "15 0 * * *", "*/10 5 * * *", "0 * * * *", "5-50/15 */3 * * *",
    "59 23 * * *", "0 0 * * *", "*/30 23 * * *", "0-59/20 0-23 * * *", "*/20 1-3 * * 0",
)  # fmt: skip


@pytest.mark.parametrize(("zone", "day"), NIGHTS)
def test_every_line_agrees_with_a_walk_over_every_minute_of_the_night(zone, day):
    start = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) - timedelta(hours=4)
    end = start + timedelta(hours=34)
    for line in LINES:
        expected = minute_by_minute(line, zone, start, end)
        assert fires(cron(line, zone), start, end + timedelta(seconds=1)) == expected, line
        assert list(missed(cron(line, zone), "job", start, end, limit=5000)) == expected, line


@pytest.mark.parametrize("zone", ZONES)
def test_in_ten_years_no_slot_comes_twice_and_none_is_left_out(zone):
    start, end = wall("2020-01-01T00:00:00Z"), wall("2030-01-01T00:00:00Z")
    for line in ("30 2 * * 6,0", "0 0 1,15 * *", "45 23 * 3,10 0"):
        found = fires(cron(line, zone), start, end)
        assert all(a < b for a, b in pairwise(found))
        oracle = CronSim(line, start.astimezone(ZoneInfo(zone)))
        expected = []
        while (at := next(oracle).astimezone(UTC)) < end:
            expected.append(at)
        assert found == expected
        assert list(missed(cron(line, zone), "job", start, end - timedelta(seconds=1), limit=10_000)) == expected


@pytest.mark.parametrize("zone", [zone for zone in ZONES if zone != "Australia/Lord_Howe"])
def test_lines_that_follow_the_clock_agree_with_cronsim_over_a_year(zone):
    start, end = wall("2026-01-01T00:00:00Z"), wall("2027-01-01T00:00:00Z")
    for line in ("*/30 1-3 * 3-4,10-11 6,0", "17 * * * 0"):
        oracle = CronSim(line, start.astimezone(ZoneInfo(zone)))
        expected = []
        while (at := next(oracle).astimezone(UTC)) < end:
            expected.append(at)
        assert fires(cron(line, zone), start, end) == expected


instants = st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2099, 12, 31), timezones=st.just(UTC))
fields = st.tuples(
    st.sampled_from(["*", "0", "*/7", "30", "5,50", "10-20/3"]),
    st.sampled_from(["*", "2", "*/5", "0-3", "23", "1,2"]),
    st.sampled_from(["*", "1", "L", "29", "13", "*/9"]),
    st.sampled_from(["*", "2", "3,10", "JAN-JUN"]),
    st.sampled_from(["*", "0", "MON", "5#2", "1-5"]),
).map(" ".join)
timed = st.one_of(
    st.builds(Every, st.floats(min_value=0.001, max_value=1e7)),
    st.builds(Cron, st.one_of(fields, st.sampled_from(sorted(ALIASES))), st.sampled_from(ZONES)),
).map(lambda when: Schedule(when=when))


@settings(max_examples=100, deadline=None)
@given(schedule=timed, after=instants, step=st.integers(min_value=0, max_value=10**6))
def test_the_next_fire_time_is_after_now_and_nothing_lies_between(schedule, after, step):
    if problem(schedule) is not None:
        return
    at = next_fire(schedule, "job", after)
    if at is None:
        return
    assert at > after
    assert at.tzinfo is UTC
    # Asking from anywhere before it gives the same slot: what a jump of the clock within the pause cannot change.
    between = after + (at - after) * (step / 10**6)
    if between < at:
        assert next_fire(schedule, "job", between) == at
    assert missed(schedule, "job", after, at) == (at,)
    assert missed(schedule, "job", after, at - timedelta(microseconds=1)) == ()


@settings(max_examples=100, deadline=None)
@given(schedule=timed, history=st.lists(st.floats(min_value=-90_000, max_value=90_000), max_size=12), start=instants)
def test_a_jumping_clock_runs_no_slot_twice_and_skips_none_between_first_and_last(schedule, history, start):
    if problem(schedule) is not None or (isinstance(schedule.when, Every) and schedule.when.every_s < 30):
        return
    done_until, seen, clock = start, [], start
    for jump_s in history:
        clock += timedelta(seconds=jump_s)
        due = missed(schedule, "job", done_until, clock, limit=100_000)
        seen.extend(due)
        done_until = max(done_until, clock)
    assert len(seen) == len(set(seen))
    assert tuple(seen) == missed(schedule, "job", start, done_until, limit=10**6)


def test_of_too_many_missed_slots_the_latest_are_kept():
    since, until = wall("2026-01-01T00:00:00Z"), wall("2026-06-01T00:00:00Z")
    for schedule in (Schedule(when=Every(60)), cron("* * * * *", "Europe/Berlin")):
        slots = missed(schedule, "job", since, until, limit=1000)
        assert len(slots) == 1000
        assert slots[-1] == until
        assert slots[0] == until - timedelta(minutes=999)


def test_a_clock_that_went_backwards_has_missed_nothing():
    assert missed(Schedule(when=Every(60)), "job", wall("2026-01-02T00:00:00Z"), wall("2026-01-01T00:00:00Z")) == ()


SLOTS = tuple(wall(f"2026-03-01T{hour:02}:00:00Z") for hour in range(6))
NOW = wall("2026-03-01T05:30:00Z")


@pytest.mark.parametrize(
    ("policy", "within_s", "run"),
    [
        (CatchUp.NONE, None, ()),
        (CatchUp.LAST, None, SLOTS[-1:]),
        (CatchUp.ALL, None, SLOTS),
        (CatchUp.ALL, 2 * 3600, SLOTS[4:]),  # 03:30 is the oldest that still counts
        (CatchUp.LAST, 60, ()),  # even the last is too old
        (CatchUp.ALL, 1800, SLOTS[-1:]),  # just within
    ],
)
def test_missed_slots_are_caught_up_by_policy_and_none_gets_lost(policy, within_s, run):
    schedule = Schedule(when=Every(3600), catch_up=policy, within_s=within_s)
    chosen, skipped = catch_up(schedule, tuple(reversed(SLOTS)), NOW)
    assert chosen == run
    assert skipped == tuple(slot for slot in SLOTS if slot not in run)


@given(job=st.text(max_size=20), jitter_s=st.floats(min_value=0, max_value=1e5), at=instants)
def test_jitter_delays_the_start_within_its_bound_and_the_same_each_time(job, jitter_s, at):
    schedule = Schedule(when=Every(60), jitter_s=jitter_s)
    start = start_at(schedule, job, at)
    assert start == start_at(schedule, job, at)
    assert timedelta(0) <= start - at <= timedelta(seconds=jitter_s)


def test_jitter_spreads_jobs_over_the_whole_of_it():
    starts = [start_at(Schedule(when=Every(60), jitter_s=60), f"job-{n}", SLOTS[0]) - SLOTS[0] for n in range(500)]
    counts = [sum(1 for start in starts if lower <= start.total_seconds() < lower + 10) for lower in range(0, 60, 10)]
    assert min(counts) > 40


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (cron("0 0 31 2 *"), '"0 0 31 2 *" can never fire or is not a cron expression: bad day-of-month'),
        (cron("*/0 * * * *"), '"*/0 * * * *" can never fire or is not a cron expression: bad minute'),
        (cron("* * * * * *"), '"* * * * * *" has 6 fields; write five: minute hour day-of-month month day-of-week'),
        (cron("@reboot"), '"@reboot" is not a known name; write one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually'),
        (cron("0 0 * * *", "Europe/Londn"), '"Europe/Londn" is not a known time zone; write a name such as Europe/London'),
        (cron("0 0 * * *", "../../etc/passwd"), '"../../etc/passwd" is not a known time zone; write a name such as Europe/London'),
        (cron("0 0 * * *", "Europe"), '"Europe" is not a known time zone; write a name such as Europe/London'),
        (Schedule(when=Every(0)), "0 s is not an interval; write a duration above zero, e.g. 5m"),
        (cron("@Daily", "Europe/London"), None),
        (Schedule(when=Every(1)), None),
    ],
)
def test_a_schedule_that_cannot_work_is_refused_in_words(schedule, text):
    assert problem(schedule) == text


def test_rare_expressions_are_answered_at_once():
    for line in ("0 0 29 2 1#5", "0 0 29 2 *", "59 23 31 12 *", "0 0 13 * 5", "0 0 29 FEB MON#5"):
        for zone in ZONES:
            began = stopwatch.process_time()
            next_fire(cron(line, zone), "job", wall("2097-01-01T00:00:00Z"))
            assert stopwatch.process_time() - began < 1.0  # 0.1 s is the goal; the machine may be busy


junk = st.lists(st.text(alphabet="0123456789*/,-#LW@?MONFEB ", min_size=1, max_size=8), min_size=1, max_size=6).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(expression=junk, after=instants)
def test_any_text_is_refused_or_answered(expression, after):
    schedule = cron(expression, "Australia/Lord_Howe")
    if problem(schedule) is None:
        at = next_fire(schedule, "job", after)
        assert at is None or at > after


def test_the_end_of_the_calendar_is_the_end_of_fire_times():
    end = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert next_fire(Schedule(when=Every(60)), "job", end) is None
    assert next_fire(cron("* * * * *", "Pacific/Apia"), "job", end) is None


def test_cronsim_still_loses_slots_where_the_clock_moves_by_half_an_hour():
    """The reason why this module places the hours itself; when this fails, cronsim has been mended and may do it."""
    oracle = CronSim("*/10 5 * * *", wall("2024-04-06T12:00:00+11:00").astimezone(ZoneInfo("Australia/Lord_Howe")))
    assert next(oracle).strftime("%H:%M") == "05:30"


def test_an_impossible_expression_raises_only_what_is_named():
    with pytest.raises(ValueError, match="can never fire"):
        next_fire(cron("0 0 30 2 *"), "job", NOW)
