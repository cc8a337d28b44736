"""All jobs together: new configs, restores, and what holds whatever happens in whatever order."""

from datetime import timedelta

import pytest
from fakes import T0, Life
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from playbook import DUE, SHUTDOWN, Play, ended, job, lines_of, reload, started, wish
from world import World

from supervisor.core import engine
from supervisor.core.actions import Record, StartAttempt
from supervisor.core.events import Due
from supervisor.core.jobs import AlertPolicy, Backoff, Job, Limits, StopPolicy
from supervisor.core.model import Outcome, State
from supervisor.core.records import AttemptPhase, AttemptRow
from supervisor.core.state import EngineState, Memo

CHANGED = ("attempt 1.1 stopped", "run 1 stopped")
STOPPED = ended(signal=15, asked_to_stop=True)

# ---------------------------------------------------------------- a new config


def test_a_service_that_comes_with_a_reload_starts_and_an_unchanged_one_is_left_alone():
    play = Play(job()).at(1).when(started()).at(5).when(reload(job(), job("new")))
    play.expect("start 2.1", state="running").expect("start 2.1", state="starting", name="new")


def test_a_job_that_leaves_is_stopped_its_incidents_close_and_it_is_gone():
    play = Play(job(budget=(9, 600))).at(1).when(started(), ended(code=1)).at(2).when(DUE, started(1, 2))
    play.at(3).when(reload()).expect("notify closed ops", "ask 1.2 TERM", "incident 1 closed", state="stopping")
    play.at(4).when(ended(1, 2, signal=15, asked_to_stop=True)).expect("attempt 1.2 stopped", "run 1 stopped")
    assert not play.state.jobs


def test_a_service_whose_process_would_differ_is_restarted_and_stopped_by_the_config_it_began_with():
    old, new = job(grace=3), replace(job(argv=("other",)), limits=Limits(time_s=5), stop=StopPolicy("INT", 99))
    play = Play(old).at(1).when(started())
    play.at(2).when(reload(new)).expect("ask 1.1 TERM", state="stopping", wait=3)
    play.at(3).when(STOPPED).expect(*CHANGED, "start 2.1", state="starting")
    assert [action.job for action in play.last.actions if isinstance(action, StartAttempt)] == [new]


def test_a_service_whose_policy_alone_changed_goes_on_with_the_old_one():
    play = Play(job(budget=(9, 600))).at(1).when(started()).at(2).when(reload(job(budget=(0, 600)))).expect(state="running")
    play.at(3).when(ended(code=1)).expect("notify opened ops", "attempt 1.1 failed", "incident 1 opened", state="backing_off")


def test_a_service_that_is_restarted_between_two_attempts_starts_at_once():
    Play(job()).at(1).when(started(), ended(code=1)).at(1).when(reload(job(argv=("other",)))).expect("run 1 stopped", "start 2.1")


@pytest.mark.parametrize(
    "wishes",
    [
        ("stop", "resume"),
        ("stop", "start"),
        ("restart", "pause", "resume"),
        ("restart", "pause", "start"),
        ("pause", "stop", "resume"),
        ("reload", "stop", "start"),
        ("reload", "pause", "start"),
        ("reload", "stop", "resume"),
        ("disable", "enable"),
    ],
)
def test_a_service_that_is_wanted_again_before_its_end_starts_after_it(wishes):
    other, off = job(argv=("other",)), replace(job(), enabled=False)
    told = {"reload": reload(other), "disable": reload(off), "enable": reload(job())}
    play = Play(job()).at(1).when(started()).at(2).when(*(told.get(one) or wish(one) for one in wishes))
    assert play.state.jobs["job"].state is State.STOPPING
    play.at(3).when(STOPPED).expect(*CHANGED, "start 2.1", state="starting")


def test_a_service_whose_pause_ends_before_its_run_does_starts_after_it():
    play = Play(job()).at(1).when(started()).at(2).when(wish("restart"), wish("pause", until_s=3)).at(4).when(DUE)
    play.at(5).when(STOPPED).expect(*CHANGED, "start 2.1", state="starting")


