"""The life of one run, as playbooks: how it begins, ends, waits, gives up and is stopped."""

import json

import pytest
from msgspec.structs import replace
from playbook import DUE, SHUTDOWN, IncidentWish, Play, breached, changed, ended, job, lines_of, lost, reload, started, wish

from supervisor.core import engine
from supervisor.core.actions import Record
from supervisor.core.jobs import AlertPolicy, Backoff, Launch, Limits, StopPolicy
from supervisor.core.model import Outcome, State
from supervisor.core.records import AttemptRow
from supervisor.core.remedy import ChangeEnvironment, HealPolicy, RunCommand

OPENED = ("notify opened ops", "incident 1 opened")


def failed(nth: int, number: int = 1) -> tuple[str, ...]:
    """The lines of one more failure of a kind that is known."""
    return (f"attempt {number}.{nth} failed", "incident 1 seen")


# ---------------------------------------------------------------- ends


def test_a_manual_job_runs_once_when_asked():
    (
        Play(job(manual=True))
        .expect(state="idle", wait=None)
        .at(5).when(wish("trigger")).expect("start 1.1", state="starting", wait=None).says("job: run 1 started")
        .at(5).when(started()).expect(state="running")
        .at(9).when(ended(code=0)).expect("attempt 1.1 succeeded", "run 1 succeeded", state="idle", wait=None)
    )  # fmt: skip


def test_a_service_that_fails_comes_back_after_a_growing_wait_and_parks_when_its_budget_is_spent():
    (
        Play(job(budget=(2, 600)))
        .expect("start 1.1", state="starting")
        .at(1).when(started(), ended(code=1)).expect("notify opened ops", "attempt 1.1 failed", "incident 1 opened", state="backing_off", wait=1)
        .at(1.5).when(DUE).expect(wait=0.5)  # not yet
        .at(2).when(DUE).expect("start 1.2", state="starting")
        .at(3).when(started(1, 2), ended(1, 2, code=1)).expect(*failed(2), state="backing_off", wait=2)
        .at(5).when(DUE).expect("start 1.3")
        .at(6).when(ended(1, 3, code=1))
        .expect("attempt 1.3 failed", "run 1 failed", "incident 1 seen", "parked failed budget_spent", state="parked", wait=None)
    )  # fmt: skip


def test_a_parked_manual_job_runs_again_when_a_person_says_so():
    (
        Play(job(manual=True, budget=(0, 600)))
        .at(0).when(wish("trigger"), started(), ended(code=1)).expect(
            "start 1.1", *OPENED[:1], "attempt 1.1 failed", "run 1 failed", *OPENED[1:], "parked failed budget_spent", state="parked"
        )
        .at(9).when(wish("start")).expect("start 2.1", state="starting").says("job: run 2 started")
        .at(10).when(started(2), ended(2)).expect("notify closed ops", "attempt 2.1 succeeded", "run 2 succeeded", "incident 1 closed", state="idle")
    )  # fmt: skip


def test_a_timed_job_that_spent_its_budget_waits_for_its_next_fire_time_and_is_not_parked():
    play = (
        Play(job(every=3600, budget=(1, 7200)))
        .at(0).when(DUE).expect("slot 0 ran as 1", "start 1.1")
        .at(1).when(started(), ended(code=1)).expect("notify opened ops", "attempt 1.1 failed", "incident 1 opened", wait=1)
        .at(2).when(DUE).expect("start 1.2")
        .at(3).when(started(1, 2), ended(1, 2, code=1)).expect("attempt 1.2 failed", "run 1 failed", "incident 1 seen", state="idle", wait=3597)
    )  # fmt: skip
    play.at(3600).when(DUE).expect("slot 3600 ran as 2", "start 2.1")
    play.at(3601).when(started(2), ended(2, code=1)).expect("attempt 2.1 failed", "run 2 failed", "incident 1 seen", state="idle")


