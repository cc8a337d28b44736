"""The brain's loop against a keeper on a real socket, with a clock that only moves when told: what is sent, and what was written before it."""

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from fakes import T0, FakeClock, FakeKeeper, MemoryStore
from msgspec.structs import replace

from supervisor import wire
from supervisor.adapters.jobmetrics import JobMetrics
from supervisor.adapters.keeper import KeeperLink
from supervisor.adapters.metrics import Metrics
from supervisor.adapters.statedir import StateDir
from supervisor.core import engine
from supervisor.core.crowd import MEMO
from supervisor.core.events import AttemptEnded, Breached, Due, Verb, Wish
from supervisor.core.evidence import Breach, Evidence, ExceptionFacts, Exit, LastWords, Progress
from supervisor.core.jobs import AlertPolicy, Backoff, DossierPolicy, Every, Job, Launch, RestartPolicy, Schedule
from supervisor.core.model import LimitName, Mono, Outcome
from supervisor.core.records import AttemptPhase, Row
from supervisor.core.settings import Config, Settings
from supervisor.core.state import Memo
from supervisor.counting import TOLD
from supervisor.daemon import Daemon
from supervisor.errors import ConfigError, LaunchError, WireError
from supervisor.evidence import Gatherer
from supervisor.judging import Judging
from supervisor.watch import Watch

BOUND_S = 30.0


def job(name: str = "job", **changes: Any) -> Job:
    policy = RestartPolicy(backoff=Backoff(first_s=5, factor=1, max_s=5, jitter=0))
    return Job(name, Launch(("run", name), "/"), restart=policy, alerts=AlertPolicy(to=("ops",)), **changes)


def timed(name: str = "timed", every: float = 60.0) -> Job:
    return job(name, schedule=Schedule(Every(every)))


class Tree:
    """A sampler of a tree that shows nothing."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.strays: tuple[int, ...] = ()
        self.deepest = pid
        self.is_blind = False

    def confirm(self, _started: int) -> None:
        """It is the one."""

    def is_alive(self) -> bool:
        return True

    def signature(self, *, rested: bool = False) -> bytes:
        return b""

    def members(self) -> tuple[int, ...]:
        return ()

    def refresh(self) -> tuple[int, ...]:
        return ()

    def sample(self, _at: Mono, _output: int, _progress: object) -> None:
        return None

    def close(self) -> None:
        """Nothing is open."""


class Planner:
    """Plans that say whom they are for; none for a job called "broken"."""

    def plan(self, configured: Job, run: int, attempt: int, slot: Any, quarantine: Any = ()) -> dict[str, Any]:
        if configured.name == "broken":
            raise LaunchError("there is no user 'ghost' on this machine")
        return {"job": configured.name, "argv": list(configured.launch.argv), "slot": None if slot is None else slot.isoformat()}


class Brain:
    """A daemon in a thread, and the keeper's end of its socket in the test's hands."""

    def __init__(self, world: "Mainstay") -> None:
        self.world = world
        ours, theirs = socket.socketpair()
        ours.settimeout(BOUND_S)
        self.sock, self.decoder = ours, wire.Decoder()
        self.heard: list[wire.Message] = []
        ours.sendall(wire.encode(world.keeper.hello()))
        link = KeeperLink(theirs)
        hello = link.hello(BOUND_S)
        first = self._restore(hello)
        self.metrics = Metrics({})
        self.daemon = Daemon(
            config=world.config,
            state=first.state,
            link=link,
            keeper_pid=os.getpid(),
            clock=world.clock,
            store=world.store,
            places=world.places,
            planner=Planner(),
            sampler_for=lambda pid, *_rest: Tree(pid),
            gatherer=Gatherer(lambda _dir, _pid: LastWords()),
            metrics=self.metrics,
            job_metrics=JobMetrics({}),
            containment={"memory": "poll"},
            reload_config=world.read_config,
            wake_outbox=lambda: world.woken.append(True),
            configured=world.taken.append,
            keep_config=lambda: world.kept.append((world.taken[-1], dict(world.store.texts))),
            hourly=lambda: None,
        )
        self.answer: Any = None
        self.is_closed = False
        self.link = link
        self.thread = threading.Thread(target=self._run, args=(first, hello), daemon=True)
        self.thread.start()

    def _restore(self, hello: wire.Message) -> engine.Step:
        world = self.world
        memos = {name: Memo.decode(text) for name, text in world.store.memos().items() if name != MEMO}
        live = {wire.split_key(one["key"]): (one["pid"], Mono(one["started_mono"])) for one in hello["live"]}
        ended = frozenset(wire.split_key(record["key"]) for record in hello["ended"])
        view = engine.KeeperView(hello["epoch"], hello["boot_id"], live, ended)
        return engine.restore(world.config.jobs, memos, {}, world.store.next_ids(), view, world.clock.now())

    def _run(self, first: engine.Step, hello: wire.Message) -> None:
        try:
            self.daemon.take_over(first, hello)
            self.answer = self.daemon.run()
        except WireError as err:
            self.answer = err

    # ---------------------------------------------------------------- the keeper's side

    def expect(self, op: str, key: str | None = None) -> wire.Message:
        """Listen and obey until the brain says this; what it said."""
        while True:
            for place, message in enumerate(self.heard):
                if message["op"] == op and (key is None or message.get("key") == key):
                    return self.heard.pop(place)
            data = self.sock.recv(1 << 16)
            assert data, f"the brain hung up before it said {op}"
            for message in self.decoder.feed(data):
                self.world.watch(message)
                self.world.keeper.obey(message)
                self.heard.append(message)
            self.speak()

    def speak(self) -> None:
        """What the keeper has to say."""
        while self.world.keeper.said:
            self.say(**self.world.keeper.said.pop(0))

    def say(self, op: str, **facts: Any) -> None:
        self.sock.sendall(wire.encode({"op": op, **facts}))

    def end(self, key: str, **how: Any) -> None:
        """This child ends, like this."""
        self.world.keeper.end(key, **how)
        self.speak()

    def quiet(self, op: str) -> bool:
        """True when the brain, having done all there was to do, has not said this."""
        self.say(wire.PING)
        self.expect(wire.PONG)
        return not any(message["op"] == op for message in self.heard)

    def later(self, seconds: float) -> None:
        """Time goes by; the loop is woken to see it."""
        self.world.clock.advance(seconds)
        self.daemon.ask(lambda: None, BOUND_S)

    def ask(self, work: Callable[[], Any]) -> Any:
        return self.daemon.ask(work, BOUND_S)

    def running(self, key: str, name: str = "job") -> None:
        """Wait until the brain knows that this child runs."""
        self.expect(wire.SPAWN, key)
        run, attempt = wire.split_key(key)
        for _ in range(1000):
            assert self.quiet(wire.BYE)
            found = self.daemon.state.jobs[name].run(run)
            if found is not None and found.attempt == attempt and found.pid is not None:
                return
        raise AssertionError(f"{key} never ran")

    def ended(self) -> Any:
        """What the loop returned, once it did."""
        self.thread.join(BOUND_S)
        assert not self.thread.is_alive()
        return self.answer

    def die(self) -> None:
        """As good as killed: it cannot write or say anything any more."""
        self.sock.close()
        assert isinstance(self.ended(), WireError)
        self.close()

    def close(self) -> None:
        """Once: the numbers of descriptors that are closed a second time may be somebody else's by then."""
        if self.is_closed:
            return
        self.is_closed = True
        self.sock.close()
        self.thread.join(BOUND_S)
        self.link.close()
        self.daemon._selector.close()
        self.daemon.requests.close()


