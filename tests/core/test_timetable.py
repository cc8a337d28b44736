"""What becomes of fire times: first runs, overlap, catch-up, jitter, backlog, and a clock that somebody sets."""

from datetime import timedelta
from itertools import pairwise

import pytest
from fakes import T0, Life
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from playbook import DUE, SHUTDOWN, Play, ended, job, reload, started, wish
from world import World

from supervisor.core import lived, schedule
from supervisor.core.records import SlotResult

HOUR, DAY = 3600.0, 86400.0
ENDS = tuple(ended(run) for run in range(1, 99))  # of whichever run there is


# ---------------------------------------------------------------- the first run


def test_an_interval_job_that_never_ran_runs_at_once_and_then_in_its_rhythm():
    play = Play(job(every=3600)).at(1500)
    assert play.wait <= 0  # due since it was configured
    play.when(DUE).expect("slot 0 ran as 1", "start 1.1", wait=2100)
    play.when(started(), ended()).at(3600).when(DUE).expect("slot 3600 ran as 2", "start 2.1")


def test_a_cron_job_waits_for_its_first_fire_time():
    Play(job(cron="0 1 * * *")).expect(wait=3600).at(3600).when(DUE).expect("slot 3600 ran as 1", "start 1.1", wait=DAY)


def test_an_interval_job_that_is_paused_before_its_first_run_waits():
    play = Play(job(every=3600)).when(wish("pause")).at(10).when(DUE).expect(state="paused", wait=3590)
    play.at(20).when(wish("resume"), DUE).expect("slot 0 ran as 1", "start 1.1")


# ---------------------------------------------------------------- overlap


def test_a_fire_time_during_a_run_is_skipped_where_overlap_is_forbidden():
    play = Play(job(every=60)).when(DUE, started())
    play.at(60).when(DUE).expect("slot 60 skipped overlap", state="running", wait=60)
    play.at(90).when(ended()).at(120).when(DUE).expect("slot 120 ran as 2", "start 2.1")


def test_a_fire_time_replaces_the_run():
    play = Play(job(every=60, overlap="replace")).when(DUE, started())
    play.at(60).when(DUE).expect("ask 1.1 TERM", state="stopping", wait=10)
    play.at(65).when(ended(signal=15, asked_to_stop=True)).expect(
        "attempt 1.1 stopped", "run 1 stopped", "slot 60 ran as 2", "start 2.1", state="starting"
    )


def test_a_fire_time_that_waits_to_replace_is_replaced_itself_and_leaves_its_row():
    play = Play(job(every=5, overlap="replace", grace=100)).when(DUE, started())
    play.at(5).when(DUE).expect("ask 1.1 TERM")
    play.at(10).when(DUE).expect("slot 5 skipped overlap", state="stopping")
    play.at(12).when(ended(signal=15, asked_to_stop=True)).expect("attempt 1.1 stopped", "run 1 stopped", "slot 10 ran as 2", "start 2.1")


def test_a_fire_time_replaces_a_run_that_backs_off_at_once():
    play = Play(job(every=60, overlap="replace", budget=(9, 600))).when(DUE, started()).at(59.5).when(ended(code=1))
    play.at(60).when(DUE).expect("run 1 stopped", "slot 60 ran as 2", "start 2.1")


def test_runs_go_on_side_by_side_where_overlap_is_allowed():
    play = Play(job(every=60, overlap="allow")).when(DUE, started())
    play.at(60).when(DUE, started(2)).expect("slot 60 ran as 2", "start 2.1", state="running")
    play.at(61).when(wish("stop")).expect("ask 1.1 TERM", "ask 2.1 TERM", state="stopping")
    play.at(62).when(ended(2, asked_to_stop=True)).expect("attempt 2.1 stopped", "run 2 stopped", state="stopping")
    play.at(63).when(ended(1, asked_to_stop=True)).expect("attempt 1.1 stopped", "run 1 stopped", state="paused")


# ---------------------------------------------------------------- missed


