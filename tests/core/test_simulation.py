"""Months of schedules in seconds: failures, crashes of the brain, deaths of the keeper, reboots, reloads, and a clock that is set.

Everything follows from the seed; a seed that fails is a test case. ``MAINSTAY_SEEDS=100-2000`` plays more of them,
``MAINSTAY_STEPS=50000`` plays them for longer.
"""

import os
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from fakes import Life
from msgspec.structs import replace
from playbook import job
from world import World

from supervisor.core.evidence import Progress
from supervisor.core.jobs import AlertPolicy, Backoff, Job
from supervisor.core.model import Outcome
from supervisor.core.remedy import ChangeEnvironment, HealPolicy, Park, RunCommand, SetAside

HOUR, DAY = 3600.0, 86400.0
STEPS_MAX = int(os.environ.get("MAINSTAY_STEPS", "1500"))
STEPS = (ChangeEnvironment({"A": "1"}), SetAside(), RunCommand(("clean",), 5.0), Park())
FAR = {"1970": datetime(1970, 1, 1, 12, tzinfo=UTC), "2099": datetime(2099, 12, 31, 23, 59, tzinfo=UTC)}


def seeds(default: range) -> list[int]:
    """Those of MAINSTAY_SEEDS ("7" or "100-2000"), else a few."""
    first, _, last = os.environ.get("MAINSTAY_SEEDS", "").partition("-")
    return list(range(int(first), int(last or first) + 1)) if first else list(default)


def jobs(random: Random) -> list[Job]:
    """A household: every kind of schedule, overlap and catch-up, with policies drawn by lot."""

    def policy() -> dict[str, Any]:
        return {
            "when": random.choice(["never", "on-failure", "on-failure", "always"]),
            "budget": (random.randint(0, 4), random.choice([60, 600, 3600])),
            "backoff": Backoff(first_s=random.choice([0, 1, 30]), factor=2, max_s=300, jitter=0.1),
            "grace": random.choice([1, 10, 60]),
            "alerts": AlertPolicy(to=("ops",), after=random.randint(1, 3), remind_s=random.choice([None, 4 * HOUR])),
            "heal": random.choice([HealPolicy(), HealPolicy(None), HealPolicy(2, {"crashed": STEPS, "failed": STEPS[2:]})]),
        }

    def timing() -> dict[str, Any]:
        catch_up = random.choice(["none", "last", "all"])
        return {"overlap": random.choice(["forbid", "replace", "allow"]), "catch_up": catch_up, "within": 12 * HOUR, **policy()}

    return [
        job("service", **policy()),
        job("often", every=random.choice([600, 3600]), **timing()),
        job("hourly", cron="7 * * * *", jitter=random.choice([0, 300, 5000]), **timing()),
        job("nightly", cron="30 2 * * 1-5", **timing()),
        job("yearly", cron="0 0 29 2 *", **timing()),
        job("manual", manual=True, **policy()),
    ]


class Simulation:
    """A world and what befalls it, all drawn from one seed."""

    def __init__(self, seed: int, *, clock_is_set: bool) -> None:
        self.random = Random(seed)
        self.seed = seed
        self.clock_is_set = clock_is_set
        self.configured = jobs(self.random)
        self.world = World(*self.configured, life=self._life)

    def _life(self, key: str, plan: Mapping[str, Any]) -> Life:
        random = Random(f"{self.seed} {plan['job']} {key}")
        heeds_s = random.choice([0, 0, 0, 5, None])
        if plan["job"] == "service" and random.random() < 0.7:
            return Life(heeds_s=heeds_s)
        if random.random() < 0.03:
            return Life(launch_error="out of processes")
        code, signal = random.choice([(0, None), (0, None), (0, None), (1, None), (2, None), (None, 11)])
        position = random.choice(
            [None, None, Progress("u7", keyed=True), Progress(f"u{random.randint(1, 9)}", keyed=True, records=3), Progress(records=4)]
        )
        return Life(lives_s=random.choice([0.5, 20, 300, 2 * HOUR]), code=code, signal=signal, heeds_s=heeds_s, position=position)

    def play(self, days: float) -> World:
        world, random = self.world, self.random
        world.boot()
        end = world.clock.passed + days * DAY
        while world.clock.passed < end and world.steps < STEPS_MAX:
            world.run(random.expovariate(1 / (8 * HOUR)))
            self._befall()
        world.crash_after = None
        world.run(1)
        return world

    def _befall(self) -> None:
        random, world = self.random, self.world
        deeds = [self._crash, self._crash, self._keeper, self._reboot, self._down, self._wish, self._wish, self._reload, self._cross]
        deeds += [self._change_mind]
        if self.clock_is_set:
            deeds += [self._jump, self._jump]
        random.choice(deeds)()
        for state in world.state.jobs.values():  # somebody looks after what gave up
            if state.memo.parked and random.random() < 0.3:
                world.wish("start", state.name)

    def _crash(self) -> None:
        self.world.crash_after = self.world.done + self.random.randint(1, 40)

    def _keeper(self) -> None:
        self.world.kill_keeper()

    def _reboot(self) -> None:
        self.world.reboot(lose_power=self.random.random() < 0.3)

    def _down(self) -> None:
        """Mainstay is not there for a while; the keeper and the jobs go on."""
        self.world.clock.advance(self.random.choice([10, HOUR, DAY, 3 * DAY]))
        self.world.keeper.tick()
        self.world.crash()

    def _wish(self) -> None:
        name = self.random.choice(sorted(self.world.state.jobs) or ["service"])
        verb = self.random.choice(["start", "start", "stop", "restart", "trigger", "pause", "resume"])
        self.world.wish(verb, name)
        if verb in ("stop", "pause"):
            self.world.run(self.random.choice([0, 60, 5 * HOUR]))
            self.world.wish("start", name)

    def _cross(self) -> None:
        """An attempt ends, and the keeper may have begun the next; before the brain hears of it somebody wants something, or the host is out of memory."""
        live = self.world.keeper.live
        armed = [key for key, child in live.items() if child.armed is not None]
        if armed or live:
            self.world.host_oom_kills = self.random.choice([0, 0, 1])
            self.world.keeper.end(self.random.choice(sorted(armed or live)), signal=9)
        self.random.choice([self._wish, self._wish, self._reload, lambda: self.world.run(0)])()
        self.world.host_oom_kills = 0

    def _change_mind(self) -> None:
        """Several wishes before the first of them is fulfilled."""
        name = self.random.choice([*self.world.state.jobs, "service"])
        for _ in range(self.random.randint(2, 4)):
            verb = self.random.choice(["start", "stop", "restart", "pause", "resume", "pause"])
            until = self.world.clock.passed + self.random.choice([0.2, 5, HOUR]) if verb == "pause" and self.random.random() < 0.5 else None
            self.world.wish(verb, name, until)
            self.world.run(self.random.choice([0, 0, 0.1, 2]))
        self.world.wish(self.random.choice(["start", "resume"]), name)

    def _reload(self) -> None:
        changed = [one for one in self.configured if self.random.random() < 0.9]
        nth = self.random.randrange(len(changed)) if changed else 0
        if changed:
            launch = replace(changed[nth].launch, argv=(f"version-{self.random.randint(1, 9)}",))
            changed[nth] = replace(changed[nth], launch=launch, enabled=self.random.random() < 0.8)
            if self.random.random() < 0.3:  # it becomes a job of another kind, perhaps while it runs
                changed[nth] = replace(changed[nth], schedule=self.random.choice(self.configured).schedule)
        self.world.reload(*changed)
        self.world.run(self.random.choice([0, 30, HOUR]))
        self.world.reload(*self.configured)

    def _jump(self) -> None:
        """The clock is set, and after a while set right; sometimes by way of another wrong time."""
        world, random = self.world, self.random
        for _ in range(random.choice([1, 1, 2])):
            wrong = random.choice([-HOUR, HOUR, -DAY, DAY, -2.5, "1970", "2099"])
            world.jump(wrong) if isinstance(wrong, float) else world.set_wall(FAR[wrong].timestamp() + random.random() * 3000 * DAY)
            world.run(random.choice([1, 90, 2 * HOUR]))
        right = datetime(2026, 3, 2, tzinfo=UTC).timestamp() + world.clock.passed
        world.set_wall(right)