class Mainstay:
    """What outlives a brain: clock, history, keeper, state directory, the config file."""

    def __init__(self, path: str, *jobs: Job) -> None:
        self.clock, self.store = FakeClock(), MemoryStore()
        self.keeper = FakeKeeper(self.clock)
        self.places = StateDir(path)
        self.places.create()
        self.config = self.configure(*jobs)
        self.file: Config | ConfigError = self.config
        self.woken: list[bool] = []
        self.taken: list[Config] = []
        self.kept: list[tuple[Config, dict[str, str]]] = []  # for the next brain, each with the memos of then
        self.brains: list[Brain] = []

    def configure(self, *jobs: Job) -> Config:
        return Config("/etc/mainstay/config.yaml", Settings(self.places.path), {each.name: each for each in jobs})

    def read_config(self) -> Config:
        if isinstance(self.file, ConfigError):
            raise self.file
        return self.file

    def brain(self) -> Brain:
        self.brains.append(Brain(self))
        return self.brains[-1]

    def watch(self, message: wire.Message) -> None:
        """The order on disk, at the moment in which the keeper hears of it."""
        if message["op"] == wire.SPAWN and not self.store.broken:
            key = wire.split_key(message["key"])
            assert self.store.attempts[key].phase is AttemptPhase.INTENDED
            assert any(f'"id":{key[0]},' in text for text in self.store.texts.values()), "the memo does not know the run"
        if message["op"] == wire.FORGET:
            assert self.store.attempts[wire.split_key(message["key"])].phase is AttemptPhase.ENDED


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """The log of the test, as values."""
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
def make(tmp_path) -> Iterator[Callable[..., Mainstay]]:
    made: list[Mainstay] = []

    def mainstay(*jobs: Job) -> Mainstay:
        made.append(Mainstay(str(tmp_path / "state"), *jobs))
        return made[-1]

    yield mainstay
    for one in made:
        for brain in one.brains:
            brain.close()
            assert not brain.thread.is_alive()


def value(brain: Brain, line: str) -> float:
    """One sample of the metrics page."""
    page = brain.metrics.render([]).decode()
    return next(float(one.rpartition(" ")[2]) for one in page.splitlines() if one.rpartition(" ")[0] == line)


