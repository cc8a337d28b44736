"""Samples against limits: a case table, jobs that must never be hit, swallowed errors, and the rhythm of looks."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.evidence import Breach
from supervisor.core.jobs import Limits, OutputAction
from supervisor.core.limits import AT_THE_WALL, LOOK_MIN_S, OWN_LIMIT_FAILED, SWALLOWED, Sample, Watched, deadline, judge
from supervisor.core.model import LimitName, Mono

MIB = 2**20
NONE = Limits(memory_bytes=None, time_s=None)
START = Mono(100.0)


def sample(at=101.0, **values):
    return Sample(at=Mono(at), **values)


def look(limits, first, now=None, **options):
    return judge(limits, Watched(), first, START, Mono(first.at if now is None else now), **options)


def watch(limits, samples, **options):
    """Judge one after the other; stop at the first hard breach, as the poller does."""
    watched, judgement = Watched(), None
    for one in samples:
        judgement = judge(limits, watched, one, START, one.at, **options)
        watched = judgement.watched
        if judgement.hard:
            break
    return judgement


@pytest.mark.parametrize(
    ("limits", "seen", "expected"),
    [
        (Limits(memory_bytes=300 * MIB), sample(memory_bytes=300 * MIB + 1), Breach(LimitName.MEMORY, 300 * MIB + 1, 300 * MIB)),
        (Limits(memory_bytes=300 * MIB), sample(memory_bytes=300 * MIB), None),  # on the line is within it
        (NONE, sample(memory_bytes=2**50), None),
        (Limits(recursion_frames=400), sample(depth=401, recursion_limit=10**9), Breach(LimitName.RECURSION, 401, 400)),
        (Limits(recursion_frames=400), sample(depth=400, recursion_limit=10**9), None),
        (Limits(recursion_frames=400), sample(depth=401, recursion_limit=400), None),  # its RecursionError is on its way
        (Limits(recursion_frames=400), sample(depth=501, recursion_limit=400), Breach(LimitName.RECURSION, 501, 400)),
        (NONE, sample(depth=50_001, recursion_limit=10**9), Breach(LimitName.RECURSION, 50_001, 50_000)),
        (NONE, sample(depth=1_201, recursion_limit=1000), Breach(LimitName.RECURSION, 1_201, 1000, OWN_LIMIT_FAILED)),
        (NONE, sample(depth=1_050, recursion_limit=1000), None),  # while CPython makes the error
        (NONE, sample(depth=49_999), None),
        (Limits(cpu_s=90), sample(cpu_s=90.0), Breach(LimitName.CPU, 90.0, 90)),
        (Limits(processes=16), sample(processes=17), Breach(LimitName.PROCESSES, 17, 16)),
        (Limits(processes=16), sample(processes=16), None),
        (Limits(output_bytes=MIB), sample(output_bytes=MIB + 1), Breach(LimitName.OUTPUT, MIB + 1, MIB)),
        (Limits(output_bytes=MIB, output_action=OutputAction.DROP), sample(output_bytes=9 * MIB), None),
        (Limits(time_s=120), sample(at=220.0), Breach(LimitName.TIME, 120.0, 120)),
        (Limits(time_s=120), sample(at=219.9), None),
        (Limits(stall_s=30), sample(at=130.0), Breach(LimitName.STALL, 30.0, 30)),
    ],
)
def test_a_line_is_crossed_or_it_is_not(limits, seen, expected):
    assert look(limits, seen).hard == expected


def test_an_armed_rlimit_gets_five_percent_to_do_its_work():
    limits = Limits(memory_bytes=100 * MIB)
    assert look(limits, sample(memory_bytes=104 * MIB), armed=True).hard is None
    assert look(limits, sample(memory_bytes=106 * MIB), armed=True).hard == Breach(LimitName.MEMORY, 106 * MIB, 100 * MIB)


@pytest.mark.parametrize(
    ("memory", "shared", "killed"),
    [
        (103, 10, False),  # private growth: the MemoryError is on its way
        (103, 33, True),  # all of it is shared
        (101, 13, False),
        (103, 13, True),  # 3 MiB of shared growth leave 2 of the 5 MiB that are waited for
    ],
)
def test_shared_pages_are_not_waited_for_because_no_rlimit_counts_them(memory, shared, killed):
    limits = Limits(memory_bytes=100 * MIB)
    soft = look(limits, sample(memory_bytes=80 * MIB, shared_bytes=10 * MIB)).watched
    later = sample(memory_bytes=memory * MIB, shared_bytes=shared * MIB)
    assert (judge(limits, soft, later, START, later.at, armed=True).hard is not None) is killed


@pytest.mark.parametrize(
    ("limits", "line"),
    [(Limits(memory_bytes=400 * MIB), 300 * MIB), (Limits(memory_bytes=400 * MIB, memory_soft_bytes=200 * MIB), 200 * MIB)],
)
def test_the_soft_line_is_told_once_and_never_kills(limits, line):
    first = look(limits, sample(101.0, memory_bytes=line + 1))
    assert first.breaches == (Breach(LimitName.MEMORY_SOFT, line + 1, line),)
    assert first.hard is None
    again = judge(limits, first.watched, sample(102.0, memory_bytes=line + 2), START, Mono(102.0))
    assert again.breaches == ()


def test_of_several_lines_the_cause_names_the_kill():
    limits = Limits(memory_bytes=MIB, recursion_frames=400, time_s=1, processes=1)
    judged = look(limits, sample(200.0, memory_bytes=9 * MIB, depth=9000, recursion_limit=10**6, processes=2))
    assert judged.hard.limit is LimitName.RECURSION
    assert {breach.limit for breach in judged.breaches} == {
        LimitName.RECURSION, LimitName.MEMORY, LimitName.MEMORY_SOFT, LimitName.TIME, LimitName.PROCESSES,
    }  # fmt: skip


def test_time_is_judged_now_and_not_when_the_sample_was_taken():
    assert look(Limits(time_s=120), sample(at=101.0), now=220.0).hard == Breach(LimitName.TIME, 120.0, 120)


def stands(full=99, cpu_per_s=1.0, system=0.85, errors_per_s=0, seconds=4, **more):
    """A job that stands at the wall, looked at ten times a second."""
    return [
        sample(
            101 + n / 10, memory_bytes=full * MIB, cpu_s=cpu_per_s * n / 10, system_s=system * cpu_per_s * n / 10,
            memory_errors=errors_per_s * n // 10, at_wall=True, **more,
        )
        for n in range(10 * seconds)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "armed", "killed"),
    [
        (stands(), True, True),  # asyncio that catches MemoryErrors for ever
        (stands(cpu_per_s=0.15), True, True),  # the same on a busy machine
        (stands(system=0.05, errors_per_s=300), True, True),  # Python code that catches them, by the guard's count
        (stands(), False, False),
        (stands(system=0.05), True, False),  # it computes with what it has got
        (stands(cpu_per_s=0.001), True, False),  # it waits
        (stands(full=97), True, False),
        (stands(seconds=2), True, False),
        ([one if n % 15 else sample(one.at, memory_bytes=90 * MIB) for n, one in enumerate(stands())], True, False),  # it makes room
    ],
)
def test_a_job_that_only_asks_for_memory_which_it_does_not_get_is_ended(seen, armed, killed):
    hard = watch(Limits(memory_bytes=100 * MIB), seen, armed=armed).hard
    assert hard == (Breach(LimitName.MEMORY, 99 * MIB, 100 * MIB, AT_THE_WALL) if killed else None)


def test_a_job_at_the_wall_that_gets_on_is_left_alone_and_found_when_it_no_longer_does():
    limits = Limits(memory_bytes=100 * MIB)
    works = [sample(one.at, memory_bytes=99 * MIB, cpu_s=one.cpu_s, system_s=one.system_s, at_wall=True, progress_token=n // 10)
             for n, one in enumerate(stands())]  # fmt: skip
    assert watch(limits, works, armed=True).hard is None
    computes_first = [
        sample(101 + n / 10, memory_bytes=99 * MIB, cpu_s=n / 10, system_s=max(0, n - 1000) / 10, at_wall=True) for n in range(1100)
    ]
    assert 1000 < (watch(limits, computes_first, armed=True).watched.last.at - 101) * 10 < 1050


@pytest.mark.parametrize(
    ("depths", "share"),
    [
        (range(1000, 13_000, 1000), 1.0),  # each level brings its data
        ([1500] * 12, 0.0),  # deep, and it stays there while the data grows
        ([10, 1500] * 6, 6 / 11),  # one that comes and goes: six times deeper, and five times less deep
        ([*range(1000, 9000, 1000), 9, 9, 9, 9], 7 / 11),  # it came back, and went on growing
        ([1000, 2000, 3000, 4000], 0.0),  # too few looks to say
    ],
)
def test_what_grows_with_the_stack_is_told_from_what_grows_beside_it(depths, share):
    seen = [sample(101 + n / 10, depth=depth, memory_bytes=(10 + n) * MIB) for n, depth in enumerate(depths)]
    found = watch(Limits(memory_bytes=None, recursion_frames=10**9, time_s=None), seen).watched.stack_share
    assert found == pytest.approx(share)


def test_the_step_that_ends_at_the_wall_says_nothing():
    """It was deeper on the way, and is coming out of it when the look comes."""
    seen = [sample(101 + n / 10, depth=1000 * n, memory_bytes=(10 + 10 * n) * MIB) for n in range(7)]
    seen.append(sample(102.0, depth=12, memory_bytes=99 * MIB, at_wall=True))
    assert watch(Limits(memory_bytes=100 * MIB, recursion_frames=10**9, time_s=None), seen, armed=True).watched.stack_share == 1.0


def test_memory_that_shrinks_on_the_way_is_no_growth():
    seen = [sample(101 + n / 10, depth=100 * n, memory_bytes=(n if n % 2 else n + 5) * MIB) for n in range(40)]
    seen += [sample(106 + n / 10, depth=9, memory_bytes=(20 + n % 2) * MIB) for n in range(40)]
    assert watch(Limits(memory_bytes=None, recursion_frames=10**9, time_s=None), seen).watched.stack_share == 1.0


# ---------------------------------------------------------------- progress


def test_progress_of_any_kind_puts_a_stall_off():
    limits = Limits(stall_s=30, time_s=None)
    judged = watch(limits, [sample(at, progress_token=("records", at // 25)) for at in range(101, 400, 10)])
    assert judged.hard is None
    stalled = watch(limits, [sample(at, progress_token=at if at < 200 else "stuck") for at in range(101, 400, 10)])
    assert stalled.hard == Breach(LimitName.STALL, 30.0, 30)
    assert stalled.watched.last.at == 231.0  # the last change was seen at 201


def test_a_supervisor_that_slept_sees_the_progress_before_it_judges():
    """After minutes of SIGSTOP the next sample says that the job went on; no spurious stall."""
    limits = Limits(stall_s=30, time_s=None)
    judged = watch(limits, [sample(101.0, progress_token=1), sample(500.0, progress_token=2)])
    assert judged.hard is None


# ---------------------------------------------------------------- recursion that never raises far


def test_a_job_that_recurses_to_nine_tenths_of_its_limit_all_the_time_is_never_hit():
    chance = random.Random(1)
    samples = [sample(101 + n * 0.02, depth=chance.randint(1, 900), recursion_limit=1000) for n in range(20_000)]
    judged = watch(NONE, samples)
    assert judged.hard is None
    assert judged.watched.swallowed_seen == 0


def test_a_quiet_stack_at_its_limit_without_an_error_is_never_hit():
    samples = [sample(101 + n * 0.05, depth=990, recursion_limit=1000) for n in range(2_000)]
    assert watch(NONE, samples).hard is None


def test_one_slow_recursion_error_is_nobodys_business():
    """Seen fifty times while it unwinds for 100 ms, then never again."""
    samples = [sample(101 + n * 0.002, depth=999 - n, recursion_limit=1000, recursion_error=True) for n in range(50)]
    samples += [sample(102 + n * 0.1, depth=10, recursion_limit=1000) for n in range(300)]
    assert watch(NONE, samples).hard is None


@pytest.mark.parametrize("pause_s", [0.002, 0.03, 0.15, 0.5])
def test_one_that_unwinds_half_a_million_levels_for_seconds_is_still_one(pause_s):
    """CPython 3.13, its limit raised, on a busy machine: it used to be ended as one that catches them again and again."""
    seen = [
        sample(101 + n * pause_s, depth=int(500_000 * (1 - n * pause_s / 4)), recursion_limit=10**8, recursion_error=n % 7 != 3)
        for n in range(int(4 / pause_s))
    ]
    seen += [sample(106 + n * 0.1, depth=10, recursion_limit=10**8) for n in range(100)]
    judged = watch(Limits(memory_bytes=None, recursion_frames=10**9, time_s=None), seen)
    assert judged.hard is None
    assert judged.watched.swallowed_seen == 1


def test_one_that_hangs_on_its_way_up_is_still_one_and_the_next_one_is_another():
    stands = [sample(101 + n * 0.2, depth=900, recursion_limit=10**8, recursion_error=True, cpu_s=1.0) for n in range(30)]
    assert watch(NONE, stands).watched.swallowed_seen == 1
    again = [
        sample(110 + n * 0.2, depth=800 if n % 2 else 950, recursion_limit=10**8, recursion_error=n % 2 == 1, cpu_s=n) for n in range(9)
    ]
    assert watch(NONE, [*stands[:3], *again]).watched.swallowed_seen == 5


def swallow_loop(chance, error_share, near_share):
    """A job that swallows, sampled in the rhythm that ``judge`` asks for; seconds until it is hit, or None after two minutes."""
    watched, at = Watched(), 101.0
    while at < 221.0:
        near = chance.random() < near_share
        one = sample(at, depth=990 if near else chance.randint(1, 970), recursion_limit=1000, recursion_error=chance.random() < error_share)
        judged = judge(NONE, watched, one, START, Mono(at), dmax=1.0)
        if judged.hard:
            assert judged.hard.limit is LimitName.RECURSION
            assert judged.hard.detail == SWALLOWED
            return at - 101.0
        watched = judged.watched
        at += judged.next_look_s
    return None


@pytest.mark.parametrize(
    ("error_share", "near_share", "within_s"),
    [
        (0.23, 0.02, 30),  # while 1: try f() except: pass
        (0.075, 1.0, 10),  # f(): try f() ... try f(): two to the thousandth calls
    ],
)
def test_recursion_errors_that_are_swallowed_for_ever_are_found(error_share, near_share, within_s):
    for seed in range(20):
        found = swallow_loop(random.Random(seed), error_share, near_share)
        assert found is not None
        assert found < within_s


def test_hits_outside_the_window_are_forgotten():
    samples = [sample(101 + n * 5, depth=995, recursion_limit=1000, recursion_error=True) for n in range(40)]
    judged = watch(NONE, samples)
    assert judged.hard is None
    assert judged.watched.swallowed_seen == 40


# ---------------------------------------------------------------- the rhythm

limit_values = st.builds(
    Limits,
    memory_bytes=st.one_of(st.none(), st.integers(MIB, 2**40)),
    recursion_frames=st.one_of(st.none(), st.integers(50, 10**6)),
    time_s=st.one_of(st.none(), st.floats(0.1, 1e6)),
    cpu_s=st.one_of(st.none(), st.floats(0.1, 1e6)),
    stall_s=st.one_of(st.none(), st.floats(0.1, 1e5)),
    processes=st.one_of(st.none(), st.integers(1, 1000)),
    output_bytes=st.one_of(st.none(), st.integers(1, 2**40)),
)
sample_values = st.builds(
    dict,
    memory_bytes=st.integers(0, 2**41),
    processes=st.integers(0, 2000),
    depth=st.integers(0, 10**7),
    recursion_limit=st.one_of(st.none(), st.integers(1, 2**31 - 1)),
    recursion_error=st.booleans(),
    cpu_s=st.floats(0, 1e6),
    output_bytes=st.integers(0, 2**41),
    progress_token=st.integers(0, 3),
)


@given(
    limits=limit_values,
    steps=st.lists(st.tuples(st.floats(0, 1e4), sample_values), min_size=1, max_size=8),
    armed=st.booleans(),
    dmax=st.floats(0.002, 4),
)
def test_the_next_look_is_within_its_bounds_and_never_past_a_deadline(limits, steps, armed, dmax):
    watched, at = Watched(), float(START)
    for pause, values in steps:
        at += pause
        judged = judge(limits, watched, sample(at, **values), START, Mono(at), armed=armed, dmax=dmax, cores=2)
        watched = judged.watched
        assert 0 < judged.next_look_s <= dmax
        end = deadline(limits, watched, START)
        if end is not None and end > at:
            assert judged.next_look_s <= end - at
            assert judged.next_look_s >= min(LOOK_MIN_S, end - at)
        assert judged.hard is None or judged.hard in judged.breaches
        assert all(breach.limit is not LimitName.MEMORY_SOFT for breach in judged.breaches if breach == judged.hard)


@given(limits=limit_values, values=sample_values, at=st.floats(100, 1e6))
def test_without_a_crossed_line_there_is_no_breach(limits, values, at):
    judged = judge(limits, Watched(), sample(at, **values), START, Mono(at))
    for breach in judged.breaches:
        assert breach.measured >= breach.line


def test_growth_at_two_gigabytes_a_second_overshoots_by_megabytes_only():
    limits = Limits(memory_bytes=1024 * MIB, time_s=None)
    watched, at, looks = Watched(), 100.0, 0
    while True:
        one = sample(at, memory_bytes=int((at - 100.0) * 2e9))
        judged = judge(limits, watched, one, START, Mono(at), dmax=1.0)
        watched, looks = judged.watched, looks + 1
        if judged.hard:
            break
        at += judged.next_look_s
    assert judged.hard.measured - judged.hard.line < 5 * MIB
    assert looks < 100


def test_a_young_attempt_is_looked_at_often_until_its_growth_is_known():
    watched, at, pauses = Watched(), 100.0, []
    while at < 130.0:
        judged = judge(Limits(memory_bytes=2**40), watched, sample(at), START, Mono(at), dmax=4.0)
        watched, at = judged.watched, at + judged.next_look_s
        pauses.append(judged.next_look_s)
    assert pauses[0] == 0.01
    assert pauses == sorted(pauses)
    assert pauses[-1] == 4.0
    assert len(pauses) < 30


def test_idle_jobs_are_looked_at_as_seldom_as_the_caller_likes():
    idle = Limits(memory_bytes=4096 * MIB, cpu_s=3600, processes=1000, output_bytes=1024 * MIB)
    for depth, own in ((20, 1000), (0, None)):  # a Python job and another
        one = sample(200.0, memory_bytes=50 * MIB, depth=depth, recursion_limit=own)
        assert look(idle, one, dmax=4.0).next_look_s == 4.0


def test_the_next_look_is_no_later_than_the_nearest_deadline():
    for limits in (Limits(time_s=60), Limits(stall_s=60)):
        assert look(limits, sample(159.5), dmax=4.0).next_look_s == 0.5


def test_a_deadline_that_is_slept_through_to_the_bit_is_reached():
    """A fake clock that advances by exactly ``next_look_s`` must not turn on the spot."""
    limits, now, watched = Limits(time_s=0.3, stall_s=0.7), 1e6 + 0.1, Watched()
    for _ in range(1000):
        judged = judge(limits, watched, sample(now), Mono(1e6 + 0.1), Mono(now))
        if judged.hard:
            return
        watched, now = judged.watched, now + judged.next_look_s
    pytest.fail("the deadline was never reached")
