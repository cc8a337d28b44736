"""Looks before a line: when they are due, and that busy, slow and hanging are told apart by what was seen."""

import pytest
from msgspec.structs import replace

from supervisor.core import study
from supervisor.core.evidence import BusyLine, Frame, Pace
from supervisor.core.jobs import Limits
from supervisor.core.limits import Sample, Watched
from supervisor.core.model import LimitName, Mono
from supervisor.core.study import Glimpse, Spot

T0 = Mono(1000.0)
JOB, OTHER, LIBRARY = Frame("load", "/srv/job.py", 57), Frame("parse", "/srv/job.py", 31), Frame("get", "/usr/lib/python3.12/queue.py", 171)


def spot(what="running", *, ticks=0, switches=0, frames=(JOB,), place=(1, 10), may_stand=False, thread=7, exception=None):
    return Spot(1, thread, what, ticks, switches, frames, place, may_stand, exception)


def looks(*spots, step_s=0.2, memory=0):
    return tuple(
        Glimpse(Mono(T0 + i * step_s), memory, each if isinstance(each, tuple) and not hasattr(each, "pid") else (each,))
        for i, each in enumerate(spots)
    )


def said(*spots, limits=Limits(), struck=LimitName.TIME, **more):  # noqa: B008
    found = study.summarize(looks(*spots, **more), limits, struck)
    assert found is not None
    return found


# ---------------------------------------------------------------- when


def test_a_time_limit_is_studied_in_its_last_seconds_only():
    limits = Limits(time_s=3600.0)
    first = study.next_at(limits, Watched(), T0, None)
    assert first == pytest.approx(T0 + 3600 - study.LEAD_S)
    second = study.next_at(limits, Watched(), T0, Mono(first))
    assert second == pytest.approx(first + study.LEAD_S / study.LOOKS)
    assert not study.is_due(limits, Watched(), T0, Mono(T0 + 3000), None, ())
    assert study.is_due(limits, Watched(), T0, Mono(first), None, ())


def test_of_a_short_limit_the_later_half_is_studied():
    assert study.next_at(Limits(time_s=1.0), Watched(), T0, None) == pytest.approx(T0 + 0.5)


def test_progress_puts_the_study_of_a_stall_off():
    limits = Limits(time_s=None, stall_s=30.0)
    got_on = replace(Watched(), progress_at=Mono(T0 + 20))
    assert study.next_at(limits, got_on, T0, Mono(T0 + 10)) == pytest.approx(T0 + 50 - study.LEAD_S)


def test_without_a_line_nothing_is_ever_studied():
    limits = Limits(memory_bytes=None, time_s=None)
    watched = replace(Watched(), last=Sample(T0, memory_bytes=10**12, cpu_s=10**6))
    assert study.next_at(limits, watched, T0, None) is None
    assert not study.is_due(limits, watched, T0, Mono(T0 + 10**6), None, ())


def test_cpu_time_is_studied_when_its_limit_is_near():
    limits = Limits(time_s=None, memory_bytes=None, cpu_s=90.0)
    early, late = (replace(Watched(), last=Sample(T0, cpu_s=cpu)) for cpu in (80.0, 88.0))
    assert not study.is_due(limits, early, T0, T0, None, ())
    assert study.is_due(limits, late, T0, T0, None, ())
    assert study.cpu_look_s(limits, early, 2) == pytest.approx((90 - study.LEAD_S - 80) / 2)


@pytest.mark.parametrize("cpu_s", [0.0, 87.5, 88.0, 89.0])
@pytest.mark.parametrize("soft_told", [False, True])
@pytest.mark.parametrize("last", [None, Mono(T0 + 100)])
def test_no_look_is_due_while_a_quiet_tree_may_be_passed_over(cpu_s, soft_told, last):
    limits = Limits(cpu_s=90.0, time_s=600.0, stall_s=120.0)
    watched = replace(Watched(), last=Sample(T0, cpu_s=cpu_s, memory_bytes=500 * 2**20), soft_told=soft_told)
    rests_until = study.rests_until(limits, watched, T0, last)
    for at in range(0, 700, 5):
        now = Mono(T0 + at)
        if now < rests_until:
            assert not study.is_due(limits, watched, T0, now, last, ())
            assert now < T0 + 120.0
    assert (rests_until > T0) == (cpu_s < 87.6 and not soft_told)