def test_a_child_that_fails_is_written_down_forgotten_and_started_again_when_its_wait_is_over(make):
    world = make(job())
    brain = world.brain()
    assert brain.expect(wire.SPAWN)["plan"]["argv"] == ["run", "job"]
    brain.expect(wire.READY)
    brain.end("1.1", code=1)
    brain.expect(wire.FORGET, "1.1")
    assert (world.store.attempts[1, 1].outcome, world.store.attempts[1, 1].exit_code) == (Outcome.FAILED, 1)
    assert world.woken, "the outbox was not woken for the alert"
    brain.later(4.9)
    assert brain.quiet(wire.SPAWN)
    brain.later(0.2)
    brain.running("1.2")
    assert value(brain, 'mainstay_job_restarts_total{job_name="job",reason="failed"}') == 1
    assert value(brain, 'mainstay_job_up{job_name="job"}') == 1


def test_hours_of_a_schedule_pass_in_milliseconds(make):
    world = make(timed())
    brain = world.brain()
    for run in range(1, 121):
        brain.expect(wire.SPAWN, f"{run}.1")
        brain.end(f"{run}.1", code=0)
        brain.expect(wire.FORGET, f"{run}.1")
        brain.later(60)
    assert len(world.store.slots) >= 120
    assert value(brain, 'mainstay_job_runs_total{job_name="timed",outcome="succeeded"}') == 120


def test_jobs_that_are_due_at_one_instant_share_one_commit(make):
    names = [f"timed-{number}" for number in range(10)]
    world = make(*(timed(name) for name in names))
    brain = world.brain()
    for run in range(1, 11):
        brain.expect(wire.SPAWN, f"{run}.1")
        brain.end(f"{run}.1", code=0)
        brain.expect(wire.FORGET, f"{run}.1")
    before = brain.ask(lambda: world.store.writes)
    brain.later(60)
    for run in range(11, 21):
        brain.expect(wire.SPAWN, f"{run}.1")
    written = brain.ask(lambda: world.store.writes) - before
    assert 1 <= written <= 1 + 10  # the ten that were told to have started meanwhile, at most


def test_a_mistake_of_ours_about_one_of_those_that_are_due_together_holds_up_none_of_the_others(make, monkeypatch):
    world = make(timed("bad"), timed("good"), timed("well"))
    real = engine.step

    def step(state, event, now):
        if isinstance(event, Due) and event.job == "bad":
            raise ZeroDivisionError
        return real(state, event, now)

    monkeypatch.setattr(engine, "step", step)
    brain = world.brain()
    plans = [brain.expect(wire.SPAWN)["plan"]["job"], brain.expect(wire.SPAWN)["plan"]["job"]]
    assert sorted(plans) == ["good", "well"]


def test_a_brain_that_dies_is_followed_by_one_that_takes_over_what_lives_and_what_ended(make):
    world = make(job(), job("other"), job("third"))
    first = world.brain()
    for run, name in enumerate(["job", "other", "third"], 1):
        first.running(f"{run}.1", name)
    first.die()
    world.keeper.end("2.1", code=3)  # while nobody listens
    second = world.brain()
    second.expect(wire.FORGET, "2.1")
    assert world.store.attempts[2, 1].exit_code == 3
    assert second.quiet(wire.SPAWN), "what lives was started again"
    assert {name: state.state.value for name, state in second.daemon.state.jobs.items()} == {
        "job": "running", "other": "backing_off", "third": "running"
    }  # fmt: skip
    assert value(second, 'mainstay_adopted_runs_total{outcome="alive"}') == 2
    assert value(second, 'mainstay_adopted_runs_total{outcome="ended"}') == 1
    second.end("1.1", code=4)
    second.expect(wire.FORGET, "1.1")
    assert world.store.attempts[1, 1].exit_code == 4
    assert set(world.keeper.starts.values()) == {1}


def at_once(name: str = "job") -> Job:
    """A service that goes on without a wait."""
    return replace(job(name), restart=RestartPolicy(backoff=Backoff(first_s=0, factor=1, max_s=0, jitter=0)))


def test_a_service_that_goes_on_at_once_is_begun_by_the_keeper_and_judged_afterwards(make):
    world = make(at_once())
    brain = world.brain()
    brain.running("1.1")
    armed = brain.expect(wire.ARM)
    assert (armed["key"], armed["after"], armed["not_after"]) == ("1.2", "1.1", [0])
    brain.end("1.1", code=1)
    brain.expect(wire.FORGET, "1.1")
    assert brain.expect(wire.ARM)["key"] == "1.3"
    assert brain.quiet(wire.SPAWN), "the keeper was asked for what it had begun"
    assert world.store.attempts[1, 1].outcome is Outcome.FAILED
    assert world.store.attempts[1, 2].phase is AttemptPhase.STARTED
    assert value(brain, 'mainstay_job_restarts_total{job_name="job",reason="failed"}') == 1
    os.mkdir(world.places.run("1.3"))  # as a real planner does
    brain.end("1.2", code=0)  # it is not followed, so what was prepared for 1.3 goes
    brain.expect(wire.FORGET, "1.2")
    assert not os.path.exists(world.places.run("1.3"))
    assert brain.daemon.state.jobs["job"].state.value == "idle"
    assert world.keeper.starts == {"1.1": 1, "1.2": 1}