def test_a_service_whose_pause_lasts_longer_than_its_run_starts_at_the_end_of_the_pause():
    play = Play(job()).at(1).when(started()).at(2).when(wish("restart"), wish("pause", until_s=9))
    play.at(5).when(STOPPED).expect(*CHANGED, state="paused", wait=4).at(9).when(DUE).expect("start 2.1", state="starting")


@pytest.mark.parametrize("end", [ended(), ended(code=1), STOPPED], ids=["well", "failed", "ended by hand"])
def test_a_job_that_becomes_a_service_while_it_runs_is_started_as_one_after_it(end):
    play = Play(job(manual=True, when="never")).when(wish("trigger"), started()).at(2).when(reload(job()))
    assert play.state.jobs["job"].state is State.RUNNING
    play.at(3).when(end)
    assert "start 2.1" in play.lines


def test_a_pause_with_an_end_is_no_end_of_a_stop():
    play = Play(job()).at(1).when(started(), wish("stop"), STOPPED, wish("pause", until_s=5))
    play.says("job is stopped or paused already, without an end, and stays so until `mainstay start job`")
    play.at(6).when(DUE).expect(state="paused", wait=None)
    play.when(wish("start")).expect("start 2.1")
    play = Play(job(every=60)).when(DUE, started(), ended(), wish("pause", until_s=500), wish("pause", until_s=90))  # the last one counts
    assert play.memo.paused_until == T0 + timedelta(seconds=90)


def test_start_says_that_a_service_which_a_reload_restarts_is_coming():
    play = Play(job()).at(1).when(started()).at(2).when(reload(job(argv=("other",)))).when(wish("start"))
    play.says("job stops and starts again").at(3).when(STOPPED).expect(*CHANGED, "start 2.1", state="starting")


def overlapping(**more):
    """Three runs of one job at a time."""
    play = Play(job(every=60, overlap="allow", **more)).when(DUE, started())
    return play.at(60).when(DUE, started(2)).at(120).when(DUE, started(3))


def test_a_restart_of_several_runs_is_followed_by_one():
    play = overlapping().at(121).when(wish("restart")).expect("ask 1.1 TERM", "ask 2.1 TERM", "ask 3.1 TERM")
    play.at(122).when(ended(2, signal=15, asked_to_stop=True)).expect("attempt 2.1 stopped", "run 2 stopped")
    play.when(ended(3, signal=15, asked_to_stop=True)).expect("attempt 3.1 stopped", "run 3 stopped")
    play.when(STOPPED).expect(*CHANGED, "start 4.1", state="starting")


def test_a_restart_of_several_runs_that_wait_for_their_next_attempt_is_followed_by_one():
    play = overlapping(backoff=Backoff(first_s=500, factor=1, max_s=500, jitter=0), budget=(9, 600)).at(121)
    play.when(*(ended(run, code=1) for run in (1, 2))).when(wish("restart"))
    play.expect("run 1 stopped", "run 2 stopped", "ask 3.1 TERM")
    play.when(ended(3, code=1))
    assert [run.id for run in play.memo.runs] == [4]
    play = overlapping(backoff=Backoff(first_s=500, factor=1, max_s=500, jitter=0), budget=(9, 600)).at(121)
    play.when(*(ended(run, code=1) for run in (1, 2, 3))).when(wish("restart"))
    play.expect("run 1 stopped", "run 2 stopped", "run 3 stopped", "start 4.1", state="starting")


def test_several_runs_whose_job_comes_back_as_a_service_are_followed_by_one():
    play = overlapping().at(121).when(reload(), reload(job()))
    play.at(122).when(*(ended(run, signal=15, asked_to_stop=True) for run in (1, 2, 3)))
    assert [line for line in play.lines if line.startswith("start")] == ["start 4.1"]


