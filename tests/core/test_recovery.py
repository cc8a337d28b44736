"""The brain dies after every single action of every scenario, the keeper too, and the machine: the same end, or an honest one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from fakes import Life
from msgspec.structs import replace
from playbook import job
from world import Script, World

from supervisor.core.events import ReleaseWish
from supervisor.core.evidence import Progress
from supervisor.core.jobs import Backoff, Job
from supervisor.core.model import Outcome
from supervisor.core.records import AttemptPhase, SlotResult
from supervisor.core.remedy import ChangeEnvironment, HealPolicy, Park, RunCommand, SetAside, TryAgain

LIVES_ON = Life()


@dataclass(frozen=True)
class Scenario:
    """Jobs, how their attempts live (by key), what is done to them, and how long it goes on."""

    jobs: tuple[Job, ...]
    lives: Mapping[str, Life]
    script: Script = ()
    until: float = 100.0
    default: Life = LIVES_ON

    def world(self) -> World:
        return World(*self.jobs, life=lambda key, _plan: self.lives.get(key, self.default))

    def play(self, prepare: Callable[[World], Any] = lambda _world: None) -> World:
        world = self.world()
        prepare(world)
        world.boot()
        world.run(self.until, self.script)
        return world


FAILS = Life(lives_s=2, code=1)
WORKS = Life(lives_s=2, code=0)
CRASHES = Life(lives_s=2, code=None, signal=11)
STUBBORN = Life(heeds_s=None)
AT_ONCE = Backoff(first_s=0, factor=1, max_s=0, jitter=0)
ABSENT = Life(launch_error="no such file")
SLOWER, CLEAN = ChangeEnvironment({"BATCH_SIZE": "10"}), RunCommand(("clean",), 5.0)


def poison(key: str) -> Life:
    """It dies of that record."""
    return Life(lives_s=2, code=None, signal=11, position=Progress(key, keyed=True, records=3))


SCENARIOS = {
    "a service that fails, comes back and stays": Scenario((job(),), {"1.1": FAILS, "1.2": CRASHES}),
    "a service that gives up": Scenario((job(budget=(2, 600)),), {}, default=FAILS),
    "a service that cannot be started": Scenario((job(budget=(2, 600)),), {}, default=ABSENT),
    "a service that fails and goes on at once": Scenario(
        (job(backoff=AT_ONCE, budget=(4, 600)),), {"1.1": FAILS, "1.2": CRASHES, "1.3": Life(lives_s=1, code=3), "1.4": FAILS}
    ),
    "a service that goes on at once until its budget is spent": Scenario((job(backoff=AT_ONCE, budget=(3, 600)),), {}, default=FAILS),
    "a service that goes on at once and ends well": Scenario((job(backoff=AT_ONCE),), {"1.1": FAILS, "1.2": WORKS}),
    "a service that goes on at once however it ended": Scenario(
        (job(backoff=AT_ONCE, when="always", budget=(20, 50)),),
        {"1.1": FAILS, "1.3": STUBBORN},
        ((5, lambda w: w.wish("pause", "job", 8)), (9, lambda w: w.wish("restart", "job")), (30, lambda w: w.wish("stop", "job"))),
        default=WORKS,
    ),
    "a shutdown amid restarts at once": Scenario(
        (job(backoff=AT_ONCE, when="always", budget=(99, 600)),),
        {},
        ((10.5, lambda w: w.shut_down()),),
        until=40,
        default=Life(lives_s=1, code=1),
    ),
    "a job of every minute that fails now and then": Scenario(
        (job(every=60, budget=(1, 600)),), {"2.1": FAILS, "2.2": FAILS, "3.1": FAILS}, until=200, default=WORKS
    ),
    "fire times that overlap": Scenario((job(every=10),), {}, until=50, default=Life(lives_s=25)),
    "fire times that replace a stubborn run": Scenario(
        (job(every=20, overlap="replace", grace=3),), {"1.1": STUBBORN}, until=70, default=Life(lives_s=25)
    ),
    "fire times that run side by side": Scenario((job(every=10, overlap="allow"),), {"2.1": FAILS}, until=45, default=Life(lives_s=25)),
    "a stop that needs a kill": Scenario(
        (job(), job("other", manual=True)),
        {"1.1": STUBBORN, "2.1": FAILS},
        ((5, lambda w: w.wish("trigger", "other")), (9, lambda w: w.wish("stop", "job")), (40, lambda w: w.wish("start", "job"))),
    ),
    "a restart while it starts, backs off and runs": Scenario(
        (job(budget=(9, 600)),),
        {"1.1": Life(heeds_s=1), "2.1": FAILS},
        ((0, lambda w: w.wish("restart", "job")), (3.5, lambda w: w.wish("restart", "job")), (20, lambda w: w.wish("restart", "job"))),
    ),
    "a pause with an end, and a backlog": Scenario(
        (job(every=10, catch_up="all"), job("service")),
        {},
        (
            (5, lambda w: w.wish("pause", "job", 33)),
            (6, lambda w: w.wish("pause", "service", 40)),
            (7, lambda w: w.wish("stop", "service")),
            (50, lambda w: w.wish("resume", "service")),
        ),
        until=80,
        default=WORKS,
    ),
    "a job that leaves and one that comes": Scenario(
        (job(), job("leaves", grace=3), job("timed", every=10)),
        {"2.1": STUBBORN},
        (
            (11, lambda w: w.reload(job(), job("comes"), job("timed", every=10))),
            (12, lambda w: w.reload(job(), job("comes"), job("leaves"), job("timed", every=10))),
        ),
        until=45,
    ),
    "a poison record, and the service goes on without it": Scenario(
        (job(budget=(3, 600)),), {"1.1": poison("u7"), "1.2": poison("u7"), "1.3": poison("u9"), "1.4": poison("u9")}
    ),
    "a failure that repeats": Scenario((job(budget=(9, 600)),), {}, default=replace(FAILS, position=Progress(records=4))),
    "every step of heal, one after the other": Scenario(
        (job(budget=(9, 600), heal=HealPolicy(2, {"crashed": (TryAgain(), SLOWER, CLEAN, SetAside(), Park())})),),
        {"1.5": Life(lives_s=3, code=1)},
        default=poison("u7"),
    ),
    "a command that needs a kill when the job is stopped, and one that is in vain": Scenario(
        (job(budget=(9, 600), grace=3, heal=HealPolicy(2, {"crashed": (CLEAN, CLEAN, SLOWER)})),),
        {"1.3": Life(lives_s=1, code=0), "1.5": STUBBORN},
        ((14, lambda w: w.wish("stop", "job")), (30, lambda w: w.wish("start", "job"))),
        default=CRASHES,
    ),
    "records set aside and taken back by timed runs": Scenario(
        (job(every=10, when="never"),),
        {},
        ((45, lambda w: w.tell(ReleaseWish("job", "u7"))), (46, lambda w: w.tell(ReleaseWish("job", "nobody")))),
        until=80,
        default=poison("u7"),
    ),
    "a shutdown": Scenario(
        (job(grace=3), job("other", budget=(9, 600)), job("timed", every=10)),
        {"1.1": STUBBORN, "2.1": FAILS},
        ((12, lambda w: w.shut_down()),),
        until=40,
        default=Life(lives_s=30, heeds_s=1),
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_brain_that_dies_after_any_action_changes_nothing(name):
    scenario = SCENARIOS[name]
    undisturbed = scenario.play()
    undisturbed.verify()
    expected, actions = undisturbed.digest(), undisturbed.done
    assert actions > 10
    for nth in range(1, actions + 1):
        world = scenario.play(lambda w, nth=nth: setattr(w, "crash_after", nth))
        world.verify()
        found = world.digest()
        for part, value in expected.items():
            assert found[part] == value, f"dead after action {nth}: {part}"


def _after_action(nth: int, what: Callable[[World], None]) -> Callable[[World], None]:
    """The brain dies after action *nth* and *what* happens as well."""

    def prepare(world: World) -> None:
        world.crash_after = nth
        world.on_crash = what

    return prepare


def _reboot(world: World) -> None:
    world.keeper.reboot()
    world.restarts.clear()


def _lose_power(world: World) -> None:
    _reboot(world)
    world.power_lost = True
    world.store.lose_power()


@pytest.mark.parametrize(
    ("disaster", "every"), [(lambda w: w.keeper.die(), 2), (_reboot, 4), (_lose_power, 3)], ids=["keeper", "reboot", "power"]
)
@pytest.mark.parametrize("name", SCENARIOS)
def test_when_the_children_die_unseen_their_runs_are_lost_and_nothing_is_doubled(name, disaster, every):
    scenario = SCENARIOS[name]
    actions = scenario.play().done
    for nth in range(every, actions + 1, every):
        world = scenario.play(_after_action(nth, disaster))
        world.run(100)
        world.verify()
        if not world.finished:
            _goes_on(world)


def _goes_on(world: World) -> None:
    """Services that nobody stopped and that did not give up are up again, or about to be."""
    for state in world.state.jobs.values():
        memo = state.memo
        over = memo.last is not None and memo.last.outcome is Outcome.SUCCEEDED
        if state.job.schedule.is_service and not (memo.paused or memo.parked or over):
            assert memo.runs, f"{state.name} is {state.state} for ever"


def test_a_run_that_was_alive_when_the_machine_went_down_is_lost_and_its_slot_is_not_run_again():
    world = World(job(every=3600, budget=(0, 600), when="never"), life=lambda _key, _plan: Life(lives_s=100))
    world.boot()
    world.run(10)
    world.reboot()
    world.run(10)
    world.verify()
    assert world.store.attempts[1, 1].outcome is Outcome.LOST
    assert [row.outcome for row in world.store.runs.values()] == [Outcome.LOST]
    assert world.keeper.starts.total() == 1


def test_runs_that_were_starting_side_by_side_are_lost_each_although_the_first_of_them_begins_again_at_once():
    together = job(every=10, overlap="allow", backoff=Backoff(first_s=0, factor=1, max_s=0, jitter=0), budget=(9, 600))
    world = World(together)
    world.boot()
    world.run(15)
    text = world.store.texts["job"].replace('"running"', '"starting"')  # as if both had been asked for just now
    world.store.texts["job"] = text
    world.kill_keeper()
    world.run(1)
    assert dict(world.keeper.starts) == {"1.1": 1, "2.1": 1, "1.2": 1, "2.2": 1}
    assert {row.outcome for row in world.store.attempts.values() if row.attempt == 1} == {Outcome.LOST}


def test_an_exit_record_that_outlived_the_machine_is_believed():
    world = World(job(), life=lambda _key, _plan: Life(lives_s=5, code=7))
    world.boot()
    world.run(4)
    world.clock.advance(2)
    world.keeper.tick()  # recorded, and nobody was told
    world.reboot()
    world.verify()
    assert (world.store.attempts[1, 1].outcome, world.store.attempts[1, 1].exit_code) == (Outcome.FAILED, 7)


def test_a_service_that_the_last_mainstay_stopped_starts_with_the_next_one_although_its_end_was_not_written():
    world = World(job(), job("idle", manual=True))
    world.boot()
    world.run(5)
    world.keeper.obey({"op": "signal", "key": "1.1"})  # the keeper gave up waiting for the brain
    world.keeper.tick()
    world.kill_keeper()
    world.run(5)
    world.verify()
    assert world.store.attempts[1, 1].outcome is Outcome.STOPPED
    assert sorted(world.keeper.live) == ["2.1"]


def test_an_operators_stop_outlives_both_halves():
    world = World(job())
    world.boot()
    world.run(5)
    world.wish("stop", "job")
    world.keeper.tick()
    world.kill_keeper()
    world.run(5)
    world.reboot()
    world.run(50)
    world.verify()
    assert world.state.jobs["job"].state.value == "paused"
    assert world.keeper.starts.total() == 1


def test_a_job_that_vanished_from_the_config_while_mainstay_was_down_is_stopped_and_its_incident_closed():
    world = World(job(), job("other", budget=(0, 600)), life=lambda key, _plan: FAILS if key == "2.1" else Life())
    world.boot()
    world.run(10)
    assert [one.job for one in world.store.open_incidents()] == ["other"]
    world.jobs = {}
    world.crash()
    world.run(10)
    world.verify()
    assert not world.state.jobs
    assert not world.keeper.live
    assert not world.store.open_incidents()


def test_an_attempt_that_no_memo_knows_is_killed_and_its_record_let_go():
    world = World(job())
    world.boot()
    world.run(5)
    world.store.texts.clear()  # the history was broken and begun afresh
    world.crash()
    world.run(5)
    assert sorted(world.keeper.live) == ["2.1"]
    assert world.keeper.histories["1.1"]["killed_for"] == "unknown"
    assert not world.keeper.records


@pytest.mark.parametrize(("catch_up", "ran"), [("none", 0), ("last", 1), ("all", 6)])
def test_slots_that_passed_while_mainstay_was_down_are_caught_up_as_configured(catch_up, ran):
    world = World(job(every=600, catch_up=catch_up), life=lambda _key, _plan: WORKS)
    world.boot()
    world.run(10)
    world.clock.advance(3700)  # nobody is there
    world.crash()
    world.run(100)
    world.verify()
    world.verify_slots()
    late = [row for row in world.store.slots.values() if row.result is SlotResult.LATE]
    skipped = [row.reason.value for row in world.store.slots.values() if row.result is SlotResult.SKIPPED]
    assert (len(late), skipped) == (ran, ["daemon_down"] * (6 - ran))


def test_a_fire_time_that_passed_before_the_first_look_is_not_forgotten():
    """A brain that dies between being configured and the first fire time remembers since when the job is there."""
    world = World(job(cron="*/10 * * * *"))
    world.boot()
    world.clock.advance(660)
    world.crash()
    world.run(1)
    world.verify_slots()
    assert len(world.store.slots) == 1


@pytest.mark.parametrize(
    ("deed", "lives"),
    [
        (lambda w: w.wish("stop", "job"), []),
        (lambda w: w.wish("restart", "job"), ["2.1"]),
        (lambda w: w.wish("pause", "job"), ["1.2"]),  # what goes on is left alone
        (lambda w: (w.wish("pause", "job"), w.wish("stop", "job")), []),
        (lambda w: w.reload(), []),
        (lambda w: w.shut_down(), []),
    ],
    ids=["stop", "restart", "pause", "pause and stop", "reload without it", "shutdown"],
)
def test_a_wish_that_comes_before_the_news_of_an_end_meets_what_followed_it(deed: Callable[[World], Any], lives: list[str]) -> None:
    """The keeper has begun the next attempt, and nobody has told the brain: it must not live on with nobody watching."""
    world = World(job(backoff=AT_ONCE, when="always", budget=(20, 50)))
    world.boot()
    world.run(5)
    world.keeper.end("1.1", signal=9)
    assert sorted(world.keeper.live) == ["1.2"]
    deed(world)
    world.run(30)
    assert sorted(world.keeper.live) == lives
    assert world.store.attempts[1, 2].phase is (AttemptPhase.STARTED if "1.2" in lives else AttemptPhase.ENDED)
    world.verify()


def test_what_followed_at_once_is_not_waited_for_whatever_the_end_was() -> None:
    """Out of memory on the host means a wait; but the keeper, which cannot know, has begun the next one."""
    world = World(job(backoff=AT_ONCE, when="always", budget=(20, 50)))
    world.boot()
    world.run(5)
    world.host_oom_kills = 1
    world.keeper.end("1.1", signal=9)
    world.run(0)
    assert world.store.attempts[1, 1].outcome is Outcome.HOST_OOM
    world.host_oom_kills = 0
    world.keeper.end("1.2", code=3)
    world.run(5)
    assert world.store.attempts[1, 2].exit_code == 3
    assert sorted(world.keeper.live) == ["1.3"]
    world.verify()


@pytest.mark.parametrize("policy", [{"when": "never"}, {"retry_on": frozenset({Outcome.MEMORY})}])
def test_a_service_that_is_not_to_be_started_again_is_left_alone_by_each_new_brain(policy):
    world = World(job(**policy), life=lambda _key, _plan: Life(lives_s=5, code=1))
    world.boot()
    world.run(10)
    for _ in range(3):
        world.crash()
        world.run(10)
    assert sorted(world.store.runs) == [1]
    world.kill_keeper()  # a new start of Mainstay begins it again
    world.run(10)
    assert sorted(world.store.runs) == [1, 2]
    world.reload(job(**policy, argv=("mended",)))  # who has edited it wants to see it run
    world.run(10)
    assert sorted(world.store.runs) == [1, 2, 3]
