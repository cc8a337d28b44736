"""What follows an attempt: a case table, and the budget as a property."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.jobs import Backoff, Budget, RestartPolicy, RestartWhen
from supervisor.core.model import Mono, Outcome
from supervisor.core.restart import (
    HOST_WIDE,
    Done,
    DoneReason,
    Park,
    ParkReason,
    Restart,
    backoff_s,
    counts,
    decide,
    follows_at_once,
)

STEADY = Backoff(first_s=1, factor=2, max_s=300, jitter=0)
ON_FAILURE = RestartPolicy(backoff=STEADY)
ALWAYS = RestartPolicy(when=RestartWhen.ALWAYS, backoff=STEADY)
NEVER = RestartPolicy(when=RestartWhen.NEVER, backoff=STEADY)
RETRY_MEMORY = RestartPolicy(backoff=STEADY, retry_on=frozenset({Outcome.MEMORY}))
PARK_RECURSION = RestartPolicy(when=RestartWhen.NEVER, backoff=STEADY, park_on=frozenset({Outcome.RECURSION}))
SPENT = tuple(Mono(float(at)) for at in (10, 20, 30, 40, 50))


def follow(policy: RestartPolicy, outcome: Outcome, restarts: Sequence[Mono] = (), failures: int = 1, now: float = 600.0):
    return decide(policy, "job", outcome, restarts, 1, Mono(now), failures_in_row=failures)


@pytest.mark.parametrize(
    ("policy", "outcome", "restarts", "failures", "expected"),
    [
        (ON_FAILURE, Outcome.FAILED, (), 1, Restart(1.0, Outcome.FAILED)),
        (ON_FAILURE, Outcome.RECURSION, (), 3, Restart(4.0, Outcome.RECURSION)),  # third failure in a row
        (ON_FAILURE, Outcome.SUCCEEDED, (), 0, Done(DoneReason.SUCCEEDED)),
        (ON_FAILURE, Outcome.STOPPED, (), 1, Done(DoneReason.STOPPED)),
        (ALWAYS, Outcome.STOPPED, (), 1, Done(DoneReason.STOPPED)),  # always is not "against the operator"
        (ALWAYS, Outcome.SUCCEEDED, (), 0, Restart(1.0, Outcome.SUCCEEDED)),  # never without a wait
        (NEVER, Outcome.FAILED, (), 1, Done(DoneReason.NEVER)),
        (NEVER, Outcome.SUCCEEDED, (), 0, Done(DoneReason.SUCCEEDED)),
        (RETRY_MEMORY, Outcome.MEMORY, (), 1, Restart(1.0, Outcome.MEMORY)),
        (RETRY_MEMORY, Outcome.FAILED, (), 1, Done(DoneReason.NOT_RETRIED)),
        (PARK_RECURSION, Outcome.RECURSION, (), 1, Park(ParkReason.PARK_ON)),  # goes before "never"
        (PARK_RECURSION, Outcome.MEMORY, (), 1, Done(DoneReason.NEVER)),
        (ON_FAILURE, Outcome.FAILED, SPENT, 6, Park(ParkReason.BUDGET_SPENT)),  # 590 s ago still counts
        (ON_FAILURE, Outcome.HOST_OOM, SPENT, 6, Restart(32.0, Outcome.HOST_OOM)),  # the host's fault: waits, never parks
        (ON_FAILURE, Outcome.LAUNCH_FAILED, (), 20, Restart(300.0, Outcome.LAUNCH_FAILED)),  # the cap
    ],
)
def test_the_policy_and_the_outcome_decide_what_follows(policy, outcome, restarts, failures, expected):
    assert follow(policy, outcome, restarts, failures) == expected


def test_a_restart_leaves_the_window_after_exactly_its_length():
    assert follow(ON_FAILURE, Outcome.FAILED, SPENT, now=610.0) == Park(ParkReason.BUDGET_SPENT)
    assert isinstance(follow(ON_FAILURE, Outcome.FAILED, SPENT, now=610.5), Restart)


policies = st.builds(
    RestartPolicy,
    when=st.sampled_from(RestartWhen),
    backoff=st.builds(
        Backoff,
        first_s=st.floats(min_value=0.01, max_value=60),
        factor=st.floats(min_value=1, max_value=1000),
        max_s=st.floats(min_value=0.01, max_value=3600),
        jitter=st.floats(min_value=0, max_value=1),
    ),
    budget=st.builds(Budget, restarts=st.integers(0, 6), within_s=st.floats(min_value=1, max_value=1000)),
    retry_on=st.one_of(st.none(), st.frozensets(st.sampled_from(Outcome))),
    park_on=st.frozensets(st.sampled_from(Outcome), max_size=3),
)
history = st.lists(st.tuples(st.sampled_from(Outcome), st.floats(min_value=0, max_value=400)), max_size=60)


@given(policy=policies, ends=history)
def test_no_window_holds_more_restarts_than_the_budget(policy, ends):
    now, failures, decided = 0.0, 0, []
    for attempt, (outcome, lived_s) in enumerate(ends, 1):
        now += lived_s
        failures = failures + 1 if outcome.is_bad else 0
        decision = decide(policy, "job", outcome, [Mono(at) for at in decided], attempt, Mono(now), failures_in_row=failures)
        if isinstance(decision, Restart):
            assert outcome is not Outcome.STOPPED
            if counts(outcome):
                decided.append(now)
            now += decision.after_s
    for start in decided:  # by the time of the decision; waits of uneven length may bring two beginnings closer together
        assert sum(1 for at in decided if start <= at <= start + policy.budget.within_s) <= policy.budget.restarts


@given(policy=policies, nth=st.integers(1, 10**6), u=st.floats(min_value=0, max_value=1, exclude_max=True))
def test_a_wait_is_never_above_the_cap_nor_off_by_more_than_the_jitter(policy, nth, u):
    wait = backoff_s(policy, nth, u)
    assert 0 <= wait <= policy.backoff.max_s
    try:
        ideal = min(policy.backoff.first_s * policy.backoff.factor ** (nth - 1), policy.backoff.max_s)
    except OverflowError:
        ideal = policy.backoff.max_s
    assert abs(wait - ideal) <= ideal * policy.backoff.jitter + 1e-9


@given(policy=policies, outcome=st.sampled_from(Outcome), job=st.text(max_size=9), attempt=st.integers(1, 99), failures=st.integers(0, 99))
def test_a_replay_decides_and_waits_the_same(policy, outcome, job, attempt, failures):
    first, again = (decide(policy, job, outcome, (), attempt, Mono(5.0), failures_in_row=failures) for _ in range(2))
    assert first == again


def test_jobs_that_failed_together_do_not_come_back_together():
    waits = {decide(RestartPolicy(), f"job-{n}", Outcome.FAILED, (), 1, Mono(0.0), failures_in_row=5).after_s for n in range(50)}
    assert len(waits) == 50
    assert max(waits) - min(waits) > 2.0  # 16 s ± 10 %


def test_failures_are_counted_from_one():
    with pytest.raises(ValueError, match="counted from 1"):
        backoff_s(ON_FAILURE, 0)


def test_only_the_hosts_own_faults_do_not_count():
    assert {outcome for outcome in Outcome if not counts(outcome)} == HOST_WIDE == {Outcome.HOST_OOM, Outcome.LOST}


def test_a_back_off_of_nothing_makes_no_loop_of_what_no_budget_holds():
    policy = RestartPolicy(when=RestartWhen.ALWAYS, backoff=Backoff(first_s=0.0, jitter=0.0))
    at_once = decide(policy, "job", Outcome.SIGNALLED, (), 1, Mono(0.0), failures_in_row=1)
    of_the_host = decide(policy, "job", Outcome.HOST_OOM, (), 1, Mono(0.0), failures_in_row=1)
    assert (at_once.after_s, of_the_host.after_s) == (0.0, 0.1)


AT_ONCE = Backoff(first_s=0, factor=2, max_s=300, jitter=0.1)


@given(
    outcome=st.sampled_from([one for one in Outcome if one.is_bad and one not in HOST_WIDE]),
    when=st.sampled_from(RestartWhen),
    park_on=st.sampled_from([frozenset(), frozenset({Outcome.RECURSION})]),
    retry_on=st.sampled_from([None, frozenset({Outcome.MEMORY})]),
    backoff=st.sampled_from([AT_ONCE, STEADY]),
    restarts=st.lists(st.floats(0, 600), max_size=6),
    failures=st.integers(1, 50),
    later=st.floats(0, 1200),
)
def test_what_the_keeper_may_begin_by_itself_is_what_would_be_decided(outcome, when, park_on, retry_on, backoff, restarts, failures, later):
    policy = RestartPolicy(when, backoff, Budget(4, 300), retry_on, park_on)
    known = [Mono(at) for at in restarts]
    if follows_at_once(policy, known, Mono(600.0)):
        assert follow(policy, outcome, known, failures, 600.0 + later) == Restart(0.0, outcome)


@pytest.mark.parametrize(
    ("policy", "restarts", "expected"),
    [
        (RestartPolicy(backoff=AT_ONCE), (), True),
        (RestartPolicy(when=RestartWhen.ALWAYS, backoff=AT_ONCE), (), True),
        (RestartPolicy(when=RestartWhen.NEVER, backoff=AT_ONCE), (), False),
        (RestartPolicy(backoff=STEADY), (), False),  # it waits on purpose
        (RestartPolicy(backoff=AT_ONCE, park_on=frozenset({Outcome.MEMORY})), (), False),  # the verdict has to be known first
        (RestartPolicy(backoff=AT_ONCE, retry_on=frozenset({Outcome.MEMORY})), (), False),
        (RestartPolicy(backoff=AT_ONCE), SPENT, False),  # the budget is spent
        (RestartPolicy(backoff=AT_ONCE), SPENT[1:], True),
    ],
)
def test_only_where_no_verdict_could_change_what_follows_the_keeper_may_go_ahead(policy, restarts, expected):
    assert follows_at_once(policy, restarts, Mono(600.0)) is expected
