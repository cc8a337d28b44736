"""Which failures will repeat, and which step is taken against them: a table of sequences, and what never counts."""

import json
from datetime import timedelta

import pytest
from fakes import T0
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from playbook import DUE, SHUTDOWN, Play, ended, job, reload, started, wish

from supervisor.core import engine, heal
from supervisor.core.actions import Record
from supervisor.core.events import Due
from supervisor.core.evidence import Evidence, ExceptionFacts, Exit, Progress, Verdict
from supervisor.core.heal import Course, Failure, HealReason
from supervisor.core.jobs import Launch, Limits
from supervisor.core.model import Outcome
from supervisor.core.records import AttemptRow
from supervisor.core.remedy import ChangeEnvironment, HealPolicy, Park, RunCommand, SetAside, TryAgain

SLOWER = ChangeEnvironment({"BATCH_SIZE": "1000"})
CLEAN = RunCommand(("./clean",), 5.0)


def at(record=None, *, keyed=True, records=0, **rest):
    return Progress(record=record, keyed=keyed, records=records, **rest)


def failure(position=None, *, outcome="crashed", fingerprint="bug", minute=0, **rest):
    return Failure(Outcome(outcome), fingerprint, position, T0 + timedelta(minutes=minute), **rest)


def play(policy, *failures, crowd=1, held=0):
    """The steps taken after each of these failures, and the course at the end."""
    course, steps = Course(), []
    for one in failures:
        healing = heal.consider(policy, course, one, crowd=crowd, held=held)
        course = healing.course
        steps.append(healing.step)
    return steps, course


# ---------------------------------------------------------------- records


def test_a_record_that_kills_twice_running_is_set_aside_and_the_sequence_ends_there():
    healing = heal.consider(HealPolicy(), play(HealPolicy(), failure(at("u7")))[1], failure(at("u7")), crowd=1)
    assert (healing.step, healing.record, healing.reason) == (SetAside(), "u7", HealReason.RECORD_KILLED_AGAIN)
    assert healing.did == "set record 'u7' aside: it was in work at 2 deaths running"


def test_it_does_not_matter_by_which_outcome_the_record_kills():
    steps, _ = play(
        HealPolicy(), failure(at("u7"), outcome="crashed", fingerprint="a"), failure(at("u7"), outcome="memory", fingerprint="b")
    )
    assert steps == [None, SetAside()]


@pytest.mark.parametrize("between", [at("u8"), at(None, records=7), None])
def test_twice_is_twice_running(between):
    steps, _ = play(HealPolicy(), failure(at("u7")), failure(between, fingerprint="other"), failure(at("u7")))
    assert steps == [None, None, None]


def test_a_record_without_a_key_is_not_set_aside_for_its_number_may_be_anothers_tomorrow():
    steps, _ = play(HealPolicy(), *[failure(at("17", keyed=False))] * 3)
    assert steps == [None, None, Park()]


@pytest.mark.parametrize("outcome", ["signalled", "unmet", "launch_failed"])
def test_an_end_that_is_not_the_records_doing_does_not_blame_it(outcome):
    assert SetAside() not in play(HealPolicy(), *[failure(at("u7"), outcome=outcome)] * 4)[0]


@pytest.mark.parametrize(("record_s", "blamed"), [(None, False), (1.0, False), (30.0, True)])
def test_a_time_limit_blames_a_record_only_if_it_took_a_good_part_of_the_attempt(record_s, blamed):
    steps, _ = play(HealPolicy(), *[failure(at("u7", record_s=record_s), outcome="time", duration_s=60.0)] * 2)
    assert (steps[-1] == SetAside()) is blamed


def test_each_of_several_bad_records_is_set_aside_in_its_turn():
    ends = [failure(at(key, records=5 + n)) for n, key in enumerate("aabbccddee")]
    assert play(HealPolicy(), *ends)[0] == [None, SetAside()] * 5