def late(play: Play) -> Play:
    """At 00:45:00 after a first run at midnight, with nobody having looked since."""
    return play.when(DUE, started(), ended()).at(2700)


@pytest.mark.parametrize(
    ("catch_up", "within", "lines"),
    [
        # a fire time of this minute runs in any case
        ("none", None, ["slot 900 skipped daemon_down", "slot 1800 skipped daemon_down", "slot 2700 ran as 2", "start 2.1"]),
        (
            "last",
            None,
            ["slot 900 skipped daemon_down", "slot 1800 skipped daemon_down", "slot 2700 ran as 2", "start 2.1"],
        ),  # that is the last
        ("all", None, ["slot 900 late as 2", "start 2.1"]),
        ("all", 1000, ["slot 900 skipped daemon_down", "slot 1800 late as 2", "start 2.1"]),
    ],
)
def test_missed_fire_times_are_caught_up_as_configured(catch_up, within, lines):
    late(Play(job(every=900, catch_up=catch_up, within=within))).when(DUE).expect(*lines)


def test_those_that_are_caught_up_run_one_after_the_other():
    play = late(Play(job(every=900, catch_up="all"))).at(2690).when(DUE).expect("slot 900 late as 2", "start 2.1")
    play.at(2691).when(started(2), ended(2)).expect("attempt 2.1 succeeded", "run 2 succeeded", "slot 1800 late as 3", "start 3.1")
    play.at(2692).when(ended(3)).expect("attempt 3.1 succeeded", "run 3 succeeded", state="idle", wait=8)


@pytest.mark.parametrize("overlap", ["forbid", "replace"])
def test_one_that_is_due_now_waits_behind_those_that_are_caught_up(overlap):
    play = late(Play(job(every=900, catch_up="all", overlap=overlap))).when(DUE).expect("slot 900 late as 2", "start 2.1")
    play.at(2701).when(started(2), ended(2)).expect("attempt 2.1 succeeded", "run 2 succeeded", "slot 1800 late as 3", "start 3.1")
    play.at(2702).when(started(3), ended(3)).expect("attempt 3.1 succeeded", "run 3 succeeded", "slot 2700 ran as 4", "start 4.1")
    play.at(2703).when(started(4), ended(4)).expect("attempt 4.1 succeeded", "run 4 succeeded", state="idle", wait=897)


def test_those_that_are_caught_up_do_not_wait_for_ever_where_runs_always_overlap():
    world = World(job(every=60, catch_up="all", overlap="allow"), life=lambda _key, _plan: Life(lives_s=150))
    world.boot()
    world.run(300)
    world.clock.advance(600)  # Mainstay is down
    world.keeper.tick()
    world.crash()
    at_once = []
    for _ in range(300):
        world.run(10)
        at_once.append(sum(world.keeper.plans[key]["slot"] < T0 + timedelta(seconds=880) for key in world.keeper.live))
    world.verify()
    world.verify_slots()
    assert world.state.jobs["job"].memo.backlog == ()
    assert {row.result for row in world.store.slots.values()} <= {SlotResult.RAN, SlotResult.LATE}
    assert max(at_once[:130]) <= 4  # one after the other, beside those of their own time


def test_a_stop_empties_the_backlog_and_says_so():
    play = late(Play(job(every=900, catch_up="all"))).at(2690).when(DUE).expect("slot 900 late as 2", "start 2.1")
    play.when(wish("stop")).expect("slot 1800 skipped stopped", "ask 2.1 TERM")
    assert play.memo.backlog == ()


def test_a_backlog_waits_for_the_end_of_a_pause():
    play = late(Play(job(every=900, catch_up="all"))).at(2690).when(DUE, wish("pause"), ended(2))
    play.expect("slot 900 late as 2", "start 2.1", "attempt 2.1 succeeded", "run 2 succeeded", state="paused")
    play.at(2695).when(wish("resume")).expect()
    assert play.wait <= 0
    play.when(DUE).expect("slot 1800 late as 3", "start 3.1")