def test_a_restart_does_not_add_a_run_where_another_has_begun_meanwhile():
    play = overlapping().at(121).when(wish("restart")).at(180).when(DUE, started(4))  # the next fire time
    play.when(reload(job(every=60, overlap="forbid")))
    play.when(*(ended(run, signal=15, asked_to_stop=True) for run in (1, 2, 3)))
    assert [line for line in play.lines if line.startswith("start")] == []
    assert [run.id for run in play.memo.runs] == [4]


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_who_asks_for_a_job_that_is_ending_for_good_is_told_so(verb):
    play = Play(job()).at(1).when(started()).at(2).when(reload(replace(job(), enabled=False)), wish(verb))
    play.says("job is disabled in the config; set enabled: true and reload", ok=False)
    play.when(STOPPED).expect(*CHANGED, state="disabled")
    play = Play(job()).at(1).when(started()).at(2).when(reload(), wish(verb))
    play.says("job is no longer in the config, and is only ending; put it back and reload", ok=False)
    play.when(STOPPED).expect(*CHANGED)


def test_a_run_of_a_timed_job_keeps_its_config_and_the_next_one_has_the_new():
    old, new = job(every=60, budget=(0, 600)), job(every=60, budget=(9, 600), argv=("other",))
    play = Play(old).when(DUE, started()).at(1).when(reload(new)).expect(state="running")
    play.at(2).when(ended(code=1)).expect("notify opened ops", "attempt 1.1 failed", "run 1 failed", "incident 1 opened", state="idle")
    play.at(60).when(DUE, ended(2, code=1)).expect(
        "slot 60 ran as 2", "start 2.1", "attempt 2.1 failed", "incident 1 seen", state="backing_off"
    )


def test_a_service_that_is_switched_off_and_on_again_while_it_stops_starts_again():
    play = Play(job()).at(1).when(started(), reload(job(enabled=False))).expect("ask 1.1 TERM", state="stopping")
    play.at(2).when(reload(job())).expect(state="stopping")
    play.at(3).when(STOPPED).expect(*CHANGED, "start 2.1", state="starting")


def test_a_service_that_leaves_and_comes_back_while_it_stops_starts_again():
    play = Play(job()).at(1).when(started(), reload()).expect("ask 1.1 TERM", state="stopping")
    play.at(2).when(reload(job())).expect(state="stopping")
    play.at(3).when(STOPPED).expect(*CHANGED, "start 2.1", state="starting")


def test_a_service_that_was_stopped_by_a_person_stays_so_over_reloads():
    play = Play(job()).at(1).when(started(), wish("stop")).at(2).when(reload(job(argv=("other",))))
    play.at(3).when(STOPPED).expect(*CHANGED, state="paused")
    play.at(4).when(reload(job(argv=("third",)))).expect(state="paused")


def test_a_job_that_becomes_a_service_starts_although_its_last_run_went_well():
    Play(job(manual=True)).when(wish("trigger"), ended()).at(1).when(reload(job())).expect("start 2.1")


def test_a_run_of_a_timed_job_that_becomes_a_service_is_not_looked_at_for_ever():
    play = Play(job(every=3600, budget=(9, 600))).when(DUE, ended(code=1)).at(1).when(DUE, started(1, 2))
    play.at(2).when(reload(job())).expect()
    play.at(100).when(DUE).expect(wait=None)


def test_a_disabled_service_is_stopped_and_an_enabled_one_starts():
    play = Play(job()).at(1).when(started()).at(2).when(reload(job(enabled=False))).expect("ask 1.1 TERM")
    play.at(3).when(STOPPED).expect(*CHANGED, state="disabled")
    play.at(4).when(reload(job())).expect("start 2.1", state="starting")


def test_a_reload_while_mainstay_stops_starts_nothing():
    play = Play(job()).at(1).when(started(), SHUTDOWN).at(2).when(reload(job(argv=("other",)), job("new"), job("timed", every=60)))
    play.expect(state="stopping").expect(state="idle", name="new")
    play.at(3).when(STOPPED).expect(*CHANGED, "finished")


def test_a_thousand_reloads_in_a_row_restart_a_service_once():
    play = Play(job()).at(1).when(started())
    play.when(*(reload(job(argv=(f"version-{n}",))) for n in range(1000))).expect("ask 1.1 TERM")
    play.at(2).when(STOPPED).expect(*CHANGED, "start 2.1", state="starting")
    assert play.job_state().job_of(2).launch.argv == ("version-999",)


# ---------------------------------------------------------------- what is written