def test_records_that_die_one_after_the_other_with_none_finished_are_not_the_cause_and_come_back():
    ends = [failure(at(key)) for key in ("a", "a", "b", "b", "c", "c", "d", "d")]
    course = play(HealPolicy(), *ends[:-1])[1]
    healing = heal.consider(HealPolicy(), course, ends[-1], crowd=1)
    assert (healing.step, healing.reason, healing.release) == (Park(), HealReason.NOT_THE_RECORD, ("a", "b", "c"))


def test_records_that_were_finished_before_the_first_of_them_are_no_sign_that_the_job_gets_on():
    """A gateway is gone; the first ten records need none, and a job without a checkpoint does them anew each time."""
    ends = [failure(at(key, records=10)) for key in "aabbccdd"]
    assert play(HealPolicy(), *ends)[0] == [None, SetAside()] * 3 + [None, Park()]


@pytest.mark.parametrize(
    ("later", "gets_on"),
    [
        ({"records": 11}, True),
        ({"records": 10}, False),
        ({"records": 3}, False),  # in another order
        ({"records": 3, "checkpoint": "c0ffee"}, True),  # it went on from there
        ({"records": 0, "checkpoint": "c0ffee"}, False),
    ],
    ids=str,
)
def test_a_job_gets_on_when_it_has_finished_more_than_when_the_last_record_was_set_aside(later, gets_on):
    course = play(HealPolicy(), *[failure(at("a", records=10))] * 2, failure(at("b", **later)))[1]
    assert course.row == (() if gets_on else ("a",))


def test_a_row_of_records_that_fall_to_several_bugs_is_none_where_any_were_finished():
    course = play(HealPolicy(), *[failure(at("a", records=10))] * 2, failure(at("b", records=10), fingerprint="other"))[1]
    assert course.row == ()
    course = play(HealPolicy(), *[failure(at("a"))] * 2, failure(at("b"), fingerprint="other"))[1]
    assert course.row == ("a",)


def test_a_record_that_is_met_again_although_it_was_set_aside_parks_the_job():
    assert play(HealPolicy(), *[failure(at("u7"))] * 3)[0] == [None, SetAside(), Park()]


def test_a_thousand_records_are_enough():
    assert play(HealPolicy(), *[failure(at("u7"))] * 2, held=1000)[0] == [None, Park()]


# ---------------------------------------------------------------- repeats


@pytest.mark.parametrize(
    "position", [at(None, records=70), at(None, done=3, stage="load"), at(None, checkpoint="c0ffee"), at("17", keyed=False)], ids=str
)
def test_the_same_failure_at_the_same_place_three_times_in_sequence_parks_the_job(position):
    healing = heal.consider(HealPolicy(), play(HealPolicy(), *[failure(position)] * 2)[1], failure(position), crowd=1)
    assert (healing.step, healing.reason) == (Park(), HealReason.REPEATED)
    assert "3 times in sequence" in healing.did


@pytest.mark.parametrize(
    "ends",
    [
        [failure(at(None, records=n)) for n in range(1, 9)],  # it gets on
        [failure(at(None, records=7), fingerprint=f"bug {n % 2}") for n in range(8)],  # two bugs by turns
        [failure(None)] * 8,  # nobody knows where it stood
        [failure(at(None, records=0))] * 8,  # before the first record: that may be anything
    ],
    ids=["gets on", "two bugs", "no word", "before the first"],
)
def test_what_need_not_repeat_is_left_to_the_restart_policy(ends):
    assert play(HealPolicy(), *ends)[0] == [None] * len(ends)


def test_how_many_are_too_many_is_configured_and_null_is_never():
    assert play(HealPolicy(5), *[failure(at(None, records=7))] * 5)[0] == [None] * 4 + [Park()]
    assert play(HealPolicy(None), *[failure(at(None, records=7))] * 9)[0] == [None] * 9
    assert play(HealPolicy(None), *[failure(at("u7"))] * 2)[0] == [None, SetAside()]