def test_an_outcome_in_park_on_parks_at_once_even_where_nothing_is_restarted():
    (
        Play(job(every=60, when="never", park_on=frozenset({Outcome.CRASHED})))
        .at(0).when(DUE, started(), ended(signal=11)).expect(
            "slot 0 ran as 1", "start 1.1", *OPENED[:1], "attempt 1.1 crashed", "run 1 crashed", *OPENED[1:], "parked crashed park_on", state="parked"
        )
        .at(60).when(DUE).expect("slot 60 skipped parked", state="parked")
    )  # fmt: skip


def test_an_outcome_that_is_not_in_retry_on_is_not_retried():
    play = Play(job(manual=True, retry_on=frozenset({Outcome.MEMORY}))).at(0).when(wish("trigger"), started(), ended(code=1))
    assert play.lines[-3:] == ["attempt 1.1 failed", "run 1 failed", "incident 1 opened"]
    play.expect(*play.lines, state="idle")


def test_never_means_one_attempt():
    play = Play(job(when="never")).at(1).when(started(), ended(code=1))
    play.expect("notify opened ops", "attempt 1.1 failed", "run 1 failed", "incident 1 opened", state="idle", wait=None)


def test_always_means_that_a_success_is_followed_by_a_wait_and_another_attempt_within_the_budget():
    (
        Play(job(when="always", budget=(1, 600)))
        .at(1).when(started(), ended()).expect("attempt 1.1 succeeded", state="backing_off", wait=1)
        .at(2).when(DUE, started(1, 2), ended(1, 2)).expect(
            "start 1.2", "attempt 1.2 succeeded", "run 1 succeeded", "parked succeeded budget_spent", state="parked"
        )
    )  # fmt: skip


def test_a_service_that_ends_well_is_over_when_it_restarts_on_failure_only():
    Play(job()).at(1).when(started(), ended()).expect("attempt 1.1 succeeded", "run 1 succeeded", state="idle", wait=None)


def test_a_wait_of_nothing_still_goes_through_the_budget():
    play = Play(job(backoff=replace(job().restart.backoff, first_s=0, max_s=0), budget=(2, 600)))
    for attempt in (1, 2, 3):
        play.at(1).when(ended(1, attempt, launch_error="no such file"))
    assert play.lines[-1] == "parked launch_failed budget_spent"
    play.expect(*play.lines, state="parked")


def test_a_run_whose_end_nobody_saw_is_lost_and_does_not_eat_the_budget():
    (
        Play(job(budget=(0, 600)))
        .at(1).when(started(), lost()).expect("notify opened ops", "attempt 1.1 lost", "incident 1 opened", state="backing_off", wait=1)
        .at(2).when(DUE).expect("start 1.2")
    )  # fmt: skip


# ---------------------------------------------------------------- incidents and alerts


def test_an_incident_is_told_after_n_failures_in_a_row_and_its_end_to_whom_its_beginning_was():
    play = Play(job(budget=(9, 600), alerts=AlertPolicy(to=("ops",), after=3)))
    play.at(1).when(started(), ended(code=1)).expect("attempt 1.1 failed", "incident 1 opened")
    play.at(2).when(DUE, started(1, 2), ended(1, 2, code=1)).expect("start 1.2", "attempt 1.2 failed", "incident 1 seen")
    play.at(4).when(DUE, started(1, 3), ended(1, 3, code=1)).expect(
        "start 1.3", "notify opened ops", "attempt 1.3 failed", "incident 1 seen"
    )
    play.at(8).when(DUE, started(1, 4)).expect("start 1.4", wait=60)
    play.at(68).when(DUE).expect("notify closed ops", "incident 1 closed", state="running", wait=None)
    assert play.memo.failures_in_row == 0


def test_another_bug_opens_another_incident_and_one_success_closes_both():
    play = Play(job(budget=(9, 600), when="always"))
    play.at(1).when(started(), ended(code=1)).expect("notify opened ops", "attempt 1.1 failed", "incident 1 opened")
    play.at(2).when(DUE, started(1, 2), ended(1, 2, code=2)).expect(
        "start 1.2", "notify opened ops", "attempt 1.2 failed", "incident 2 opened"
    )
    play.at(4).when(DUE, started(1, 3), ended(1, 3))
    play.expect("start 1.3", "notify closed ops", "notify closed ops", "attempt 1.3 succeeded", "incident 1 closed", "incident 2 closed")