@pytest.mark.parametrize("how", ["not written", "not judged"])
def test_how_far_an_attempt_was_counted_is_known_until_its_end_is_written(make, monkeypatch, how):
    """The next brain is told of that end again, and would count all of it once more."""
    world = make(job())
    brain = world.brain()
    brain.running("1.1")
    brain.say(wire.OUTPUT, counts={"1.1": [5000, 0]})
    assert brain.quiet(wire.FORGET)
    brain.ask(lambda: brain.daemon._counting.save(brain.daemon._attempts.live))
    marks = {key: count for key, count in world.store.saved.items() if key[0] == TOLD}
    assert 5000 in marks.values()
    if how == "not written":
        world.store.broken = True
    else:
        monkeypatch.setattr(engine, "step", Fails())
    brain.end("1.1", code=1)
    assert brain.quiet(wire.FORGET)
    assert {key: count for key, count in world.store.saved.items() if key[0] == TOLD} == marks


def test_an_attempt_is_surveyed_when_it_begins_and_not_when_a_later_brain_takes_it_over(make, monkeypatch):
    """A deploy in between would be told as what it was made of."""
    surveyed: list[str] = []
    monkeypatch.setattr(Judging, "began", lambda _judging, key, _job: surveyed.append(key))
    world = make(job())
    first = world.brain()
    first.running("1.1")
    first.die()
    second = world.brain()
    second.expect(wire.READY)
    assert surveyed == ["1.1"]


def test_what_the_keeper_began_while_there_was_no_brain_is_taken_over_by_the_next(make):
    world = make(at_once())
    first = world.brain()
    first.running("1.1")
    first.expect(wire.ARM)
    first.die()
    world.keeper.end("1.1", signal=11)
    assert sorted(world.keeper.live) == ["1.2"]
    second = world.brain()
    second.expect(wire.FORGET, "1.1")
    assert second.expect(wire.ARM)["key"] == "1.3"
    assert "1.2" in second.daemon.watch.subjects()
    assert world.store.attempts[1, 1].signal == 11
    assert second.daemon.state.jobs["job"].state.value == "running"
    assert second.quiet(wire.KILL)
    assert second.quiet(wire.SPAWN)


def test_what_the_keeper_began_and_nobody_holds_any_more_is_lost(make):
    world = make(at_once())
    first = world.brain()
    first.running("1.1")
    first.expect(wire.ARM)
    first.die()
    world.keeper.end("1.1", code=3)
    world.keeper.die()
    second = world.brain()
    second.expect(wire.FORGET, "1.1")
    assert second.quiet(wire.SPAWN)
    second.later(0.2)  # nobody is to blame, and it waits a moment
    second.running("1.3")
    assert (world.store.attempts[1, 1].outcome, world.store.attempts[1, 1].exit_code) == (Outcome.FAILED, 3)
    assert world.store.attempts[1, 2].outcome is Outcome.LOST
    assert world.keeper.starts == {"1.1": 1, "1.2": 1, "1.3": 1}


def test_an_end_that_is_told_before_the_one_before_it_waits_for_its_turn(make):
    world = make(at_once())
    first = world.brain()
    first.running("1.1")
    first.expect(wire.ARM)
    first.die()
    world.keeper.end("1.1", code=3)
    world.keeper.end("1.2", code=4)
    world.keeper.records = dict(reversed(world.keeper.records.items()))
    second = world.brain()
    second.expect(wire.FORGET, "1.2")
    assert [world.store.attempts[1, number].exit_code for number in (1, 2)] == [3, 4]
    assert not world.keeper.records


def test_a_mistake_of_ours_in_judging_leaves_nothing_unwatched(make, monkeypatch):
    world = make(at_once())
    real = engine.step

    def step(state: Any, event: Any, now: Any) -> engine.Step:
        if isinstance(event, AttemptEnded):
            raise RecursionError("a bug of ours")
        return real(state, event, now)

    brain = world.brain()
    brain.running("1.1")
    brain.expect(wire.ARM)
    monkeypatch.setattr("supervisor.daemon.engine.step", step)
    brain.end("1.1", code=1)
    assert brain.expect(wire.KILL)["key"] == "1.2"


def test_a_pause_takes_the_leave_back(make):
    world = make(at_once())
    brain = world.brain()
    brain.running("1.1")
    brain.expect(wire.ARM)
    assert brain.ask(lambda: brain.daemon.wish(Wish(Verb.PAUSE, "job"))).ok
    assert brain.expect(wire.DISARM)["after"] == "1.1"
    brain.end("1.1", code=1)
    brain.expect(wire.FORGET, "1.1")
    assert brain.daemon.state.jobs["job"].state.value == "paused"
    assert world.keeper.starts == {"1.1": 1}


