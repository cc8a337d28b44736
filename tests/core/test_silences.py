"""When nobody is to be alerted: silences of operators, and maintenance windows over nights when the clock changes."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.jobs import Cron, Every, Job, Launch, Window
from supervisor.core.silences import SILENCES_MAX, Silence, added, expired, quiet, standing, window_end

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SUNDAY = Window("patching", Cron("0 3 * * 0", "Europe/Berlin"), 7200.0)


def job(*windows):
    return Job("nightly", Launch(("true",), "/"), maintenance=windows)


def at(minutes):
    return T0 + timedelta(minutes=minutes)


def test_a_silence_holds_from_its_beginning_until_just_before_its_end():
    (silence,) = added((), T0, 3600, "the disk is being changed")
    assert silence == Silence(1, T0, at(60), "the disk is being changed")
    assert quiet(job(), (silence,), at(-1)) is None
    found = quiet(job(), (silence,), T0)
    assert (found.until, found.why) == (at(60), "silenced by an operator: the disk is being changed")
    assert quiet(job(), (silence,), at(60)) is None


def test_of_several_silences_the_longest_counts_and_expiring_ends_all():
    both = added(added((), T0, 3600, ""), T0, 7200, "longer")
    assert quiet(job(), both, T0).until == at(120)
    gone = expired(both, at(10))
    assert quiet(job(), gone, at(10)) is None
    assert standing(gone, at(10)) == ()


def test_what_an_operator_writes_cannot_break_a_line():
    assert added((), T0, 60, "a\nb\x1b[31m")[0].comment == "a\\nb\\x1b[31m"


def test_a_silence_is_bounded_in_number_and_length():
    many = ()
    for _ in range(SILENCES_MAX):
        many = added(many, T0, 60, "")
    with pytest.raises(ValueError, match="expire them first"):
        added(many, T0, 60, "")
    assert len(added(many, at(2), 60, "")) == 1, "those that are over are forgotten"
    with pytest.raises(ValueError, match="at most 366 days"):
        added((), T0, 367 * 86400.0, "")


def test_a_window_is_open_from_its_fire_time_for_its_length():
    opens = datetime(2026, 2, 1, 2, 0, tzinfo=UTC)  # 03:00 in Berlin
    assert window_end(SUNDAY, opens - timedelta(seconds=1)) is None
    assert window_end(SUNDAY, opens) == opens + timedelta(hours=2)
    assert window_end(SUNDAY, opens + timedelta(hours=2)) is None
    assert quiet(job(SUNDAY), (), opens).why == "maintenance window patching"


@pytest.mark.parametrize(("day", "opens"), [("2026-03-29", "01:00"), ("2026-10-25", "02:00")])
def test_a_window_lasts_its_length_on_nights_when_the_clock_changes(day, opens):
    start = datetime.fromisoformat(f"{day}T{opens}+00:00")  # 03:00 in Berlin, after the change in spring and after the one in autumn
    assert window_end(SUNDAY, start - timedelta(minutes=1)) is None
    assert window_end(SUNDAY, start) == start + timedelta(hours=2)


def test_windows_that_overlap_are_one():
    every = Window("often", Every(3600.0), 5400.0)
    assert window_end(every, T0 + timedelta(minutes=20)) == T0 + timedelta(minutes=90)


@given(st.integers(60, 86400), st.integers(60, 86400), st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)))
def test_an_interval_window_is_open_exactly_where_arithmetic_says(every, length, naive):
    now = naive.replace(tzinfo=UTC, microsecond=0)
    since_start = int(now.timestamp()) % every
    end = window_end(Window("w", Every(float(every)), float(length)), now)
    assert (end is not None) == (since_start < length)
    if end is not None:
        assert end == now + timedelta(seconds=length - since_start)


def test_a_silence_of_no_time_is_refused_in_words_of_its_own():
    for none in (0.0, -1.0):
        with pytest.raises(ValueError, match="silences nobody; write how long"):
            added((), T0, none, "")