def test_a_service_that_lived_long_starts_its_back_off_afresh():
    play = Play(job(budget=(9, 600)))
    play.at(1).when(started(), ended(code=1))
    play.at(2).when(DUE, started(1, 2), ended(1, 2, code=1)).expect("start 1.2", *failed(2), wait=2)
    play.at(4).when(DUE, started(1, 3)).at(500).when(ended(1, 3, code=1, lived=496)).expect(*failed(3), wait=1)


def test_an_operator_acknowledges_and_resolves():
    play = Play(job(budget=(9, 600), alerts=AlertPolicy(to=("ops",), remind_s=3600))).at(1).when(started(), ended(code=1))
    play.at(2).when(IncidentWish(1, resolve=False)).expect("notify acknowledged ops", "incident 1 acknowledged")
    play.says("incident 1 (job) is acknowledged")
    play.at(3).when(IncidentWish(1, resolve=True)).expect("notify closed ops", "incident 1 closed").says("incident 1 (job) is closed")
    play.at(4).when(IncidentWish(1, resolve=True)).expect().says("there is no open incident 1; `mainstay incidents` lists them", ok=False)


def test_a_reminder_comes_in_its_interval():
    play = Play(job(budget=(0, 600), alerts=AlertPolicy(to=("ops",), remind_s=3600))).at(0).when(started(), ended(code=1))
    play.expect(*play.lines, state="parked", wait=3600)
    play.at(3600).when(DUE).expect("notify reminder ops", "incident 1 reminded", wait=3600)


# ---------------------------------------------------------------- stops


def test_a_stop_asks_and_kills_after_the_grace():
    (
        Play(job())
        .at(1).when(started()).expect(state="running")
        .at(5).when(wish("stop")).expect("ask 1.1 TERM", state="stopping", wait=10).says("job stops and stays stopped until `mainstay start job`")
        .at(9).when(DUE, wish("stop")).expect(state="stopping", wait=6)  # asked twice: the grace is counted from the first time
        .at(15).when(DUE).expect("kill 1.1 stop", state="stopping", wait=None)
        .at(15).when(ended(signal=9, killed_for="stop", asked_to_stop=True)).expect("attempt 1.1 stopped", "run 1 stopped", state="paused", wait=None)
    )  # fmt: skip


def test_a_stop_of_a_run_that_is_starting_is_asked_again_once_it_can_hear():
    (
        Play(job())
        .at(1).when(wish("stop")).expect("ask 1.1 TERM", state="stopping", wait=10)
        .at(2).when(started()).expect("ask 1.1 TERM", state="stopping", wait=9)
        .at(3).when(ended(code=0, asked_to_stop=True)).expect("attempt 1.1 stopped", "run 1 stopped", state="paused")
    )  # fmt: skip


def test_a_stop_while_it_backs_off_ends_the_run_at_once():
    play = Play(job()).at(1).when(started(), ended(code=1))
    play.at(1.5).when(wish("stop")).expect("run 1 stopped", state="paused", wait=None)
    play.at(2).when(DUE).expect(state="paused")


def test_a_job_that_fails_while_it_is_being_stopped_does_not_come_back():
    play = Play(job()).at(1).when(started(), wish("stop"), ended(code=1, asked_to_stop=True))
    assert play.lines == ["ask 1.1 TERM", "attempt 1.1 stopped", "run 1 stopped"]
    play.expect(*play.lines, state="paused", wait=None)


def test_a_breach_kills_once_and_the_policy_decides_what_follows():
    (
        Play(job())
        .at(1).when(started(), breached(), breached()).expect("kill 1.1 memory", state="running")
        .at(2).when(ended(signal=9, killed_for="memory")).expect("notify opened ops", "attempt 1.1 memory", "incident 1 opened", state="backing_off", wait=1)
        .at(2).when(breached(), ended(code=0)).expect(state="backing_off")  # old news
    )  # fmt: skip


def test_a_breach_while_it_is_being_stopped_still_ends_as_stopped_by_the_operator():
    play = Play(job()).at(1).when(started(), wish("stop"), breached()).expect("ask 1.1 TERM", "kill 1.1 memory")
    play.at(1).when(ended(signal=9, killed_for="memory", asked_to_stop=True)).expect(
        "attempt 1.1 memory", "run 1 memory", state="paused", wait=None
    )
    assert "opened no incident: it was to end anyway" in str(play.last.actions)
    assert play.memo.failures_in_row == 0