def test_memory_is_studied_above_its_soft_line_while_it_grows_and_not_for_ever():
    limits = Limits(memory_bytes=100_000_000, time_s=None)
    watched = replace(Watched(), last=Sample(T0, memory_bytes=80_000_000), soft_told=True)
    assert study.is_due(limits, watched, T0, T0, None, ())
    taken = looks(spot(), memory=80_000_000)
    assert not study.is_due(limits, watched, T0, Mono(T0 + 1), T0, taken)
    more = replace(watched, last=Sample(T0, memory_bytes=81_500_000))
    assert study.is_due(limits, more, T0, Mono(T0 + 1), T0, taken)
    assert not study.is_due(limits, more, T0, Mono(T0 + 1), T0, taken * study.GROWTH_LOOKS)
    assert not study.is_due(limits, replace(more, soft_told=False), T0, Mono(T0 + 1), None, ())


# ---------------------------------------------------------------- what they say


def test_nothing_seen_says_nothing():
    assert study.summarize((), Limits(), None) is None


def test_nothing_that_moves_is_a_hang():
    found = said(*[spot("waiting for a lock", ticks=5, switches=9)] * 12)
    assert (found.pace, found.looks, found.busy, found.cpu_share) == (Pace.HANGING, 12, (), 0.0)
    assert found.span_s == pytest.approx(2.2)


def test_waking_up_now_and_then_is_slow():
    assert said(*(spot("sleeping", switches=n) for n in range(12))).pace is Pace.SLOW


def test_running_is_busy_and_names_the_lines_it_goes_round():
    frames = [(JOB,), (JOB,), (OTHER, JOB), (JOB,)] * 3
    found = said(*(spot(frames=each, ticks=20 * i, place=(1, i)) for i, each in enumerate(frames)))
    assert found.pace is Pace.BUSY
    assert found.cpu_share == pytest.approx(1.0)
    assert found.busy == (BusyLine(JOB, 9, 12), BusyLine(OTHER, 3, 12))


def test_a_busy_thread_beside_waiting_ones_is_busy_and_theirs_are_no_busy_lines():
    pairs = [(spot(ticks=20 * i, place=(1, i)), spot("waiting for a lock", thread=8, frames=(OTHER,))) for i in range(8)]
    found = said(*pairs)
    assert (found.pace, [line.frame for line in found.busy]) == (Pace.BUSY, [JOB])


def test_a_line_of_the_application_is_named_not_one_of_the_library():
    assert said(*(spot(frames=(LIBRARY, JOB), ticks=20 * i, place=(1, i)) for i in range(8))).busy[0].frame == JOB


def test_the_same_instruction_in_every_look_is_a_call_into_c_unless_it_is_a_jump():
    assert said(*(spot(ticks=20 * i, may_stand=True) for i in range(12))).busy[0].in_c
    assert not said(*(spot(ticks=20 * i, may_stand=False) for i in range(12))).busy[0].in_c
    assert not said(*(spot(ticks=20 * i, may_stand=True, place=(1, i % 3)) for i in range(12))).busy[0].in_c
    assert not said(spot(may_stand=True), spot(ticks=20, may_stand=True)).busy[0].in_c  # two looks prove nothing


def test_a_hang_that_began_amid_the_looks_is_one():
    found = said(*(spot(ticks=20 * i, place=(1, i)) for i in range(5)), *[spot("waiting for a lock", ticks=80)] * 8)
    assert (found.pace, found.looks) == (Pace.HANGING, 7)


def test_memory_near_its_limit_and_errors_on_their_way_are_counted():
    limits = Limits(memory_bytes=1000)
    spots = [spot(ticks=20 * i, exception="MemoryError" if i % 2 else None) for i in range(8)]
    found = said(*spots, limits=limits, memory=950)
    assert (found.at_limit, found.memory_errors, found.growing) == (8, 4, False)
    assert said(*spots, limits=limits, memory=950, struck=LimitName.MEMORY).growing
    assert study.summarize(looks(*spots, memory=950), limits, None).growing  # it ended by itself, of a MemoryError say


def test_old_looks_are_dropped_but_not_those_of_growing_memory():
    taken = looks(*[spot()] * 60)
    assert len(study.lasting(taken, Mono(T0 + 12), is_growing=False)) <= study.LOOKS + 1
    assert len(study.lasting(taken, Mono(T0 + 12), is_growing=True)) == study.GROWTH_LOOKS
    assert study.lasting(taken[:5], Mono(T0 + 100), is_growing=False) == ()