# ---------------------------------------------------------------- steps


def test_the_steps_of_an_outcome_are_taken_from_left_to_right_one_for_each_further_failure():
    policy = HealPolicy(3, {"crashed": (TryAgain(), SLOWER, CLEAN, Park())})
    steps, course = play(policy, *[failure(None)] * 7)
    assert steps == [None, None, TryAgain(), SLOWER, CLEAN, Park(), None]
    assert heal.variables(job(heal=policy), course) == {"BATCH_SIZE": "1000"}


def test_a_step_that_cannot_be_taken_is_passed_over():
    policy = HealPolicy(2, {"crashed": (SetAside(), SLOWER)})
    assert play(policy, failure(None), failure(None))[0] == [None, SLOWER]


def test_quarantine_first_waits_for_the_second_death_and_the_next_step_for_the_next_failure():
    policy = HealPolicy(3, {"crashed": (SetAside(), SLOWER, Park())})
    assert play(policy, *[failure(at("u7"))] * 4)[0] == [None, SetAside(), SLOWER, Park()]


def test_quarantine_after_another_step_comes_when_that_step_was_in_vain():
    policy = HealPolicy(3, {"crashed": (SLOWER, SetAside(), Park())})
    assert play(policy, *[failure(at("u7"))] * 5)[0] == [None, None, SLOWER, SetAside(), Park()]


def test_a_change_that_is_in_force_is_not_made_again_for_the_same_failure_at_another_place():
    policy = HealPolicy(2, {"crashed": (SLOWER, Park())})
    ends = [failure(at(None, records=7))] * 2 + [failure(at(None, records=9))] * 2
    steps, course = play(policy, *ends)
    assert steps == [None, SLOWER, None, Park()]
    assert course.changes == (("crashed", 0),)


def test_an_outcome_with_an_empty_list_is_left_to_the_restart_policy():
    assert play(HealPolicy(3, {"crashed": ()}), *[failure(at("u7"))] * 5)[0] == [None] * 5


# ---------------------------------------------------------------- what never counts


@pytest.mark.parametrize(
    ("verdict", "evidence"),
    [
        (Verdict(Outcome.HOST_OOM, ""), Evidence(Exit(signal=9))),
        (Verdict(Outcome.LOST, ""), Evidence(Exit())),
        (Verdict(Outcome.LAUNCH_FAILED, ""), Evidence(Exit(launch_error="cannot fork: Resource temporarily unavailable"))),
        (Verdict(Outcome.EXCEPTION, "", exception=ExceptionFacts("OSError", "[Errno 28] No space left on device: 'x'", (), 1)), Evidence(Exit(code=1))),
        (Verdict(Outcome.EXCEPTION, "", exception=ExceptionFacts("RuntimeError", "can't start new thread", (), 1)), Evidence(Exit(code=1))),
    ],
)  # fmt: skip
def test_causes_of_the_host_neither_count_nor_break_a_sequence(verdict, evidence):
    cause = heal.host_cause(verdict, evidence)
    assert cause
    hosts = failure(at("u7"), host_cause=cause)
    assert play(HealPolicy(), failure(at("u7")), *[hosts] * 5, failure(at("u7")))[0] == [None] * 6 + [SetAside()]


FULL = "OSError: [Errno 28] No space left on device: '/data/out'"


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ExceptionFacts("OSError", FULL.partition(": ")[2], (), 1), "the host refused it something: ENOSPC"),
        (ExceptionFacts("RuntimeError", "cannot save u7", (), 1, chain=(FULL,)), "the host refused it something: ENOSPC"),
        (ExceptionFacts("PoolError", "", (), 1, chain=("KeyError: 'x'", "RuntimeError: can't start new thread")), "the host gave it no new thread"),
        # a socket that does not block, and a bug of the job's own in what handles that
        (ExceptionFacts("KeyError", "'u7'", (), 1, chain=("BlockingIOError: [Errno 11] Resource temporarily unavailable",)), None),
        (ExceptionFacts("KeyError", "'u7'", (), 1, chain=("FileNotFoundError: [Errno 2] No such file",)), None),
        (None, None),
    ],
)  # fmt: skip
def test_what_the_host_refused_is_found_wherever_the_exception_came_from_and_its_message_is_not_told(raised, expected):
    assert heal.refusal(raised) == expected