def test_a_failure_of_which_nobody_had_asked_for_the_end_opens_its_incident_although_a_stop_came_in_the_same_moment():
    play = Play(job()).at(1).when(started(), wish("stop"), ended(code=1))
    assert "incident 1 opened" in play.lines


@pytest.mark.parametrize("after", [(), (job(enabled=False),)], ids=["removed", "disabled"])
@pytest.mark.parametrize("asked", [True, False])
def test_the_end_of_a_job_that_is_on_its_way_out_of_the_config_opens_no_incident(after, asked):
    play = Play(job()).at(1).when(started(), reload(*after), breached())
    play.at(2).when(ended(signal=9, killed_for="memory", asked_to_stop=asked)).expect("attempt 1.1 memory", "run 1 memory")
    assert "mainstay trigger" not in str(play.last.actions)
    assert "nothing: job is " in str(play.last.actions)


def test_a_job_that_is_disabled_has_its_incidents_closed_and_is_not_reminded_of():
    failing = job(manual=True, when="never", alerts=AlertPolicy(to=("ops",), remind_s=60))
    play = Play(failing).when(wish("trigger"), started()).at(1).when(ended(code=1))
    play.at(2).when(reload(changed(failing, enabled=False))).expect("notify closed ops", "incident 1 closed", state="disabled", wait=None)
    assert play.memo.past[0].because == "the job was disabled"


def test_a_job_that_was_disabled_while_mainstay_was_down_has_its_incidents_closed_at_the_start():
    failing = job(manual=True, when="never")
    play = Play(failing).when(wish("trigger"), started()).at(1).when(ended(code=1))
    view = engine.KeeperView("epoch-2", "boot-1", {})
    off = {"job": changed(failing, enabled=False)}
    again = engine.restore(off, {"job": play.memo}, {"job": play.job_state().incidents}, (9, 9), view, play.clock.now())
    assert [line for action in again.actions for line in lines_of(action)] == ["notify closed ops", "incident 1 closed"]


def test_events_of_an_earlier_attempt_are_old_news():
    play = Play(job()).at(1).when(started(), ended(code=1)).at(2).when(DUE, started(1, 2))
    play.at(3).when(started(), ended(code=0), lost(), breached()).expect(state="running")
    play.when(ended(7, code=0), lost(7), breached(7)).expect(state="running")


# ---------------------------------------------------------------- restart, start, trigger


def test_a_restart_wish_stops_and_starts_a_new_run():
    (
        Play(job())
        .at(1).when(started(), wish("restart")).expect("ask 1.1 TERM", state="stopping").says("job stops and starts again")
        .at(2).when(ended(signal=15, asked_to_stop=True)).expect("attempt 1.1 stopped", "run 1 stopped", "start 2.1", state="starting")
    )  # fmt: skip


def test_a_restart_wish_while_it_backs_off_starts_at_once():
    Play(job()).at(1).when(started(), ended(code=1)).at(1).when(wish("restart")).expect("run 1 stopped", "start 2.1", state="starting")


def test_a_stop_after_a_restart_wish_has_the_last_word():
    play = Play(job()).at(1).when(started(), wish("restart"), wish("stop")).expect("ask 1.1 TERM")
    play.at(2).when(ended(signal=15, asked_to_stop=True)).expect("attempt 1.1 stopped", "run 1 stopped", state="paused", wait=None)


def test_a_start_while_it_is_being_stopped_starts_it_again_afterwards():
    play = Play(job()).at(1).when(started(), wish("stop"), wish("start")).expect("ask 1.1 TERM").says("job stops and starts again")
    play.at(2).when(ended(signal=15, asked_to_stop=True)).expect("attempt 1.1 stopped", "run 1 stopped", "start 2.1", state="starting")


def test_a_start_of_a_running_job_ends_its_pause():
    play = Play(job()).at(1).when(started(), wish("pause"), wish("start")).expect(state="running").says("job is running already (run 1)")
    assert not play.memo.paused