def test_an_intent_is_durable_and_names_the_keeper_that_is_asked():
    play = Play(job())
    record, start = play.last.actions
    assert isinstance(record, Record)
    assert record.durable
    (row,) = [row for row in record.rows if isinstance(row, AttemptRow)]
    assert (row.phase, row.epoch, row.boot_id, row.run, row.attempt) == (AttemptPhase.INTENDED, "epoch-1", "boot-1", 1, 1)
    assert lines_of(start) == ["start 1.1"]


def test_a_step_that_fails_leaves_the_state_as_it_was():
    play = Play(job())
    before = play.state
    result = engine.step(play.state, Due("ghost"), play.clock.now())
    assert (result.state, result.actions) == (before, ())


# ---------------------------------------------------------------- whatever happens

POLICIES = st.builds(
    lambda when, budget, kind, overlap, catch_up, after, grace: job(
        "job",
        when=when,
        budget=(budget, 100),
        overlap=overlap,
        catch_up=catch_up,
        within=600,
        grace=grace,
        stable=20,
        alerts=AlertPolicy(to=("ops",), after=after, remind_s=50),
        **{"service": {}, "manual": {"manual": True}, "every": {"every": 20}, "cron": {"cron": "* * * * *", "jitter": 30}}[kind],
    ),
    st.sampled_from(["never", "on-failure", "always"]),
    st.integers(0, 3),
    st.sampled_from(["service", "every", "cron", "manual"]),
    st.sampled_from(["forbid", "replace", "allow"]),
    st.sampled_from(["none", "last", "all"]),
    st.integers(1, 3),
    st.sampled_from([0.5, 5, 30]),
)
LIVES = st.sampled_from(
    [
        Life(lives_s=1, code=0),
        Life(lives_s=30, code=0),
        Life(lives_s=1, code=1),
        Life(lives_s=25, code=None, signal=11),
        Life(),
        Life(heeds_s=None),
        Life(lives_s=500, heeds_s=10),
        Life(launch_error="no such file"),
    ]
)
DEEDS = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([0.3, 1, 7, 20, 61, 300])),
    st.tuples(st.just("wish"), st.sampled_from(["start", "stop", "restart", "trigger", "pause", "resume"])),
    st.tuples(st.just("pause"), st.sampled_from([1, 50, 5000])),
    st.tuples(st.just("crash"), st.integers(1, 6)),
    st.tuples(st.just("jump"), st.sampled_from([-86400, -3600, -30, 30, 3600, 86400])),
    st.tuples(st.just("keeper"), st.just(0)),
    st.tuples(st.just("reboot"), st.just(0)),
    st.tuples(st.just("reload"), st.sampled_from(["argv", "off", "gone", "other", "back"])),
)


def do(world: World, base: Job, deed: str, how: float | str) -> None:
    match deed:
        case "wait":
            world.run(float(how))
        case "wish":
            world.wish(str(how), "job")
        case "pause":
            world.wish("pause", "job", (world.clock.wall - T0).total_seconds() + float(how))
        case "crash":
            world.crash_after = world.done + int(how)  # while it does whatever comes next
        case "jump":
            world.jump(float(how))
        case "keeper":
            world.kill_keeper()
        case "reboot":
            world.reboot()
        case "reload":
            jobs = {
                "argv": (replace(base, launch=replace(base.launch, argv=("other",))),),
                "off": (replace(base, enabled=False),),
                "gone": (),
                "other": (base, job("other")),
                "back": (base,),
            }
            world.reload(*jobs[str(how)])


@given(base=POLICIES, lives=st.lists(LIVES, min_size=1, max_size=5), deeds=st.lists(DEEDS, max_size=12))
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_happens_nothing_is_lost_or_doubled_and_a_shutdown_ends_it(base, lives, deeds):
    world = World(base, life=lambda key, _plan: lives[hash_of(key) % len(lives)])
    world.boot()
    for deed, how in deeds:
        do(world, base, deed, how)
        world.run(0.1)
    world.crash_after = None
    world.verify()
    world.shut_down()
    world.run(100)
    world.verify()
    assert world.finished
    assert world.keeper.said_bye
    assert not world.keeper.live