def test_what_the_host_refused_is_known_where_messages_are_not_kept():
    bare = Verdict(Outcome.EXCEPTION, "", exception=ExceptionFacts("OSError", "", (), 1))
    assert heal.host_cause(bare, Evidence(Exit(code=1), refused="the host refused it something: ENOSPC"))
    assert (
        heal.host_cause(replace(bare, outcome=Outcome.MEMORY), Evidence(Exit(code=1), refused="the host refused it something: ENOSPC"))
        is None
    )


@pytest.mark.parametrize(
    ("verdict", "evidence"),
    [
        (Verdict(Outcome.LAUNCH_FAILED, ""), Evidence(Exit(launch_error="cannot execute 'x': No such file or directory"))),
        (Verdict(Outcome.EXCEPTION, "", exception=ExceptionFacts("KeyError", "'u7'", (), 1)), Evidence(Exit(code=1))),
        (Verdict(Outcome.EXCEPTION, "", exception=ExceptionFacts("OSError", "[Errno 2] No such file", (), 1)), Evidence(Exit(code=1))),
        (Verdict(Outcome.MEMORY, ""), Evidence(Exit(signal=9))),
    ],
)
def test_the_jobs_own_causes_are_its_own(verdict, evidence):
    assert heal.host_cause(verdict, evidence) is None


def test_failures_of_many_jobs_at_once_do_not_count():
    assert play(HealPolicy(), *[failure(at("u7"))] * 9, crowd=5)[0] == [None] * 9
    assert play(HealPolicy(), *[failure(at("u7"))] * 2, crowd=4)[0] == [None, SetAside()]


def test_who_fails_first_in_a_crowd_learns_of_it_at_its_next_failure():
    first = play(HealPolicy(), failure(at("u7")))[1]
    assert heal.consider(HealPolicy(), first, failure(at("u7")), crowd=1, crowd_then=7).step is None


# ---------------------------------------------------------------- in the engine


def dies(run=1, attempt=1, record="u7", **facts):
    return ended(run, attempt, position=at(record, records=4), **({"code": None, "signal": 11} | facts))


def test_a_poison_record_is_set_aside_at_its_second_death_and_the_next_attempt_is_told_to_leave_it_out():
    play = Play(job(budget=(1, 600)))
    play.at(1).when(dies()).expect("notify opened ops", "attempt 1.1 crashed", "incident 1 opened", state="backing_off", wait=1)
    play.at(2).when(DUE).expect("start 1.2")
    play.at(3).when(dies(1, 2)).expect(
        "aside u7", "attempt 1.2 crashed", "heal quarantine record_killed_again", "incident 1 seen", state="backing_off", wait=1
    )
    play.at(4).when(DUE)
    start = next(action for action in play.last.actions if type(action).__name__ == "StartAttempt")
    assert start.quarantine == ("u7",)
    assert len(play.memo.restarts) == 1  # the restart without the record is not charged


def test_an_attempt_that_began_before_a_record_was_set_aside_is_not_held_against_the_job():
    """Overlapping runs: the third dies of the record that the deaths of the first two had set aside meanwhile."""
    play = Play(job(every=10, overlap="allow", budget=(99, 600)))
    for run in (1, 2, 3):
        play.at(run * 10).when(DUE, started(run))
    play.at(35).when(dies(1, lived=25)).when(dies(2, lived=15))
    assert "heal quarantine record_killed_again" in play.lines
    course = play.memo.course
    play.when(dies(3, lived=5))
    assert (play.memo.parked, play.memo.course) == (None, course)
    play.at(60).when(DUE).when(dies(3, 2, lived=1))  # this one was told to leave it out
    assert play.memo.parked == "repeats"