def test_a_history_that_cannot_be_written_stops_no_job_and_is_made_up_for(make):
    world = make(job())
    brain = world.brain()
    brain.running("1.1")
    world.store.broken = True
    brain.end("1.1", code=1)
    assert brain.quiet(wire.FORGET)
    brain.later(5)
    brain.running("1.2")
    assert "1.1" in world.keeper.records, "the only record of that end was let go"
    assert value(brain, 'mainstay_store_errors_total{operation="write"}') >= 2
    world.store.broken = False
    brain.end("1.2", code=2)
    assert brain.quiet(wire.FORGET), "a history that may still be locked was tried for each event"
    brain.later(5)
    for number in (1, 2):
        brain.expect(wire.FORGET, f"1.{number}")
        assert world.store.attempts[1, number].exit_code == number
        assert world.store.ends[1, number] == 1
    assert not world.keeper.records


def test_a_plan_that_cannot_be_made_is_a_failed_launch_and_waits_its_back_off(make):
    world = make(job("broken"))
    brain = world.brain()
    brain.expect(wire.READY)
    assert brain.quiet(wire.SPAWN)
    assert world.store.attempts[1, 1].outcome is Outcome.LAUNCH_FAILED
    assert brain.daemon.state.jobs["broken"].state.value == "backing_off"
    brain.later(5)
    assert brain.quiet(wire.SPAWN)
    assert world.store.attempts[1, 2].outcome is Outcome.LAUNCH_FAILED


def test_a_shutdown_stops_the_children_and_says_goodbye(make):
    world = make(job(), timed())
    world.keeper.life = lambda _key, plan: replace(FakeKeeper(world.clock).life("", {}), heeds_s=None if plan["job"] == "job" else 0)
    brain = world.brain()
    brain.running("1.1")
    brain.running("2.1", "timed")
    brain.say(wire.SHUTDOWN)
    brain.expect(wire.SIGNAL, "1.1")
    brain.expect(wire.SIGNAL, "2.1")
    world.keeper.tick()
    brain.speak()
    brain.expect(wire.FORGET, "2.1")
    brain.later(10)
    assert brain.expect(wire.KILL, "1.1")["reason"] == "stop"
    world.keeper.tick()
    brain.speak()
    assert brain.expect(wire.BYE)["code"] == 0
    assert brain.ended() == 0
    assert {row.outcome for row in world.store.runs.values()} == {Outcome.STOPPED}


def test_fire_times_that_pass_while_it_stops_do_not_hold_the_loop(make):
    world = make(job(), timed())
    world.keeper.life = lambda _key, _plan: replace(FakeKeeper(world.clock).life("", {}), heeds_s=None)
    brain = world.brain()
    brain.running("1.1")
    brain.running("2.1", "timed")
    brain.end("2.1", code=0)
    brain.expect(wire.FORGET, "2.1")
    world.clock.advance(55)
    brain.say(wire.SHUTDOWN)
    brain.expect(wire.SIGNAL, "1.1")
    brain.later(8)  # a fire time has come, and the end of the grace has not
    assert brain.quiet(wire.SPAWN)
    brain.later(2)
    brain.expect(wire.KILL, "1.1")


def test_a_ping_is_answered_from_the_loop_that_supervises(make):
    brain = make(job()).brain()
    brain.expect(wire.READY)
    brain.say(wire.PING)
    brain.expect(wire.PONG)


def test_an_unknown_message_is_no_reason_to_stop(make):
    brain = make(job()).brain()
    brain.say("from-a-newer-keeper", what=1)
    assert brain.quiet(wire.BYE)


def test_a_refused_config_changes_nothing_and_a_good_one_is_taken_whole(make):
    world = make(job())
    brain = world.brain()
    brain.running("1.1")
    world.file = ConfigError(["config.yaml:3:1: jobs: nothing of this is right; write something else"])
    brain.say(wire.RELOAD)
    assert brain.quiet(wire.SIGNAL)
    assert value(brain, "mainstay_config_last_reload_successful") == 0
    assert (world.taken, brain.daemon.config) == ([], world.config)
    world.file = world.configure(job(), job("new"))
    brain.say(wire.RELOAD)
    brain.expect(wire.RELOADED)  # the refusal of before
    brain.running("2.1", "new")
    brain.expect(wire.RELOADED)
    assert value(brain, "mainstay_config_last_reload_successful") == 1
    assert value(brain, 'mainstay_job_up{job_name="new"}') == 1
    world.file = world.configure(job("new"))
    brain.say(wire.RELOAD)
    brain.expect(wire.SIGNAL, "1.1")
    world.keeper.tick()
    brain.speak()
    brain.expect(wire.FORGET, "1.1")
    assert brain.quiet(wire.SPAWN)
    assert list(brain.daemon.state.jobs) == ["new"]
    assert 'job_name="job"' not in brain.metrics.render([]).decode()


