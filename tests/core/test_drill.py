"""Drills: the stand-in has the job's own limits and route, and the first broken link is the result."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from playbook import job

from supervisor.core import drill
from supervisor.core.drill import Chain, Link, Plan, Refusal, Result, Seen, stand_in
from supervisor.core.jobs import AlertPolicy, Expect, Fault, Limits, Manual, RestartWhen
from supervisor.core.model import LimitName, Outcome

ARGV = ("python", "standin.py")
FULL = Limits(memory_bytes=300 * 2**20, recursion_frames=400, time_s=120.0, cpu_s=90.0, stall_s=30.0, processes=16)


def full(**rest):
    return job("nightly", every=60, limits=FULL, expect=Expect(success_every_s=600.0), **rest)


def test_a_stand_in_has_the_limits_and_the_route_of_its_job_and_nothing_that_could_disturb_it():
    base = full(alerts=AlertPolicy(to=("ops", "mail"), after=3, severity="warning"))
    base = replace(base, launch=replace(base.launch, user="metrics", nice=5, environment={"TOKEN": "secret"}))
    plan = stand_in(base, Fault.MEMORY, ARGV)
    assert isinstance(plan, Plan)
    made = plan.job
    assert made.name == "drill.nightly"
    assert made.limits == FULL
    assert made.launch.argv == ("python", "standin.py", "memory", str(300 * 2**20))
    assert (made.launch.user, made.launch.nice, made.launch.environment) == ("metrics", 5, {})
    assert (made.alerts.to, made.alerts.after, made.alerts.severity) == (("ops", "mail"), 1, "warning")
    assert (made.restart.when, made.schedule.when) == (RestartWhen.NEVER, Manual())
    assert plan.notes == ("alerts.after is 3: of the job itself only that many failures in a row are told",)


@pytest.mark.parametrize(
    ("fault", "outcome", "limit"),
    [
        (Fault.RECURSION, Outcome.RECURSION, LimitName.RECURSION),
        (Fault.MEMORY, Outcome.MEMORY, LimitName.MEMORY),
        (Fault.HANG, Outcome.STALLED, LimitName.STALL),  # stall is the shorter line
        (Fault.STALL, Outcome.STALLED, LimitName.STALL),
        (Fault.CRASH, Outcome.CRASHED, None),
        (Fault.EXIT, Outcome.FAILED, None),
        (Fault.SILENCE, Outcome.UNMET, None),
    ],
)
def test_each_fault_has_the_verdict_that_the_limits_must_give_it(fault, outcome, limit):
    plan = stand_in(full(), fault, ARGV)
    assert isinstance(plan, Plan)
    assert (plan.outcome, plan.limit) == (outcome, limit)


@pytest.mark.parametrize(
    ("limits", "fault", "limit"),
    [
        (replace(FULL, stall_s=None), Fault.HANG, LimitName.TIME),
        (replace(FULL, cpu_s=5.0), Fault.HANG, LimitName.STALL),  # who waits uses no CPU
        (replace(FULL, cpu_s=5.0), Fault.STALL, LimitName.CPU),
        (Limits(time_s=None), Fault.HANG, LimitName.TIME),
    ],
)
def test_the_line_that_is_crossed_first_is_the_one_expected(limits, fault, limit):
    plan = stand_in(replace(full(), limits=limits), fault, ARGV)
    assert isinstance(plan, Plan)
    assert plan.limit is limit


@pytest.mark.parametrize(
    ("base", "fault", "text"),
    [
        (full(alerts=AlertPolicy()), Fault.EXIT, "nightly has no receiver: nobody would be told"),
        (replace(full(), limits=replace(FULL, stall_s=None)), Fault.STALL, "nightly has no limits.stall: a job that goes round in circles is only ended by limits.time"),
        (replace(full(), expect=Expect()), Fault.SILENCE, "nightly has no expect.success_every: nobody would miss it"),
    ],
)  # fmt: skip
def test_a_fault_that_nobody_would_notice_is_refused_with_what_to_write(base, fault, text):
    refused = stand_in(base, fault, ARGV)
    assert isinstance(refused, Refusal)
    assert refused.text == text
    assert refused.mend.startswith("write ")


def test_long_lines_shrink_together_so_that_the_drill_ends_within_its_cap():
    plan = stand_in(replace(full(), limits=replace(FULL, time_s=7200.0, stall_s=600.0)), Fault.HANG, ARGV, cap_s=10.0)
    assert isinstance(plan, Plan)
    assert (plan.job.limits.time_s, plan.job.limits.stall_s, plan.limit, plan.patience_s) == (120.0, 10.0, LimitName.STALL, 10.0)
    assert plan.notes[0] == "limits.time 2h is lowered to 2m for the drill"


def test_silence_is_expected_no_longer_than_the_cap():
    plan = stand_in(full(), Fault.SILENCE, ARGV, cap_s=5.0)
    assert isinstance(plan, Plan)
    assert (plan.job.expect.success_every_s, plan.patience_s) == (5.0, 5.0)
    assert plan.notes == ("expect.success_every 10m is lowered to 5s for the drill",)


_seconds = st.none() | st.floats(0.5, 1e6)


@given(time=st.floats(0.5, 1e6), stall=_seconds, cpu=_seconds, cap=st.floats(1, 600), fault=st.sampled_from([Fault.HANG, Fault.STALL]))
def test_lowering_never_changes_which_line_strikes_first(time, stall, cpu, cap, fault):
    base = replace(full(), limits=Limits(time_s=time, stall_s=stall, cpu_s=cpu))
    plan, free = stand_in(base, fault, ARGV, cap_s=cap), stand_in(base, fault, ARGV, cap_s=1e9)
    if isinstance(plan, Refusal):
        assert free == plan
        return
    assert isinstance(free, Plan)
    assert plan.limit is free.limit
    assert plan.patience_s <= cap + 1e-6


@given(st.text(alphabet="abcXYZ019_.-", min_size=1, max_size=64))
def test_a_stand_ins_name_can_be_a_jobs_name_and_tells_what_it_is(name):
    made = drill.name_of(name)
    assert len(made) <= 64
    assert drill.is_stand_in(made)


def test_the_first_broken_link_is_the_result():
    good = Seen(Link.FAULT, True, 0.0, "it began")
    bad = Seen(Link.DELIVERED, False, None, "no answer from 127.0.0.1:9093", "ops")
    chain = Chain() | good | bad | Seen(Link.RESOLVED, False, None, "never sent", "ops")
    result = Result(3, "nightly", Fault.MEMORY, chain, done=True)
    assert (chain.broken, result.passed) == (bad, False)
    assert Result(3, "nightly", Fault.MEMORY, Chain() | good, done=True).passed
    assert not Result(3, "nightly", Fault.MEMORY, Chain() | good).passed
    assert drill.screen(result.as_json()) == (
        "drill 3: memory in place of nightly\n"
        "  holds     +0.000s  fault              it began\n"
        "  BROKEN             delivered ops      no answer from 127.0.0.1:9093\n"
        "  BROKEN             resolved ops       never sent\n"
        "The chain is broken at: delivered.\n"
    )


def test_another_verdict_than_expected_breaks_the_chain_and_says_which_was():
    plan = stand_in(full(), Fault.MEMORY, ARGV)
    assert isinstance(plan, Plan)
    assert drill.verdict_link(plan, Outcome.MEMORY, LimitName.MEMORY, "over its limit", 1.0).holds
    seen = drill.verdict_link(plan, Outcome.SIGNALLED, None, "killed by SIGKILL", 1.0)
    assert (seen.holds, seen.detail) == (False, "signalled: killed by SIGKILL; expected memory at limits.memory")