def test_a_backlog_outlives_a_shutdown():
    play = late(Play(job(every=900, catch_up="all"))).at(2690).when(DUE, SHUTDOWN, ended(2, asked_to_stop=True))
    assert play.lines[-1] == "finished"
    assert play.memo.backlog == (T0 + timedelta(seconds=1800),)
    assert play.wait is None


def test_fire_times_of_a_paused_and_of_a_parked_job_are_skipped_with_the_reason():
    play = Play(job(every=900)).when(DUE, started(), ended(), wish("pause"))
    play.at(2700).when(DUE).expect("slot 900 skipped paused", "slot 1800 skipped paused", "slot 2700 skipped paused")


def test_fire_times_of_a_life_of_mainstay_without_the_job_are_nobodys():
    there, other = job(every=60, catch_up="all"), job("other", manual=True)
    world = World(there, other, life=lambda _key, _plan: Life(lives_s=1))
    world.boot()
    world.run(130)
    for jobs in ((other,), (there, other)):
        world.jobs = {one.name: one for one in jobs}
        world.kill_keeper()
        world.run(600)
    world.verify()
    moments = sorted((slot - T0).total_seconds() for name, slot in world.store.slots if name == "job")
    assert moments == [0, 60, 120, *range(780, 1330, 60)]


@pytest.mark.parametrize("comes_back", ["by a reload", "by a start of Mainstay"])
@pytest.mark.parametrize("is_running", [True, False])
@pytest.mark.parametrize("is_gone", [True, False])
@pytest.mark.parametrize("catch_up", ["none", "last", "all"])
def test_fire_times_while_a_job_is_disabled_or_gone_are_nobodys(catch_up, is_gone, is_running, comes_back):
    there = job(every=60, catch_up=catch_up)
    other = job("other", manual=True)
    world = World(there, other, life=lambda _key, _plan: Life(lives_s=30, heeds_s=5 if is_running else 0))
    world.boot()
    world.run(130)
    world.reload(*(() if is_gone else (replace(there, enabled=False),)), other)
    world.run(2 if is_running and is_gone and comes_back == "by a reload" else 1000)  # so soon that its run is still ending
    if comes_back == "by a reload":
        world.reload(there, other)
    else:
        world.jobs = {one.name: one for one in (there, other)}
        world.kill_keeper()
    back = world.clock.passed
    world.run(200)
    world.verify()
    moments = sorted((slot - T0).total_seconds() for name, slot in world.store.slots if name == "job")
    assert [at for at in moments if 130 < at <= back] == []
    assert [at for at in moments if at <= 130] == [0, 60, 120]
    assert [at for at in moments if at > back] == [60 * n for n in range(int(back // 60) + 1, int((back + 200) // 60) + 1)]


@pytest.mark.parametrize("catch_up", ["none", "last", "all"])
def test_fire_times_of_a_pause_that_ended_while_mainstay_was_down_are_paused(catch_up):
    play = Play(job(every=60, catch_up=catch_up)).when(DUE, started(), ended(), wish("pause", until_s=240))
    play.at(330).when(DUE)  # nobody has looked since
    paused = ["slot 60 skipped paused", "slot 120 skipped paused", "slot 180 skipped paused"]
    assert [line for line in play.lines if line.startswith("slot") and "paused" in line] == paused
    rest = ["slot 240 late as 2"] if catch_up == "all" else ["slot 240 skipped daemon_down"]
    assert [line for line in play.lines if line.startswith("slot 240")] == rest


def test_the_fire_time_at_the_very_end_of_a_pause_runs():
    play = Play(job(every=60)).when(DUE, started(), ended(), wish("pause", until_s=60)).at(60).when(DUE)
    play.expect("slot 60 ran as 2", "start 2.1")


@pytest.mark.parametrize("catch_up", ["none", "last", "all"])
def test_a_schedule_that_was_edited_while_mainstay_was_down_counts_from_the_start(catch_up):
    old, new = job(every=DAY, catch_up=catch_up), job(cron="0 1 * * *", catch_up=catch_up)
    world = World(old, life=lambda _key, _plan: Life(lives_s=5))
    world.boot()
    world.run(2 * HOUR)
    world.jobs = {"job": new}  # 01:00 of today is past, and was not this job's then
    world.kill_keeper()
    world.run(DAY)
    world.verify()
    assert sorted((slot - T0).total_seconds() for _, slot in world.store.slots) == [0, DAY + HOUR]


@pytest.mark.parametrize(("overlap", "line"), [("forbid", "slot 0 skipped overlap"), ("allow", "slot 0 ran as 2")])
def test_the_first_fire_time_of_a_job_that_runs_already_leaves_its_row(overlap, line):
    play = Play(job(manual=True)).when(wish("trigger"), started()).at(5).when(reload(job(every=3600, overlap=overlap)), DUE)
    assert line in play.lines
    assert ("start 2.1" in play.lines) is (overlap == "allow")


def test_a_backlog_is_bounded_and_what_it_cannot_hold_leaves_its_rows():
    play = Play(job(every=1, catch_up="all")).when(DUE, started()).at(1200).when(DUE)
    assert len(play.memo.backlog) == 1000
    assert play.lines[0] == "slot 1 skipped overlap"
    assert len(play.lines) == 200  # 199 that had no room and the one of this second


def test_of_a_long_outage_the_latest_fire_times_get_a_row_each():
    play = Play(job(every=60)).when(DUE, started(), ended()).at(30 * DAY).when(DUE)
    skipped = [line for line in play.lines if "daemon_down" in line]
    assert len(skipped) == 9_999
    assert play.lines[-2:] == ["slot 2592000 ran as 2", "start 2.1"]


# ---------------------------------------------------------------- jitter


@given(jitter=st.integers(0, 3000), seconds=st.lists(st.integers(1, 700), max_size=20))
@settings(max_examples=60)
def test_every_due_slot_has_exactly_one_row_however_long_the_jitter_and_late_the_look(jitter, seconds):
    play = Play(job(every=300, jitter=jitter))
    rows = []
    for step in seconds:
        play.at((play.clock.wall - T0).total_seconds() + step).when(DUE)
        rows += [line.split()[1] for line in play.lines if line.startswith("slot ")]
        for run in play.memo.runs:
            play.when(ended(run.id))
    last = play.memo.last_slot
    first = T0 + timedelta(seconds=float(rows[0])) if rows else T0
    due = schedule.missed(play.jobs["job"].schedule, "job", first, last or first, 10**6)
    assert rows == rows[:1] + [f"{(slot - T0).total_seconds():.12g}" for slot in due]


def test_a_jitter_of_more_slots_than_are_looked_up_does_not_hold_the_loop():
    play = Play(job(cron="* * * * *", jitter=9 * DAY)).at(8.9 * DAY).when(DUE)
    assert play.lines
    assert play.wait > 0


# ---------------------------------------------------------------- a new schedule


def test_a_new_schedule_counts_from_now_although_the_old_one_never_fired():
    play = Play(job(cron="0 0 1 1 *")).at(5 * DAY).when(reload(job(cron="*/10 * * * *", catch_up="all"))).expect(wait=600)
    play.at(5 * DAY + 600).when(DUE).expect("slot 432600 ran as 1", "start 1.1")


def test_a_job_that_becomes_an_interval_job_and_never_ran_runs_at_once():
    Play(job(cron="0 0 1 1 *")).at(90).when(reload(job(every=60)), DUE).expect("slot 60 ran as 1", "start 1.1")


def test_a_job_that_leaves_and_comes_back_runs_no_slot_twice():
    play = Play(job(every=3600)).at(10).when(DUE, started(), ended()).at(20).when(reload()).expect()
    play.at(30).when(reload(job(every=3600)), DUE).expect(wait=3570)


# ---------------------------------------------------------------- the clock is set


def test_a_clock_set_back_runs_no_slot_twice():
    play = Play(job(every=600)).when(DUE, ended()).at(600).when(DUE, ended(2)).expect(*play_lines(600, 2))
    play.at(660).set_wall(30).when(DUE).expect(wait=1170)  # 00:10 was had already
    play.at(660 + 1170).when(DUE).expect("slot 1200 ran as 3", "start 3.1")


def play_lines(slot: int, run: int) -> list[str]:
    return [f"slot {slot} ran as {run}", f"start {run}.1", f"attempt {run}.1 succeeded", f"run {run} succeeded"]


def test_a_clock_that_was_wrong_for_a_while_and_is_set_right_does_not_stop_the_schedule():
    play = Play(job(every=600)).when(DUE, ended())
    play.at(60).set_wall(DAY).when(DUE, ended(2))  # a day ahead
    assert f"slot {DAY:.12g} ran as 2" in play.lines
    play.at(120).set_wall(120).when(DUE).expect(wait=480)
    play.at(600).when(DUE, ended(3)).expect(*play_lines(600, 3))  # skipped by mistake, and run when its time has really come


@pytest.mark.parametrize("away", [-56 * 365 * DAY, 73 * 365 * DAY, -3 * DAY, 3 * DAY])
def test_a_clock_that_was_far_away_comes_back_to_where_it_was(away):
    play = Play(job(every=600, catch_up="all", within=HOUR)).when(DUE, ended()).at(600).when(DUE, ended(2))
    play.at(700).set_wall(700 + away).when(DUE)
    while play.memo.runs:
        play.when(*(ended(run.id) for run in play.memo.runs))
    play.at(760).set_wall(760).when(DUE).expect(wait=440)
    play.at(1200).when(DUE)
    assert "slot 1200 " in " ".join(play.lines)


def test_a_job_that_was_configured_while_the_clock_was_far_ahead_runs_once_it_is_right():
    play = Play(job(cron="*/10 * * * *")).set_wall(-40 * DAY).when(DUE).expect(wait=600)
    play.at(600).when(DUE)
    assert play.lines[-1] == "start 1.1"


def test_what_a_wrong_clock_showed_long_ago_is_forgotten_after_a_week():
    play = Play(job(every=DAY / 2)).at(DAY / 2).when(DUE).set_wall(30 * DAY).when(DUE, *ENDS).set_wall(DAY / 2).when(DUE)
    for halves in range(2, 70):
        play.at(halves * DAY / 2).when(DUE, *ENDS)
        assert len(play.memo.lived) == (2 if halves < 15 else 1)
        assert any(f"slot {halves * 43200} ran" in line for line in play.lines), "a month ahead is not had yet"
    assert play.memo.lived == ((T0 + timedelta(days=0.5), T0 + timedelta(days=34.5)),)


moments = st.integers(0, 600).map(lambda minutes: T0 + timedelta(minutes=minutes))


@given(st.lists(st.tuples(moments, moments).map(lambda pair: (min(pair), max(pair))), max_size=30))
def test_stretches_stay_few_apart_and_hold_all_that_was_put_in(pairs):
    stretches: tuple[lived.Stretch, ...] = ()
    for begin, end in pairs:
        stretches = lived.add(stretches, begin, end)
        assert len(stretches) <= lived.STRETCHES_MAX
        assert list(stretches) == sorted(stretches)
        assert all(one[1] < two[0] for one, two in pairwise(stretches))
    for begin, end in pairs:
        assert any(one[0] <= begin <= end <= one[1] for one in stretches)
        assert lived.place(stretches, end) >= end
    assert lived.place(stretches, T0 - timedelta(days=1)) is None


def test_a_year_of_slots_has_one_row_each_over_daylight_saving():
    berlin = job(cron="30 2 * * *", when="never")
    berlin = type(berlin)(
        "job",
        berlin.launch,
        schedule=type(berlin.schedule)(type(berlin.schedule.when)("30 2 * * *", "Europe/Berlin")),
        restart=berlin.restart,
    )
    world = World(berlin, life=lambda _key, _plan: Life(lives_s=60))
    world.boot()
    world.run(365 * DAY)
    world.verify()
    world.verify_slots()
    assert len(world.store.slots) == 365
    assert {row.result for row in world.store.slots.values()} == {SlotResult.RAN}