def test_counters_of_what_no_end_of_an_attempt_wrote_are_kept_with_it(make):
    """A brain that dies the next moment would take them back, and the rows stay."""
    world = make(job())
    brain = world.brain()
    brain.running("1.1")
    brain.end("1.1", code=1)
    brain.expect(wire.FORGET, "1.1")
    brain.ask(lambda: brain.daemon.wish(Wish(Verb.STOP, "job")))  # between two attempts: it is over at once
    assert [count for (name, labels), count in world.store.saved.items() if name.endswith("runs_total") and "stopped" in labels] == [1]


def test_no_commit_has_a_row_without_its_counter_or_a_counter_without_its_row(make):
    """A brain may die behind each of them."""
    world = make(job(), timed())
    commits: list[tuple[int, float]] = []

    def apply(rows: Sequence[Row], **rest: Any) -> None:
        MemoryStore.apply(world.store, rows, **rest)
        counted = sum(count for (name, _), count in world.store.saved.items() if name == "mainstay_job_runs_total")
        commits.append((sum(run.ended_at is not None for run in world.store.runs.values()), counted))

    world.store.apply = apply
    brain = world.brain()
    brain.running("1.1")
    brain.end("1.1", code=1)
    brain.expect(wire.FORGET, "1.1")
    brain.ask(lambda: brain.daemon.wish(Wish(Verb.STOP, "job")))
    world.store.broken = True
    brain.ask(lambda: brain.daemon.wish(Wish(Verb.TRIGGER, "timed")))
    brain.running("2.1", "timed")
    brain.end("2.1", code=0)
    assert brain.quiet(wire.FORGET)
    world.store.broken = False
    brain.later(6)
    brain.expect(wire.FORGET, "2.1")
    assert {rows for rows, _ in commits} == {0, 1, 2}
    assert [commit for commit in commits if commit[0] != commit[1]] == []


def test_a_config_is_kept_for_the_next_brain_once_what_follows_from_it_is_written(make):
    """A brain that died between the two left a service that runs on with what it was, and a config by which nothing has changed."""
    world = make(job())
    brain = world.brain()
    brain.running("1.1")
    world.file = world.configure(replace(job(), launch=Launch(("run", "other"), "/")))
    brain.say(wire.RELOAD)
    brain.expect(wire.RELOADED)
    ((config, memos),) = world.kept
    assert config is world.file
    assert '"then_start":true' in memos["job"]


def test_a_storm_of_reloads_restarts_a_service_once(make):
    world = make(job())
    brain = world.brain()
    brain.running("1.1")
    for version in range(300):
        world.file = world.configure(replace(job(), launch=Launch(("run", str(version)), "/")))
        brain.say(wire.RELOAD)
    brain.expect(wire.SIGNAL, "1.1")
    assert brain.quiet(wire.SIGNAL)
    world.keeper.tick()
    brain.speak()
    assert brain.expect(wire.SPAWN)["plan"]["argv"] == ["run", "299"]
    assert dict(world.keeper.starts) == {"1.1": 1, "2.1": 1}


def test_a_wish_is_answered_and_acted_on(make):
    world = make(job())
    brain = world.brain()
    brain.running("1.1")
    answer = brain.ask(lambda: brain.daemon.wish(Wish(Verb.STOP, "job")))
    assert (answer.ok, answer.text) == (True, "job stops and stays stopped until `mainstay start job`")
    brain.expect(wire.SIGNAL, "1.1")
    world.keeper.tick()
    brain.speak()
    brain.expect(wire.FORGET, "1.1")
    assert brain.daemon.state.jobs["job"].state.value == "paused"


def test_a_question_that_fails_is_answered_with_its_failure_and_the_loop_goes_on(make):
    brain = make(job()).brain()
    with pytest.raises(ZeroDivisionError):
        brain.ask(lambda: 1 / 0)
    assert brain.ask(lambda: "still here") == "still here"


def test_a_breach_is_written_down_before_the_keeper_is_asked_to_kill(make):
    world = make(job())
    brain = world.brain()
    brain.running("1.1")
    brain.ask(lambda: brain.daemon._on_breach("1.1", Breach(LimitName.MEMORY, 2.0, 1.0), None))
    assert brain.expect(wire.KILL, "1.1")["reason"] == "memory"
    assert '"killed":true' in world.store.texts["job"]


def test_a_clock_that_is_set_is_noticed_and_no_slot_runs_twice(make):
    world = make(timed())
    brain = world.brain()
    brain.expect(wire.SPAWN, "1.1")
    brain.end("1.1", code=0)
    brain.expect(wire.FORGET, "1.1")
    brain.later(2)
    world.clock.set_wall(T0 + timedelta(hours=1, seconds=2))
    brain.later(1.5)
    brain.expect(wire.SPAWN, "2.1")
    brain.end("2.1", code=0)
    brain.expect(wire.FORGET, "2.1")
    world.clock.set_wall(T0 + timedelta(seconds=5))
    brain.later(1.5)
    assert brain.quiet(wire.SPAWN)
    brain.later(54)
    brain.expect(wire.SPAWN, "3.1")
    assert all(len(runs) == 1 for runs in world.store.runs_of_slot.values())
    assert world.store.slots["timed", T0 + timedelta(seconds=60)].run == 3