@given(
    kinds=st.lists(st.sampled_from(["every", "service", "failed", "quiet", "gone"]), min_size=1, max_size=8),
    after_s=st.sampled_from([0, 1, 60, 61]),
)
def test_jobs_that_are_due_together_are_decided_as_one_after_the_other_and_written_at_once(kinds, after_s):
    names = [f"{kind}-{number}" for number, kind in enumerate(kinds)]
    made = {
        name: job(name=name, every=60)
        if kind == "every"
        else job(name=name, manual=True)
        if kind == "quiet"
        else job(name=name, budget=(9, 600))
        for name, kind in zip(names, kinds, strict=True)
        if kind != "gone"
    }
    play = Play(*made.values())
    for number, name in enumerate((name for name in made if not name.startswith(("every", "quiet"))), 1):
        play.at(1).when(started(number, 1, name), *([ended(number, 1, name, code=1)] if name.startswith("failed") else []))
    play.at(max(1, after_s))
    now = play.clock.now()
    state, rows, orders = play.state, [], []
    for name in names:
        one = engine.step(state, Due(name), now)
        state = one.state
        rows += [row for action in one.actions if isinstance(action, Record) for row in action.rows]
        orders += [action for action in one.actions if not isinstance(action, Record)]
    together = engine.step_due(play.state, names, now)
    assert together.state == state
    assert [action for action in together.actions if not isinstance(action, Record)] == orders
    records = [(place, action) for place, action in enumerate(together.actions) if isinstance(action, Record)]
    assert [(place, list(record.rows)) for place, record in records] == ([(0, rows)] if rows else [])
    assert all(record.durable for _, record in records) or not any(isinstance(action, StartAttempt) for action in orders)
    assert set(together.touched) == set(made)


def hash_of(key: str) -> int:
    run, _, attempt = key.partition(".")
    return 7 * int(run) + int(attempt)


# ---------------------------------------------------------------- odds and ends of a restore


def restored(memo: Memo, keeper: engine.KeeperView, base=None) -> engine.Step:
    play = Play(fresh=False)
    base = base or job()
    return engine.restore({"job": base}, {"job": memo}, {}, (9, 9), keeper, play.clock.now())


def test_a_stop_whose_signal_may_not_have_been_sent_is_asked_for_again_and_its_kill_too():
    play = Play(job()).at(1).when(started(), wish("stop"))
    view = engine.KeeperView("epoch-1", "boot-1", {(1, 1): (101, play.clock.mono())})
    again = restored(play.memo, view)
    assert [line for action in again.actions for line in lines_of(action)] == ["ask 1.1 TERM"]
    play.at(11).when(DUE).expect("kill 1.1 stop")
    again = engine.restore({"job": job()}, {"job": play.memo}, {}, (9, 9), view, play.clock.now())
    killed = engine.step(again.state, DUE, play.clock.now())
    assert [line for action in killed.actions for line in lines_of(action)] == ["kill 1.1 stop"]


def test_the_budget_of_one_boot_means_nothing_in_the_next():
    play = Play(job(budget=(1, 600))).at(1).when(started(), ended(code=1))
    assert len(play.memo.restarts) == 1
    again = restored(play.memo, engine.KeeperView("epoch-2", "boot-2", {}))
    memo = again.state.jobs["job"].memo
    assert memo.restarts == ()
    assert [(run.phase, run.begun_at) for run in memo.runs] == [(State.BACKING_OFF, None)]


def test_nothing_begins_in_a_brain_that_a_stopping_keeper_started():
    again = restored(Memo(Play(fresh=False).clock.wall), engine.KeeperView("epoch-1", "boot-1", {}, stopping=True))
    assert not again.state.jobs["job"].memo.runs
    assert again.state.closing


def test_the_duration_of_a_run_does_not_change_with_the_clock():
    play = Play(job(manual=True)).when(wish("trigger"), started()).at(60).set_wall(4000).when(ended(lived=60))
    assert play.memo.last.duration_s == 60
    assert play.memo.last.outcome is Outcome.SUCCEEDED


def test_an_empty_engine_knows_no_deadline():
    assert engine.earliest(EngineState({})) == (None, None)