def test_a_start_that_the_host_refuses_costs_no_restart_and_parks_nobody():
    refused = Play(job(budget=(1, 600)))
    for n in range(1, 6):
        refused.at(n * 100).when(ended(1, n, launch_error="cannot fork: Resource temporarily unavailable"), DUE)
        refused.at(n * 100 + 50).when(DUE)
    assert (refused.job_state().state.value, refused.memo.restarts, refused.memo.course.times) == ("starting", (), 0)
    missing = Play(job(budget=(1, 600)))
    for n in (1, 2):
        missing.at(n * 100).when(ended(1, n, launch_error="cannot execute 'run': No such file or directory"))
        missing.at(n * 100 + 50).when(DUE)
    assert missing.job_state().state.value == "parked"


def test_jobs_that_fail_together_lose_no_record_and_are_not_parked():
    """A database that is gone: each of six jobs dies at its first record, again and again; one that dies alone is another matter."""
    names = [f"job-{n}" for n in range(6)]
    play = Play(*(job(name, manual=True, budget=(9, 6000)) for name in [*names, "alone"]))
    run = {name: number for number, name in enumerate([*names, "alone"], 1)}
    for name in run:
        play.when(wish("trigger", name))
    for attempt in range(1, 5):
        play.at(attempt * 1000)
        for name in names:
            play.when(ended(run[name], attempt, name, code=1, position=at("u1")))
        play.at(attempt * 1000 + 500)
        if attempt <= 2:
            play.when(ended(run["alone"], attempt, "alone", code=1, position=at("u1")))
        play.at(attempt * 1000 + 900)
        for name in run:
            play.when(Due(name))
    assert [play.job_state(name).quarantine for name in names] == [()] * 6
    assert {play.job_state(name).memo.parked for name in names} == {None}
    assert [record.key for record in play.job_state("alone").quarantine] == ["u1"]


def test_what_a_person_starts_begins_a_new_sequence():
    play = Play(job(manual=True))
    for run in (1, 2, 3):
        play.at(run * 100).when(wish("trigger"))
        play.at(run * 100 + 1).when(dies(run, record=None))
        play.at(run * 100 + 2).when(wish("stop"))
        assert play.memo.course.times == 1


def lives(attempts, place, policy=None, *, lived=60.0):
    """A service that is stable after 60 s, and whose attempts each live so long and then die of the same; *place* answers where the nth stood."""
    play = Play(job(budget=(99, 1e6), stable=60, heal=policy or HealPolicy()))
    for n in range(1, attempts + 1):
        play.at(n * 1000).when(ended(1, n, code=None, signal=11, lived=lived, position=place(n)))
        if play.memo.parked is None:
            play.at(n * 1000 + 500).when(DUE)
    return play


def nowhere(_nth):
    return None


def round_and_round(nth):
    """A job that goes round the same records, and has done so many rounds."""
    return at("u7", records=7 + 10 * nth)


def test_a_service_that_lived_well_before_each_death_has_no_sequence():
    policy = HealPolicy(3, {"crashed": (Park(),)})
    assert lives(9, nowhere, policy).memo.parked is None
    assert lives(3, nowhere, policy, lived=59).memo.parked == "repeats"


def test_two_deaths_of_a_service_that_lived_well_between_them_blame_no_record():
    assert lives(5, round_and_round).job_state().quarantine == ()
    assert [one.key for one in lives(2, round_and_round, lived=59).job_state().quarantine] == ["u7"]


def test_a_record_that_a_service_needs_an_hour_to_come_to_is_set_aside_all_the_same():
    """It begins anew each time, and dies of the same after exactly as many records."""
    assert [one.key for one in lives(2, lambda _nth: at("u7", records=4000), lived=3600).job_state().quarantine] == ["u7"]