def test_a_trigger_while_it_runs_is_refused():
    play = Play(job(every=60)).at(0).when(DUE, started()).at(1).when(wish("trigger"))
    play.expect(state="running").says("job is running already (run 1); `mainstay restart` replaces it", ok=False)


def test_a_disabled_job_does_nothing_and_says_why():
    play = Play(job(enabled=False)).expect(state="disabled", wait=None)
    for verb in ("start", "trigger", "restart"):
        play.when(wish(verb)).expect(state="disabled").says("job is disabled in the config; set enabled: true and reload", ok=False)
    play.at(9).when(DUE, wish("resume")).expect(state="disabled", wait=None)
    Play(job(every=60, enabled=False)).expect(state="disabled", wait=None).at(60).when(DUE).expect(wait=None)


def test_a_wish_for_an_unknown_job_is_answered():
    Play().when(wish("start", "ghost")).expect().says("there is no job 'ghost'; `mainstay status` lists them", ok=False)


# ---------------------------------------------------------------- pauses


def test_a_pause_leaves_the_run_alone_and_skips_fire_times():
    (
        Play(job(every=60))
        .at(0).when(DUE, started(), wish("pause")).expect("slot 0 ran as 1", "start 1.1", state="running")
        .says("job is paused until `mainstay resume job`; a run that is going on is left alone and not restarted")
        .at(5).when(ended()).expect("attempt 1.1 succeeded", "run 1 succeeded", state="paused")
        .at(60).when(DUE).expect("slot 60 skipped paused", state="paused", wait=60)
        .at(70).when(wish("resume")).expect(state="idle", wait=50).says("job is no longer paused")
        .at(120).when(DUE).expect("slot 120 ran as 2", "start 2.1")
    )  # fmt: skip


def test_a_pause_with_an_end_ends_by_itself():
    play = Play(job()).at(1).when(started(), ended())
    play.at(10).when(wish("pause", until_s=100)).expect(state="paused", wait=90)
    play.says("job is paused until 2026-03-02 00:01:40 UTC; a run that is going on is left alone and not restarted")
    play.at(100).when(DUE).expect("start 2.1", state="starting")
    assert play.memo.paused_until is None


def test_a_paused_service_that_fails_is_not_restarted_until_it_is_resumed():
    play = Play(job(budget=(9, 600))).at(1).when(started(), wish("pause")).at(2).when(ended(code=1))
    play.expect("notify opened ops", "attempt 1.1 failed", "run 1 failed", "incident 1 opened", state="paused", wait=None)
    play.at(9).when(wish("resume")).expect("start 2.1", state="starting")


def test_a_pause_ends_a_run_that_waits_for_its_next_attempt_and_its_end_starts_the_service_again():
    play = Play(job(budget=(9, 600))).at(1).when(started(), ended(code=1))
    play.when(wish("pause", until_s=100)).expect("run 1 stopped", state="paused", wait=99)
    play.at(100).when(DUE).expect("start 2.1", state="starting")


def test_a_pause_after_a_restart_wish_has_the_last_word():
    play = Play(job()).at(1).when(started(), wish("restart"), wish("pause"))
    play.at(2).when(ended(signal=15, asked_to_stop=True)).expect("attempt 1.1 stopped", "run 1 stopped", state="paused", wait=None)


def test_a_trigger_runs_a_stopped_job_once_and_leaves_it_stopped():
    play = Play(job(budget=(9, 600))).at(1).when(started(), wish("stop")).at(2).when(ended(signal=15, asked_to_stop=True))
    play.at(3).when(wish("trigger")).expect("start 2.1", state="starting")
    play.says("job: run 2 started; it runs once and stays paused until `mainstay start job`")
    play.when(started(2)).at(4).when(ended(2, code=1))
    play.expect("notify opened ops", "attempt 2.1 failed", "run 2 failed", "incident 1 opened", state="paused", wait=None)


def test_a_trigger_ends_parking_but_not_the_end_of_a_pause():
    play = Play(job(budget=(0, 600))).at(1).when(started(), wish("pause", until_s=100), ended(code=1)).at(2).when(wish("trigger"))
    assert (play.memo.parked, play.memo.paused) == (None, True)
    assert play.memo.paused_until is not None


