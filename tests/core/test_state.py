"""The one word for where a job is, what survives the brain, and when something is due."""

from datetime import timedelta

import pytest
from fakes import T0
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from playbook import job

from supervisor.core.model import Mono, Outcome, State, Trigger
from supervisor.core.state import EngineState, JobState, Last, LiveRun, Memo, StopReason

walls = st.datetimes(min_value=T0.replace(year=1971, tzinfo=None), max_value=T0.replace(year=2100, tzinfo=None)).map(
    lambda at: at.replace(tzinfo=T0.tzinfo)
)
monos = st.floats(min_value=0, max_value=1e9).map(Mono)
runs = st.builds(
    LiveRun,
    id=st.integers(1, 2**53),
    trigger=st.sampled_from(Trigger),
    slot=st.none() | walls,
    started_at=walls,
    phase=st.sampled_from([State.STARTING, State.RUNNING, State.STOPPING, State.BACKING_OFF]),
    attempt=st.integers(0, 99),
    attempt_at=monos,
    attempt_wall=st.none() | walls,
    pid=st.none() | st.integers(1, 2**22),
    deadline=st.none() | monos,
    stop=st.none() | st.sampled_from(StopReason),
    then_start=st.booleans(),
    killed=st.booleans(),
    cpu_s=st.floats(0, 1e6),
    begun_at=st.none() | monos,
)
memos = st.builds(
    Memo,
    configured_at=walls,
    boot_id=st.text(max_size=9),
    epoch=st.text(max_size=9),
    runs=st.lists(runs, max_size=3).map(tuple),
    paused=st.booleans(),
    paused_until=st.none() | walls,
    parked=st.none() | st.text(max_size=9),
    last_slot=st.none() | walls,
    lived=st.lists(st.tuples(walls, walls), max_size=3).map(tuple),
    backlog=st.lists(walls, max_size=3).map(tuple),
    restarts=st.lists(monos, max_size=3).map(tuple),
    failures_in_row=st.integers(0, 999),
    last=st.none()
    | st.builds(Last, st.integers(1, 9), st.sampled_from(Outcome), st.text(max_size=9), walls, st.floats(0, 1e9), st.integers(0, 9)),
    last_start_at=st.none() | walls,
    last_success_at=st.none() | walls,
    last_failure_at=st.none() | walls,
)


@given(memos)
def test_a_memo_comes_back_as_it_was(memo):
    assert Memo.decode(memo.encode()) == memo


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", '"x"', '{"configured_at": "yesterday"}', '{"configured_at": 5}', '{"paused": true}']
)
def test_what_is_no_memo_is_refused(text):
    with pytest.raises(ValueError):
        Memo.decode(text)


def test_a_memo_of_an_older_version_has_what_is_new_at_its_default_and_one_of_a_newer_is_read_as_far_as_known():
    memo = Memo.decode('{"configured_at": "2026-03-02T00:00:00Z", "last_slot": "2026-03-01T00:00:00Z", "not_yet_known": 7}')
    assert (memo.configured_at, memo.last_slot, memo.lived) == (T0, T0 - timedelta(days=1), ())


def run(phase: State, number: int = 1, **changes) -> LiveRun:
    return replace(LiveRun(number, Trigger.STARTUP, None, T0, phase, attempt=1), **changes)


@pytest.mark.parametrize(
    ("phases", "changes", "enabled", "word"),
    [
        ((), {}, True, State.IDLE),
        ((), {"paused": True}, True, State.PAUSED),
        ((), {"parked": "budget_spent"}, True, State.PARKED),
        ((), {"paused": True, "parked": "budget_spent"}, True, State.PARKED),  # a person is needed: louder than a pause
        ((), {"parked": "budget_spent"}, False, State.DISABLED),
        ((State.RUNNING,), {"paused": True}, True, State.RUNNING),  # what is goes before what is wanted
        ((State.STARTING,), {}, True, State.STARTING),
        ((State.BACKING_OFF,), {}, True, State.BACKING_OFF),
        ((State.BACKING_OFF, State.STARTING, State.RUNNING), {}, True, State.RUNNING),
        ((State.RUNNING, State.STOPPING), {}, False, State.STOPPING),
    ],
)
def test_a_job_is_in_one_state(phases, changes, enabled, word):
    found = tuple(run(phase, number) for number, phase in enumerate(phases, 1))
    state = JobState(job(enabled=enabled), replace(Memo(T0, runs=found), **changes))
    assert state.state is word


def test_a_run_is_put_in_place_of_its_former_self_and_taken_away():
    state = JobState(job(), Memo(T0)).with_run(run(State.STARTING)).with_run(run(State.STARTING, 2)).with_run(run(State.RUNNING))
    assert [(one.id, one.phase) for one in state.memo.runs] == [(1, State.RUNNING), (2, State.STARTING)]
    assert state.without_run(1).run(1) is None
    assert not EngineState({"job": state}).is_idle


def test_a_run_goes_by_the_config_that_was_kept_for_it():
    old, new = job(grace=1), job(grace=2)
    state = JobState(new, Memo(T0, runs=(run(State.RUNNING),)), kept={1: old})
    assert (state.job_of(1), state.job_of(2)) == (old, new)
    assert state.without_run(1).job_of(1) == new


def test_a_removed_job_and_a_closing_mainstay_wait_for_no_fire_time():
    state = JobState(job(every=60), Memo(T0, last_slot=T0))
    assert state.wall_deadline(closing=False) == T0 + timedelta(seconds=60)
    assert state.wall_deadline(closing=True) is None
    assert replace(state, removed=True).wall_deadline(closing=False) is None