def test_a_mistake_of_ours_in_one_step_keeps_the_exit_record_and_stops_nobody_else(make, monkeypatch, logged):
    """F11: an exception inside the supervisor."""
    world = make(job(), job("other"))
    real = engine.step

    def step(state: Any, event: Any, now: Any) -> engine.Step:
        if isinstance(event, AttemptEnded) and event.job == "job":
            raise RecursionError("a bug of ours")
        return real(state, event, now)

    brain = world.brain()
    brain.running("1.1")
    brain.running("2.1", "other")
    monkeypatch.setattr("supervisor.daemon.engine.step", step)
    brain.end("1.1", code=5)
    brain.end("2.1", code=6)
    brain.expect(wire.FORGET, "2.1")
    assert brain.quiet(wire.FORGET)
    assert "1.1" in world.keeper.records
    (failure,) = [line for line in logged if line["event"] == "step_failed"]
    assert (failure["during"], failure["job"], failure["exc_info"]) == ("AttemptEnded", "job", True)
    brain.die()
    monkeypatch.undo()
    world.brain().expect(wire.FORGET, "1.1")
    assert world.store.attempts[1, 1].exit_code == 5


def test_a_job_that_we_fail_to_look_at_is_put_off_and_neither_forgotten_nor_asked_for_in_a_circle(make, monkeypatch):
    world = make(timed())
    real, asked = engine.step, []

    def step(state: Any, event: Any, now: Any) -> engine.Step:
        if isinstance(event, Due):
            asked.append(now.mono)
            if len(asked) <= 2:  # with all that are due, then by itself
                raise ZeroDivisionError("a bug of ours")
        return real(state, event, now)

    monkeypatch.setattr("supervisor.daemon.engine.step", step)
    brain = world.brain()
    brain.expect(wire.READY)
    assert brain.quiet(wire.SPAWN)
    assert brain.quiet(wire.SPAWN)
    assert len(asked) == 2
    brain.later(60)
    brain.expect(wire.SPAWN, "1.1")


def test_a_lasting_mistake_of_ours_ends_the_brain_so_that_the_keeper_starts_a_fresh_one(make, monkeypatch):
    world = make(job())
    brain = world.brain()
    brain.running("1.1")

    def step(*_args: Any) -> engine.Step:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr("supervisor.daemon.engine.step", step)
    for _ in range(25):
        brain.say(wire.SHUTDOWN)
    assert brain.ended() == 70


def test_deadlines_that_are_waited_for_already_are_not_queued_again(make):
    world = make(timed(every=86400.0))
    brain = world.brain()
    brain.expect(wire.SPAWN, "1.1")
    brain.end("1.1", code=0)
    brain.expect(wire.FORGET, "1.1")
    for _ in range(50):
        brain.ask(lambda: brain.daemon.wish(Wish(Verb.PAUSE, "timed")))
        brain.ask(lambda: brain.daemon.wish(Wish(Verb.RESUME, "timed")))
    assert len(brain.daemon._agenda._wall) <= 3


def test_a_brain_without_a_keeper_ends(make):
    brain = make(job()).brain()
    brain.expect(wire.READY)
    brain.die()