def test_the_end_of_a_pause_is_no_person_so_a_parked_job_stays_parked():
    play = Play(job(budget=(0, 600))).at(1).when(started(), wish("pause", until_s=100), ended(code=1))
    assert play.lines[-1] == "parked failed budget_spent"
    play.at(100).when(DUE).expect(state="parked", wait=None)


def test_a_resume_by_a_person_starts_a_parked_service():
    Play(job(budget=(0, 600))).at(1).when(started(), ended(code=1)).at(9).when(wish("resume")).expect("start 2.1", state="starting")


# ---------------------------------------------------------------- shutdown


def test_a_shutdown_stops_everything_and_then_finishes():
    (
        Play(job(), job("other", budget=(9, 600)), job("timed", every=60))
        .at(1).when(started(), started(2, name="other"), ended(2, name="other", code=1))
        .at(1).when(SHUTDOWN).expect("ask 1.1 TERM", "run 2 stopped", state="stopping", wait=10)
        .at(2).when(wish("start")).expect().says("Mainstay is stopping", ok=False)
        .at(11).when(DUE).expect("kill 1.1 stop", wait=None)
        .at(11).when(ended(signal=9, killed_for="stop")).expect("attempt 1.1 stopped", "run 1 stopped", "finished", state="idle")
    )  # fmt: skip


def test_a_shutdown_with_nothing_alive_is_over_at_once():
    Play(job(every=60)).at(1).when(SHUTDOWN).expect("finished", wait=None)


@pytest.mark.parametrize("life", ["a fire time", "the end of a pause", "a first run"])
def test_nothing_begins_while_mainstay_stops_and_nothing_is_due(life):
    play = Play(job("slow"), job(every=60) if life != "the end of a pause" else job())
    if life == "a fire time":
        play.when(DUE, started(2), ended(2))
    if life == "the end of a pause":
        play.when(started(2), ended(2), wish("pause", until_s=5))
    play.at(1).when(SHUTDOWN).expect("ask 1.1 TERM", wait=10)
    play.at(8).set_wall(200).when(DUE).expect(wait=3)
    play.when(ended(1, name="slow", asked_to_stop=True)).expect("attempt 1.1 stopped", "run 1 stopped", "finished")


def test_the_process_of_an_old_config_is_stopped_and_judged_by_it():
    old = job(stop=None) if False else job(grace=3)
    new = changed(job(grace=99, argv=("other",)), limits=Limits(time_s=5), stop=StopPolicy("INT", 99))
    play = Play(old).at(1).when(started())
    play.at(2).when(reload(new)).expect("ask 1.1 TERM", state="stopping", wait=3)


# ---------------------------------------------------------------- several runs of one job

CRASH = {"signal": 11}
OVERLAPPING = {"every": 60, "overlap": "allow", "park_on": frozenset({Outcome.CRASHED}), "budget": (9, 600)}


def test_a_job_that_one_run_has_parked_starts_no_attempt_for_another():
    play = Play(job(**OVERLAPPING)).when(DUE, started()).at(60).when(DUE, started(2))
    play.at(61).when(ended(2, **CRASH)).expect(
        "notify opened ops", "attempt 2.1 crashed", "run 2 crashed", "incident 1 opened", "parked crashed park_on", state="running"
    )
    play.at(62).when(ended(1, code=3))
    assert [line for line in play.lines if line.startswith(("run", "start", "parked"))] == ["run 1 failed"]
    assert "nothing more: the job is parked (park_on) until `mainstay start job`" in str(play.last.actions)
    play.at(500).when(DUE)
    assert not [line for line in play.lines if line.startswith("start")]


def test_a_run_that_waits_for_its_next_attempt_is_over_when_another_parks_the_job():
    play = Play(job(**OVERLAPPING, backoff=Backoff(first_s=100, factor=1, max_s=100, jitter=0))).when(DUE, started(), ended(code=3))
    play.at(60).when(DUE, started(2), ended(2, **CRASH))
    assert [line for line in play.lines if line.startswith(("run", "parked"))] == [
        "run 2 crashed",
        "run 1 stopped",
        "parked crashed park_on",
    ]
    assert play.memo.runs == ()
    assert play.job_state().state is State.PARKED