def test_the_time_in_which_a_service_stood_still_is_not_lived_well():
    hangs = lives(2, lambda nth: at("u7", records=10 * nth, record_s=290.0), lived=300)
    assert [one.key for one in hangs.job_state().quarantine] == ["u7"]
    evidence = Evidence(Exit(), duration_s=330.0, progress=at("u7"))
    assert heal.was_well_s(Outcome.STALLED, evidence, Limits(stall_s=300.0)) == 30
    assert heal.was_well_s(Outcome.CRASHED, evidence, Limits(stall_s=300.0)) == 330


def test_a_run_of_the_old_config_that_is_stopped_leaves_the_sequence_of_the_new_one_alone():
    old = job(every=100, when="never", overlap="allow")
    play = Play(old).when(DUE, started()).at(50).when(reload(replace(old, heal=HealPolicy(2))))
    play.at(100).when(DUE).at(110).when(dies(2))
    course = play.memo.course
    play.at(120).when(ended(1, code=None, signal=15, asked_to_stop=True))
    assert course.times == 1
    assert play.memo.course == course


def test_a_service_that_lived_well_has_its_own_environment_again():
    policy = HealPolicy(2, {"crashed": (SLOWER, Park())})
    play = lives(2, nowhere, policy, lived=1)
    assert play.memo.course.changes == (("crashed", 0),)
    play.at(5000).when(ended(1, 3, code=None, signal=11, lived=60), DUE).at(6000).when(DUE)
    start = next(action for action in play.last.actions if type(action).__name__ == "StartAttempt")
    assert (dict(start.job.launch.environment), play.memo.course.times) == ({}, 1)


# ---------------------------------------------------------------- commands

CLEANS = {"budget": (99, 6000), "heal": HealPolicy(2, {"crashed": (CLEAN, Park())})}


def crashes(play, second, run, attempt):
    return play.at(second).when(ended(run, attempt, code=None, signal=11))


def cleaning():
    """A service whose second failure has begun the command of its first step, as attempt 1.3."""
    play = Play(job(**CLEANS))
    crashes(crashes(play, 1, 1, 1).at(2).when(DUE), 3, 1, 2)
    assert "start 1.3" in play.lines
    return play


def test_a_command_that_ended_has_been_run_however_it_ended():
    play = cleaning().at(4).when(ended(1, 3, code=9)).at(9).when(DUE)
    crashes(play, 10, 1, 4)
    assert play.memo.parked == "repeats"


@pytest.mark.parametrize("how", ["stopped", "keeper"])
def test_a_command_that_the_end_of_mainstay_cut_short_is_run_again(how):
    play = cleaning()
    if how == "stopped":
        play.at(4).when(SHUTDOWN, ended(1, 3, asked_to_stop=True, code=None, signal=15))
    play.restart("epoch-2")
    run, attempt = (2, 1) if how == "stopped" else (1, 4)
    play.at(9).when(DUE)
    crashes(play, 10, run, attempt)
    assert "heal command came_back" in play.lines or "heal command repeated" in play.lines
    assert f"start {run}.{attempt + 1}" in play.lines
    play.at(11).when(ended(run, attempt + 1)).at(20).when(DUE)
    crashes(play, 21, run, attempt + 2)
    assert play.memo.parked == "repeats"


def test_a_command_that_kills_the_keeper_is_not_run_for_ever():
    play, attempt, commands = cleaning(), 3, 1
    while play.memo.parked is None:
        play.restart(f"epoch-{commands + 1}").at(commands * 100).when(DUE)
        crashes(play, commands * 100 + 50, 1, attempt + 1)
        attempt, commands = attempt + 2, commands + ("heal command repeated" in play.lines)
    assert commands == 1 + heal.GIVEN_BACK_MAX


def did(play):
    """What the dossier of the attempt that has just ended says was done."""
    rows = [row for action in play.last.actions if isinstance(action, Record) for row in action.rows]
    return next(json.loads(row.report)["did"] for row in rows if isinstance(row, AttemptRow) and row.report)


