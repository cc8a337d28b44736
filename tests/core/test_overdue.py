"""A job that does not succeed in time: told once, closed by the next success, silent while it is meant to be silent."""

from datetime import timedelta

import pytest
from fakes import T0
from hypothesis import given
from hypothesis import strategies as st
from playbook import DUE, Play, changed, ended, job, reload, started, wish

from supervisor.core import engine, overdue
from supervisor.core.jobs import Expect
from supervisor.core.model import Outcome

EXPECT = Expect(success_every_s=600.0)


def expected(**rest):
    return job(manual=True, expect=EXPECT, **rest)


def test_a_job_that_never_succeeds_is_told_once_when_its_time_is_over():
    play = Play(expected())
    assert play.wait == 600
    play.at(599).when(DUE).expect(state="idle", wait=1)
    play.at(600).when(DUE).expect("notify opened ops", "incident 1 opened", state="idle")
    play.at(1300).when(DUE).expect(state="idle")
    incident = play.job_state().incidents[0]
    assert (incident.outcome, incident.run, incident.occurrences) == (Outcome.UNMET, 0, 1)
    assert incident.summary == "no success for 10m, expected every 10m"


def test_the_next_success_closes_it_and_the_time_begins_anew():
    play = Play(expected()).at(600).when(DUE).at(700).when(wish("trigger")).when(started())
    play.at(702).when(ended()).expect(
        "notify closed ops", "attempt 1.1 succeeded", "run 1 succeeded", "incident 1 closed", state="idle", wait=600
    )
    play.at(1302).when(DUE).expect("notify opened ops", "incident 2 opened")
    assert play.job_state().incidents[0].run == 1


def test_who_is_told_that_it_fails_is_not_told_that_it_does_not_succeed():
    play = Play(expected(when="never")).at(590).when(wish("trigger"), started())
    play.at(595).when(ended(code=1)).expect("notify opened ops", "attempt 1.1 failed", "run 1 failed", "incident 1 opened")
    play.at(600).when(DUE).expect(state="idle")
    play.at(900).when(DUE).expect(state="idle")


def test_a_pause_is_silence_on_purpose_and_its_end_begins_the_time_anew():
    play = Play(expected()).at(100).when(wish("pause"))
    play.at(2000).when(DUE).expect(state="paused", wait=None)
    play.at(2000).when(wish("resume")).expect(state="idle", wait=600)
    play.at(2600).when(DUE).expect("notify opened ops", "incident 1 opened")


def test_a_pause_that_ends_by_itself_begins_the_time_anew():
    play = Play(expected()).at(100).when(wish("pause", until_s=2000))
    play.at(2000).when(DUE).expect(state="idle", wait=600)


@pytest.mark.parametrize(
    "silent", [job(expect=EXPECT), job(manual=True), expected(enabled=False)], ids=["a service", "no such line", "disabled"]
)
def test_nothing_is_overdue_where_no_success_is_expected(silent):
    play = Play(silent)
    play.at(100_000).when(DUE)
    assert not [line for line in play.lines if line.startswith("incident")]


def test_a_line_that_a_reload_brings_counts_from_then():
    play = Play(job(manual=True)).at(5000).when(reload(expected())).expect(wait=600)
    play.at(5600).when(DUE).expect("notify opened ops", "incident 1 opened")


def test_another_line_does_not_begin_the_time_anew():
    Play(expected()).at(300).when(reload(changed(expected(), expect=Expect(success_every_s=900.0)))).expect(wait=600)


def test_a_restart_of_mainstay_neither_tells_again_nor_forgets():
    first = Play(expected()).at(600).when(DUE)
    memo, incidents = first.memo, first.job_state().incidents
    view = engine.KeeperView("epoch-2", "boot-1", {})
    play = Play(expected(), fresh=False).at(700)
    play._take(None, engine.restore(play.jobs, {"job": memo}, {"job": incidents}, (1, 2), view, play.clock.now()))
    assert play.lines == []
    play.at(1400).when(DUE).expect(state="idle")


def test_the_time_that_mainstay_was_down_is_not_the_jobs_silence():
    memo = Play(expected()).memo
    view = engine.KeeperView("epoch-2", "boot-1", {})
    play = Play(expected(), fresh=False).at(50_000)
    play._take(None, engine.restore(play.jobs, {"job": memo}, {}, (1, 1), view, play.clock.now()))
    play.expect(wait=600)


@given(every=st.floats(1, 1e7), since=st.floats(0, 1e7), success=st.none() | st.floats(-1e7, 1e7))
def test_nobody_is_overdue_before_their_time(every, since, success):
    begun = T0 + timedelta(seconds=since)
    last = None if success is None else T0 + timedelta(seconds=success)
    at = overdue.overdue_at(job(manual=True, expect=Expect(success_every_s=every)), last, begun, ())
    assert at - begun >= timedelta(seconds=every)
    assert last is None or at - last >= timedelta(seconds=every)