def test_a_secret_that_the_bound_of_the_output_cuts_in_two_is_not_written_down(make):
    world = make(replace(job(), launch=Launch(("run", "job"), "/", {"DB_PASSWORD": "Zq7WyCanaryKk29Lm"})))
    brain = world.brain()
    brain.running("1.1")
    path = Path(world.places.log("job", "1.1"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("A" * 100_000 + "Zq7WyCanaryKk29Lm" + "B" * (16 * 1024 - 15))
    brain.end("1.1", code=5)
    brain.expect(wire.FORGET, "1.1")
    report = world.store.attempts[1, 1].report
    assert report.count("B" * 16_000) == 1
    assert "29Lm" not in report


class Fails:
    """Stands for a part of ours with a mistake in it."""

    def __call__(self, *_args: Any, **_facts: Any) -> Any:
        raise RecursionError("a bug of ours")


def during(logged: list[Any]) -> list[str]:
    return [line["during"] for line in logged if line["event"] == "step_failed"]


def test_an_end_that_cannot_be_looked_at_is_judged_by_the_exit_record_alone(make, monkeypatch, logged):
    world = make(job())
    brain = world.brain()
    brain.running("1.1")
    for part, name in (
        (brain.daemon._attempts._judging._gatherer, "gather"),
        (world.places, "tail"),
        (brain.daemon._counting._job_metrics, "update"),
    ):
        monkeypatch.setattr(part, name, Fails())
    brain.end("1.1", code=5)
    brain.expect(wire.FORGET, "1.1")
    assert (world.store.attempts[1, 1].outcome, world.store.attempts[1, 1].exit_code) == (Outcome.FAILED, 5)
    assert {"gathering", "tailing", "reading"} <= set(during(logged))
    brain.later(5)
    brain.running("1.2")


def test_what_the_host_refused_a_job_is_known_although_its_messages_are_not_kept(make, monkeypatch):
    world = make(replace(job(), dossier=DossierPolicy(messages=False)))
    brain = world.brain()
    brain.running("1.1")
    raised = ExceptionFacts("OSError", "[Errno 28] No space left on device: '/data/secret'", (), 1)
    found = Evidence(Exit(code=1), words=LastWords(exception=raised), progress=Progress("u7", keyed=True))
    monkeypatch.setattr(brain.daemon._attempts._judging._gatherer, "gather", lambda *_: found)
    brain.end("1.1", code=1)
    brain.expect(wire.FORGET, "1.1")
    assert world.store.attempts[1, 1].outcome is Outcome.EXCEPTION
    assert brain.daemon.state.jobs["job"].memo.course.times == 0
    assert "secret" not in (world.store.attempts[1, 1].report or "")


def test_what_cannot_be_told_is_done_all_the_same(make, monkeypatch, logged):
    world = make(job())
    brain = world.brain()
    brain.running("1.1")
    for name in ("tell", "flush", "job_changed"):
        monkeypatch.setattr(brain.daemon._teller, name, Fails())
    brain.end("1.1", code=5)
    brain.expect(wire.FORGET, "1.1")
    brain.later(5)
    brain.running("1.2")
    assert set(during(logged)) == {"telling"}


def test_a_mistake_of_ours_in_planning_is_a_failed_launch(make, monkeypatch, logged):
    world = make(job())
    monkeypatch.setattr(Planner, "plan", Fails())
    brain = world.brain()
    brain.expect(wire.READY)
    assert brain.quiet(wire.SPAWN)
    assert world.store.attempts[1, 1].outcome is Outcome.LAUNCH_FAILED
    assert during(logged) == ["planning"]


def test_an_attempt_that_no_memo_knows_is_killed_and_said(make, monkeypatch, logged):
    world = make(job())
    first = world.brain()
    first.running("1.1")
    first.die()
    world.store = MemoryStore()  # the history was set aside; ids go on above what the keeper names
    monkeypatch.setattr(world.store, "next_ids", lambda: (50, 1))
    second = world.brain()
    assert second.expect(wire.KILL, "1.1")["reason"] == "unknown"
    assert value(second, 'mainstay_adopted_runs_total{outcome="lost"}') == 1
    (line,) = [line for line in logged if line["event"] == "run_unknown_ended"]
    assert line["key"] == "1.1"


def test_a_breach_that_we_fail_at_is_taken_up_again(make, monkeypatch):
    world = make(job())
    brain = world.brain()
    brain.running("1.1")
    real, tries = engine.step, []

    def step(state: Any, event: Any, now: Any) -> engine.Step:
        if isinstance(event, Breached):
            tries.append(now.mono)
            if len(tries) == 1:
                raise ZeroDivisionError("a bug of ours")
        return real(state, event, now)

    def breach() -> None:
        subject = brain.daemon.watch.subject("1.1")
        subject.gone, subject.breach = False, Breach(LimitName.MEMORY, 2.0, 1.0)
        brain.daemon._on_breach("1.1", subject.breach, None)

    monkeypatch.setattr("supervisor.daemon.engine.step", step)
    brain.ask(breach)
    assert brain.quiet(wire.KILL)
    brain.later(1)
    assert brain.expect(wire.KILL, "1.1")["reason"] == "memory"
    assert len(tries) == 2


def test_a_batch_of_starts_is_cut_into_slices_and_limits_are_looked_at_amid_it(make, monkeypatch):
    """At the start, when all are begun by one list of actions, and at a fire time that all have in common."""
    world = make(*(timed(f"job{number}") for number in range(100)))
    done: list[str] = []

    def plan(_planner: Any, configured: Job, *_rest: Any) -> dict[str, Any]:
        world.clock.advance(0.005)
        done.append("plan")
        return {"job": configured.name}

    def look(watch: Watch) -> None:
        done.append("look")
        real(watch)

    def unbroken() -> int:
        return max(map(len, "".join(what[0] for what in done).split("l")))

    real = Watch.run
    monkeypatch.setattr(Watch, "run", look)
    monkeypatch.setattr(Planner, "plan", plan)
    brain = world.brain()
    for run in range(1, 101):
        brain.expect(wire.SPAWN, f"{run}.1")
    assert unbroken() <= 5
    for run in range(1, 101):
        brain.end(f"{run}.1", code=0)
        brain.expect(wire.FORGET, f"{run}.1")
    done.clear()
    brain.later(60)
    for run in range(101, 201):
        brain.expect(wire.SPAWN, f"{run}.1")
    assert unbroken() <= 5
    buckets = [value(brain, f'mainstay_loop_delay_seconds_bucket{{le="{edge}"}}') for edge in ("0.1", "1.0")]
    assert buckets[0] < buckets[1], "all were stamped with the moment of the first"