def test_the_last_dossier_of_a_sequence_tells_every_step_and_how_commands_ended():
    play = Play(job(budget=(99, 6000), heal=HealPolicy(1, {"crashed": (TryAgain(), SLOWER, CLEAN, CLEAN, Park())})))
    crashes(play, 1, 1, 1)
    crashes(play.at(9).when(DUE), 10, 1, 2)
    crashes(play.at(19).when(DUE), 20, 1, 3)
    play.at(21).when(ended(1, 4, launch_error="cannot execute './clean': No such file or directory")).at(29).when(DUE)
    crashes(play, 30, 1, 5)
    play.at(31).when(ended(1, 6)).at(49).when(DUE)
    crashes(play, 50, 1, 7)
    assert play.memo.parked == "repeats"
    assert did(play)[2] == (
        "before, against the same failure: tried once more; changed BATCH_SIZE; "
        "ran ./clean (launch_failed: It could not be started: cannot execute './clean': No such file or directory); "
        "ran ./clean (succeeded: It succeeded after 1s)"
    )


def test_what_became_of_a_command_that_was_stopped_is_remembered_until_somebody_starts_the_job():
    play = cleaning().at(4).when(wish("stop"), ended(1, 3, code=None, signal=15, asked_to_stop=True))
    assert heal.told(play.memo.course) == "ran ./clean (stopped: It was asked to stop and ended after 1s (SIGTERM))"
    play.when(wish("start"))
    assert heal.told(play.memo.course) == ""


def test_of_many_steps_the_latest_are_told_and_none_of_another_failure():
    policy = HealPolicy(1, {"crashed": (TryAgain(),) * 9})
    assert len(play(policy, *[failure(None)] * 9)[1].steps) == heal.STEPS_TOLD
    assert play(policy, *[failure(None)] * 9, failure(None, fingerprint="other"))[1].steps == ("tried once more",)


DRY = ChangeEnvironment({"DRY_RUN": "1"})


def slower_is_in_force(**rest):
    """Two failures of which the second changed the environment; then it waits for its next attempt."""
    play = Play(job(budget=(99, 600), heal=HealPolicy(2, {"crashed": (SLOWER, TryAgain(), Park())}), **rest))
    play.at(1).when(ended(code=None, signal=11)).at(2).when(DUE).at(3).when(ended(1, 2, code=None, signal=11))
    assert "heal environment repeated" in play.lines
    return play


def environment_of(actions):
    start = next(action for action in actions if type(action).__name__ == "StartAttempt")
    return dict(start.job.launch.environment)


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ({}, {"BATCH_SIZE": "1000"}),
        ({"heal": HealPolicy(2, {"crashed": (DRY, TryAgain(), Park())})}, {}),  # the first step, and another one
        ({"heal": HealPolicy(2, {"crashed": (Park(), SLOWER)})}, {}),
        ({"launch": Launch(("run", "--fast"), "/")}, {}),
        ({"limits": Limits(time_s=9)}, {"BATCH_SIZE": "1000"}),
    ],
    ids=["same", "other step", "other place", "other command", "other limit"],
)
def test_a_step_is_in_force_only_under_the_config_that_it_was_taken_under(new, expected):
    play = slower_is_in_force()
    edited = replace(play.jobs["job"], **new)
    view = engine.KeeperView("epoch-2", "boot-2", {})
    again = engine.restore({"job": edited}, {"job": play.memo}, {}, (9, 9), view, play.clock.now())
    assert environment_of(engine.step(again.state, DUE, play.clock.now()).actions) == expected