@pytest.mark.parametrize("seed", seeds(range(2)))
def test_a_month_without_a_wrong_clock_lose_and_double_nothing_and_every_slot_has_its_row(seed):
    simulation = Simulation(seed, clock_is_set=False)
    simulation._reload = lambda: None  # a job that was away has no rows for that time
    world = simulation.play(30)
    world.verify()
    assert world.steps > 800
    world.verify_slots()


@pytest.mark.parametrize("seed", seeds(range(100, 102)))
def test_a_month_with_a_clock_that_is_set_run_no_slot_twice(seed):
    world = Simulation(seed, clock_is_set=True).play(30)
    world.verify()
    assert world.steps > 800


def test_the_same_seed_plays_the_same():
    one, two = (Simulation(7, clock_is_set=True).play(10).digest() for _ in range(2))
    assert one == two


def test_a_hundred_jobs_that_exit_at_once_stay_within_their_budgets():
    """F33: the arithmetic of the policy is the number of starts."""
    many = [job(f"flood-{n}", budget=(5, 600), backoff=Backoff(first_s=0.1, factor=1, max_s=0.1, jitter=0)) for n in range(100)]
    world = World(*many, life=lambda _key, _plan: Life(lives_s=0, code=1))
    world.boot()
    world.run(60)
    world.verify()
    assert world.keeper.starts.total() == 100 * 6
    assert {state.state.value for state in world.state.jobs.values()} == {"parked"}
    opened = [one for one in world.store.outbox.values() if one.kind.value == "opened"]
    incidents = Counter(one.job for one in world.store.incidents.values())
    assert incidents == {**dict.fromkeys((each.name for each in many), 1), "*": 1}  # one incident per job, whatever it did
    assert len(opened) == 11  # ten alerts, and one of all the others


def test_a_supervisor_that_stood_still_for_minutes_catches_up_once_per_policy():
    """F5: twenty schedules, a minute and a half in which nothing happens at all."""
    many = [job(f"job-{n}", every=10, catch_up="none" if n % 2 else "last") for n in range(20)]
    world = World(*many, life=lambda _key, _plan: Life(lives_s=0.5))
    world.boot()
    world.run(5)
    world.clock.advance(90)
    world.run(1)
    starts = world.keeper.starts.total()
    assert starts == 20 + 10 + 10  # the first runs; the latest slot of all; of half of them one that was missed waits its turn
    world.run(2)
    world.verify()
    world.verify_slots()


def test_a_wrong_clock_ends_no_run_and_no_wait():
    """F16: limits of time are on the monotonic clock."""
    world = World(
        job(budget=(9, 600), backoff=Backoff(100, 1, 100, 0)), life=lambda key, _plan: Life(lives_s=50, code=1) if key == "1.1" else Life()
    )
    world.boot()
    world.run(60)
    for wrong in (HOUR, -DAY, 50 * 365 * DAY, -56 * 365 * DAY):
        world.jump(wrong)
        world.run(5)
    assert sorted(world.keeper.live) == []
    world.run(75)
    assert sorted(world.keeper.live) == ["1.2"]
    assert all(row.outcome is not Outcome.TIME for row in world.store.runs.values())
    world.verify()