def test_a_job_is_parked_once_however_many_of_its_runs_would():
    play = Play(job(**OVERLAPPING)).when(DUE, started()).at(60).when(DUE, started(2)).at(61).when(ended(2, **CRASH), ended(1, **CRASH))
    assert [line for line in play.lines if line.startswith("parked")] == ["parked crashed park_on"]


def test_the_command_of_a_heal_step_is_the_last_of_a_run_whose_job_is_parked_meanwhile():
    healing = HealPolicy(2, {"failed": (RunCommand(("clean",), 5.0),)})
    play = Play(job(**OVERLAPPING, heal=healing)).when(DUE, started(), ended(code=3)).at(1).when(DUE, started(1, 2), ended(1, 2, code=3))
    assert "start 1.3" in play.lines, play.lines
    play.at(60).when(DUE, started(1, 3), started(2), ended(2, **CRASH)).at(61).when(ended(1, 3))
    assert play.lines == ["attempt 1.3 succeeded", "run 1 stopped", "command 1.3 succeeded"]


def _will(play):
    """What the dossier that was just written says of what comes next."""
    rows = [row for action in play.last.actions if isinstance(action, Record) for row in action.rows if isinstance(row, AttemptRow)]
    return next(json.loads(row.report)["will"] for row in reversed(rows) if row.report is not None)


CHANGED = changed(job(), launch=Launch(("run", "other"), "/"))


@pytest.mark.parametrize(
    ("first", "event", "said"),
    [
        (job(), wish("restart"), "start it again at once, as a new run"),
        (job(), wish("stop"), "nothing until `mainstay start job`"),
        (job(), reload(CHANGED), "start it again at once, as a new run"),
        (job(), reload(changed(job(), enabled=False)), "nothing: job is disabled in the config"),
        (job(), reload(), "nothing: job is no longer in the config"),
        (job(), SHUTDOWN, "start it again when Mainstay starts again"),
        (job(manual=True), SHUTDOWN, "nothing until it is asked to: `mainstay trigger job`"),
    ],
    ids=["restart", "stop", "changed", "disabled", "removed", "shutdown", "shutdown of no service"],
)
def test_what_comes_next_is_said_of_a_run_that_was_asked_to_stop(first, event, said):
    play = Play(first)
    if first.schedule.is_service:
        play.when(DUE)
    else:
        play.when(wish("trigger"))
    play.when(started()).at(5).when(event).at(6).when(ended(signal=15))
    assert _will(play) == [said]


def test_what_comes_next_is_said_of_a_run_that_another_replaces():
    play = Play(job(every=60, overlap="replace")).when(DUE, started()).at(60).when(DUE).at(61).when(ended(signal=15))
    assert _will(play) == ["nothing more of this run: the next one takes its place"]


def test_a_lost_attempt_of_a_service_did_not_live_well_for_as_long_as_nobody_looked():
    heals = changed(job(), heal=HealPolicy(repeats=2, steps={"failed": (ChangeEnvironment({"SAFE": "1"}),)}))
    courses, failures = [], []
    for found_after in (2, 900):
        play = Play(heals).when(DUE, started())
        for attempt, ends_at, goes_on_at in ((1, 2, 3), (2, 4, 6)):
            play.at(ends_at).when(ended(attempt=attempt, code=1)).at(goes_on_at).when(DUE, started(attempt=attempt + 1))
        play.at(7 + found_after).when(lost(attempt=3))
        memo = play.job_state().memo
        courses.append((memo.course.times, memo.course.changes))
        failures.append(memo.failures_in_row)
    assert courses == [(2, (("failed", 0),))] * 2
    assert failures == [3, 3]


def test_a_lost_run_lasted_at_most_until_it_was_found():
    play = Play(job()).when(DUE, started()).at(8).when(lost())
    rows = [row for action in play.last.actions if isinstance(action, Record) for row in action.rows if isinstance(row, AttemptRow)]
    assert json.loads(rows[0].report)["duration_seconds"] == 8