def test_what_a_run_of_the_old_config_had_changed_is_not_looked_up_in_the_list_of_the_new_one():
    old = job(every=100, when="never", overlap="allow", heal=HealPolicy(2, {"crashed": (SLOWER,)}))
    play = Play(old).when(DUE, started()).at(100).when(DUE, started(2))
    play.at(101).when(reload(replace(old, heal=HealPolicy(2, {"crashed": (DRY, Park())}))))
    for run in (1, 2):
        play.at(110).when(ended(run, code=None, signal=11))
    assert play.memo.course.changes == (("crashed", 0),)
    play.at(115).when(DUE)
    assert environment_of(play.last.actions) == {"BATCH_SIZE": "1000"}  # the old run goes by the old list
    play.at(200).when(DUE)
    assert environment_of(play.last.actions) == {}


def test_the_name_of_a_config_holds_no_secret():
    given = ({"TOKEN": "a"}, {"TOKEN": "b"}, {"SIZE": "1"})
    one, two, other = (replace(job(), launch=Launch(("run",), "/", environment=each)) for each in given)
    assert heal.name_of(one) == heal.name_of(two) != heal.name_of(other)


def test_the_variables_in_force_of_a_memo_that_names_no_config_stay_in_force():
    play = slower_is_in_force()
    assert heal.variables(play.jobs["job"], replace(play.memo.course, under="")) == {"BATCH_SIZE": "1000"}


def test_a_course_survives_as_text():
    mark = heal.Mark(4, "c0ffee", "bug")
    course = Course("bug", "record u7", 2, "u7", 2, 1, T0, (("crashed", 0),), ("u6",), mark, "c0ffee", 1, ("changed A",), 7)
    state = Play(job()).job_state().remember(course=course)
    assert type(state.memo).decode(state.memo.encode()) == state.memo


def test_the_memo_of_an_earlier_version_is_read():
    memo = Play(job()).memo
    old = json.loads(memo.encode())
    del old["course"]["row_at"], old["course"]["under"]
    assert type(memo).decode(json.dumps(old)) == replace(memo, course=Course())
    del old["course"]
    assert type(memo).decode(json.dumps(old)) == replace(memo, course=Course())


PLACES = st.sampled_from([None, at("u7"), at("u8"), at(None, records=7), at("17", keyed=False)])
FAILURES = st.builds(failure, PLACES, outcome=st.sampled_from(["crashed", "failed", "signalled"]), fingerprint=st.sampled_from(["a", "b"]))


@given(
    policy=st.sampled_from(
        [HealPolicy(), HealPolicy(repeats=1), HealPolicy(repeats=2), HealPolicy(repeats=None), HealPolicy(steps={"failed": (Park(),)})]
    ),
    past=st.lists(FAILURES, max_size=5),
    following=FAILURES,
    crowds=st.tuples(st.integers(1, 6), st.integers(0, 6)),
)
def test_where_no_step_may_come_in_none_does(policy, past, following, crowds):
    _, course = play(policy, *past)
    if not heal.may_step_in(policy, course):
        assert heal.consider(policy, course, following, crowd=crowds[0], crowd_then=crowds[1]).step is None


@pytest.mark.parametrize(
    ("past", "expected"),
    [
        ((), False),
        ((None, None, None, None), False),  # a job that never says where it stands
        ((at("u7"),), True),  # its second death sets the record aside
        ((at(None, records=7),), False),
        ((at(None, records=7), at(None, records=7)), True),  # the third time at one place parks
    ],
)
def test_a_step_may_come_in_where_the_next_failure_could_be_the_one(past, expected):
    assert heal.may_step_in(HealPolicy(), play(HealPolicy(), *map(failure, past))[1]) is expected


@given(st.lists(FAILURES, max_size=12))
def test_a_record_is_only_ever_set_aside_after_two_deaths_running_and_each_step_follows_a_failure_that_was_left_alone(ends):
    course, before = Course(), ""
    for end in ends:
        healing = heal.consider(HealPolicy(), course, end, crowd=1)
        if healing.step == SetAside():
            assert end.blamed == before == healing.record
        if end.host_cause is None:
            before = end.blamed
        course = healing.course
        assert len(course.row) <= heal.ROW_MAX
