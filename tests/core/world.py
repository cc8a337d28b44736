"""A whole Mainstay without a machine: engine, history, keeper and clock, and the ways in which they can fail.

The brain may die after any single action (``crash_after``), the keeper with all its children (``keeper.die``), the machine (``reboot``). The keeper
and the history keep their own truth; ``verify`` holds one against the other.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import laws
from fakes import T0, FakeClock, FakeKeeper, Life, MemoryStore

from supervisor import wire
from supervisor.core import engine, schedule
from supervisor.core.actions import Action, Arm, AskToStop, Disarm, Finished, KillTree, Record, StartAttempt, TellAttemptEnded, TellHealing
from supervisor.core.crowd import MEMO, Crowd
from supervisor.core.events import (
    AttemptEnded,
    AttemptLost,
    AttemptStarted,
    Due,
    Event,
    Reconfigured,
    ShutdownAsked,
    SummariesDue,
    Verb,
    Wish,
)
from supervisor.core.evidence import Evidence
from supervisor.core.jobs import Job
from supervisor.core.model import Incident, Mono, Outcome, Wall
from supervisor.core.records import AttemptPhase, QuarantinedRecord
from supervisor.core.remedy import StepName
from supervisor.core.restart import counts
from supervisor.core.state import EngineState, Memo
from supervisor.evidence import exit_of
from supervisor.successions import Successions

FRESH_STARTS = (Verb.START, Verb.RESTART, Verb.TRIGGER, Verb.RESUME)  # a person has spoken: the budget begins afresh
Script = Sequence[tuple[float, Callable[["World"], Any]]]


class CrashedError(Exception):
    """The brain is dead."""


class World:
    """Runs until told; every step is held against the laws."""

    def __init__(self, *jobs: Job, life: Callable[[str, Mapping[str, Any]], Life] = lambda _key, _plan: Life()) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore()
        self.keeper = FakeKeeper(self.clock, life)
        self.jobs = {each.name: each for each in jobs}
        self.state = EngineState({})
        self.done = 0  # actions so far: each is a moment at which the brain may die
        self.crash_after: int | None = None
        self.on_crash: Callable[[World], Any] = lambda _world: None
        self.finished = False
        self.power_lost = False
        self.host_oom_kills = 0  # during each attempt that ends now
        self.steps = 0
        self.restarts: dict[str, list[float]] = {}
        self.acted: Counter[str] = Counter()
        self.healed: tuple[str, int, int] | None = None
        self.deadlines: dict[str, tuple[Mono | None, Wall | None]] = {}

    # ---------------------------------------------------------------- the brain

    def boot(self) -> None:
        """A brain starts, and the next one if that dies."""
        while True:
            try:
                return self._boot()
            except CrashedError:
                self.on_crash(self)

    def _boot(self) -> None:
        hello = self.keeper.hello()
        texts = self.store.memos()
        crowd = Crowd.decode(texts.pop(MEMO, "{}"))
        memos = {name: Memo.decode(text) for name, text in texts.items()}
        incidents: dict[str, tuple[Incident, ...]] = {}
        for one in self.store.open_incidents():
            incidents[one.job] = (*incidents.get(one.job, ()), one)
        live = {wire.split_key(one["key"]): (one["pid"], Mono(one["started_mono"])) for one in hello["live"]}
        ended = frozenset(wire.split_key(record["key"]) for record in hello["ended"])
        view = engine.KeeperView(
            hello["epoch"], hello["boot_id"], live, ended, hello["stopping"], frozenset(map(wire.split_key, hello["doubtful"]))
        )
        aside: dict[str, tuple[QuarantinedRecord, ...]] = {}
        for record in self.store.records_aside():
            aside[record.job] = (*aside.get(record.job, ()), record)
        result = engine.restore(self.jobs, memos, incidents, self.store.next_ids(), view, self.clock.now(), crowd, aside)
        laws.check(EngineState({}), None, result, self.clock.now())
        self.state = result.state
        self.deadlines.clear()
        self.successions = Successions()
        self.successions.take_over(hello)
        begun = [one for one in hello["live"] if self.successions.has_begun(one["key"])]
        self._note(result)
        self._perform(result)
        for key in hello["doubtful"]:
            self.keeper.obey({"op": wire.FORGET, "key": key})
        for record in hello["ended"]:
            self._on_ended(record)
        for attempt in begun:
            self._on_started(attempt)
        self.keeper.obey({"op": wire.READY})
        self._hear()

    def _deliver(self, event: Event) -> engine.Answer | None:
        self.steps += 1
        now = self.clock.now()
        result = engine.step(self.state, event, now)
        laws.check(self.state, event, result, now)
        self.state = result.state
        self._note(result)
        self._perform(result)
        return result.answer

    def _note(self, result: engine.Step) -> None:
        """The deadlines of the jobs that the step says it touched, as the loop keeps them."""
        names = self.state.jobs if self.state.closing else result.touched
        for name in {*names, *self.deadlines.keys() - self.state.jobs.keys()}:
            job = self.state.jobs.get(name)
            if job is None:
                self.deadlines.pop(name, None)
            else:
                self.deadlines[name] = (job.mono_deadline(), job.wall_deadline(closing=self.state.closing))

    def _perform(self, result: engine.Step) -> None:
        for action in result.actions:
            self._apply(action)
            self._count_action()

    def _count_action(self) -> None:
        self.done += 1
        if self.done == self.crash_after:
            raise CrashedError

    def _apply(self, action: Action) -> None:
        self.acted[type(action).__name__] += 1
        match action:
            case Record(rows, durable):
                self.store.apply(rows, durable=durable)
            case StartAttempt(job, run, attempt, _, slot, aside, begun):
                plan = {"job": job.name, "slot": slot, "argv": job.launch.argv, "environment": dict(job.launch.environment), "aside": aside}
                if not begun:
                    self.keeper.obey({"op": wire.SPAWN, "key": wire.attempt_key(run, attempt), "plan": plan})
            case Arm(job, run, attempt, slot, not_after):
                plan = {"job": job.name, "slot": slot, "argv": job.launch.argv, "environment": dict(job.launch.environment), "aside": ()}
                key, after = wire.attempt_key(run, attempt), wire.attempt_key(run, attempt - 1)
                self.successions.arm(after, key)
                self.keeper.obey({"op": wire.ARM, "key": key, "after": after, "plan": plan, "not_after": sorted(not_after)})
            case Disarm(_, run, attempt):
                self.keeper.obey({"op": wire.DISARM, "after": wire.attempt_key(run, attempt)})
            case AskToStop(_, run, attempt, signal):
                self.keeper.obey({"op": wire.SIGNAL, "key": wire.attempt_key(run, attempt), "signal": signal})
            case KillTree(_, run, attempt, reason):
                self.keeper.obey({"op": wire.KILL, "key": wire.attempt_key(run, attempt), "reason": reason})
            case TellHealing(job, run, attempt, StepName.QUARANTINE):
                self.healed = (job, run, attempt)
            case TellAttemptEnded():
                self._check_budget(action)
            case Finished():
                self.keeper.obey({"op": wire.BYE})
                self.finished = True

    def _check_budget(self, told: TellAttemptEnded) -> None:
        """No window holds more restarts than the budget, whatever the state remembers of them."""
        free = self.healed == (told.job, told.run, told.attempt)  # a record was set aside: that is bounded by what was counted before it
        if told.restart_after_s is None or not counts(told.verdict.outcome) or free:
            return
        budget = self.state.jobs[told.job].job_of(told.run).restart.budget
        now = self.clock.mono()
        times = self.restarts.setdefault(told.job, [])
        times.append(now)
        assert sum(1 for at in times if now - at <= budget.within_s) <= budget.restarts, f"{told.job}: {times}"

    def _hear(self) -> None:
        while self.keeper.said:
            message = self.keeper.said.pop(0)
            match message["op"]:
                case wire.STARTED:
                    self._on_started(message["attempt"])
                case wire.ENDED:
                    self._on_ended(message["record"])
                case wire.SHUTDOWN:
                    self._deliver(ShutdownAsked())

    def _on_started(self, attempt: Mapping[str, Any]) -> None:
        run, number = wire.split_key(attempt["key"])
        job = self._job_of(run, number)
        if job is not None:
            self._deliver(AttemptStarted(job, run, number, attempt["pid"], Mono(attempt["started_mono"])))

    def _on_ended(self, record: Mapping[str, Any]) -> None:
        run, attempt = wire.split_key(record["key"])
        job, following = self._job_of(run, attempt), record.get("next")
        if job is None and self.successions.has_begun(record["key"]):
            self.successions.put_off(record["key"], {"op": wire.ENDED, "record": record})
            return
        if job is not None:
            lived = record["ended_mono"] - record["started_mono"]
            begun, over = (datetime.fromtimestamp(record[name], UTC) for name in ("started_wall", "ended_wall"))
            evidence = Evidence(
                exit_of(record), duration_s=max(0.0, lived), progress=record["position"], host_oom_kills=self.host_oom_kills
            )
            self._deliver(AttemptEnded(job, run, attempt, evidence, begun, over, followed=following is not None))
        self.keeper.obey({"op": wire.FORGET, "key": record["key"]})
        self._count_action()
        if following is not None:
            if self.successions.is_lost(following) and job is not None:
                self._deliver(AttemptLost(job, *wire.split_key(following), "nobody saw how it ended"))
            early = self.successions.take_up(following)
            if early is not None:
                self._on_ended(early["record"])

    def _job_of(self, run: int, attempt: int) -> str | None:
        found = (name for name, job in self.state.jobs.items() if (one := job.run(run)) is not None and one.attempt == attempt)
        return next(found, None)

    # ---------------------------------------------------------------- what happens to it

    def crash(self) -> None:
        """The brain dies between two events; the next one starts."""
        self.boot()

    def tell(self, event: Event) -> engine.Answer | None:
        """An event from outside; with whatever the keeper says to it."""
        try:
            if isinstance(event, Wish) and event.verb in FRESH_STARTS:
                self.restarts.pop(event.job, None)
            answer = self._deliver(event)
            self._hear()
        except CrashedError:
            self.on_crash(self)
            self.boot()
            return None
        return answer

    def wish(self, verb: str, name: str, until_s: float | None = None) -> engine.Answer | None:
        until = None if until_s is None else datetime.fromtimestamp(T0.timestamp() + until_s, UTC)
        return self.tell(Wish(Verb(verb), name, until))

    def reload(self, *jobs: Job) -> None:
        self.jobs = {each.name: each for each in jobs}
        self.restarts = {name: times for name, times in self.restarts.items() if name in self.jobs}  # one that comes back is a new job
        self.tell(Reconfigured(self.jobs))

    def shut_down(self) -> None:
        """SIGTERM to the keeper, which asks the brain, and every next brain."""
        self.keeper.stopping = True
        self.tell(ShutdownAsked())

    def kill_keeper(self) -> None:
        self.keeper.die()
        self.boot()

    def reboot(self, *, lose_power: bool = False) -> None:
        self.keeper.reboot()
        self.restarts.clear()
        if lose_power:
            self.power_lost = True
            self.store.lose_power()
        self.boot()

    def jump(self, seconds: float) -> None:
        """Somebody sets the clock; the loop notices and looks at every job."""
        self.set_wall(self.clock.wall.timestamp() + seconds)

    def set_wall(self, unix: float) -> None:
        self.clock.set_wall(datetime.fromtimestamp(unix, UTC))
        for name in tuple(self.state.jobs):
            self.tell(Due(name))

    # ---------------------------------------------------------------- time

    def run(self, until: float, script: Script = ()) -> None:
        """So many seconds after now, with *script* (seconds from now, what) played on the way."""
        clock = self.clock
        end = clock.passed + until
        todo = [(clock.passed + at, what) for at, what in script]
        while True:
            self._settle()
            waits = [end - clock.passed, *(at - clock.passed for at, _ in todo[:1]), *self._waits()]
            clock.advance(max(0.0, min(waits)))
            self.keeper.tick()
            while todo and todo[0][0] <= clock.passed + 1e-9:
                todo.pop(0)[1](self)
            if clock.passed >= end - 1e-9 and not todo:
                self._settle()
                return

    def _waits(self) -> list[float]:
        if self.finished:
            return []
        now = self.clock.now()
        monos = [self.keeper.next_due(), *(mono for mono, _ in self.deadlines.values())]
        waits = [at - now.mono for at in monos if at is not None]
        summary = self.state.crowd.due_at()
        waits += [(summary - now.wall).total_seconds()] if summary is not None else []
        return waits + [(wall - now.wall).total_seconds() for _, wall in self.deadlines.values() if wall is not None]

    def _settle(self) -> None:
        """Hear the keeper and look at all that is due, until nothing is."""
        for _ in range(10_000):
            try:
                self.keeper.tick()
                self._hear()
                due = self._due()
                for name in due:
                    self._deliver(Due(name))
                    self._hear()
                if (at := self.state.crowd.due_at()) is not None and at <= self.clock.now().wall:
                    self._deliver(SummariesDue())
            except CrashedError:
                self.on_crash(self)
                self.boot()
                continue
            if self.finished or not (due or self.keeper.said):
                return
        raise AssertionError("it never comes to rest")

    def _due(self) -> list[str]:
        now = self.clock.now()
        return [
            name
            for name, (mono, wall) in self.deadlines.items()
            if not self.finished and ((mono is not None and mono <= now.mono) or (wall is not None and wall <= now.wall))
        ]

    # ---------------------------------------------------------------- the truth

    def digest(self) -> dict[str, Any]:
        """Everything that is left in the end, to be compared with another world's."""
        store = self.store
        return {
            "runs": dict(store.runs),
            "attempts": dict(store.attempts),
            "slots": dict(store.slots),
            "incidents": dict(store.incidents),
            "outbox": dict(store.outbox),
            "memos": {name: job.memo for name, job in self.state.jobs.items()},
            "aside": dict(store.aside),
            "plans": dict(self.keeper.plans),
            "live": sorted(self.keeper.live),
            "starts": dict(self.keeper.starts),
            "finished": self.finished,
        }

    def verify(self) -> None:
        """What has to hold at the end, whatever happened."""
        store, keeper = self.store, self.keeper
        assert not [key for key, times in keeper.starts.items() if times != 1], "an attempt was started twice"
        assert not [key for key, runs in store.runs_of_slot.items() if len(runs) > 1], "a slot ran twice"
        slots = Counter((plan["job"], plan["slot"], wire.split_key(key)[0]) for key, plan in keeper.plans.items() if plan["slot"])
        taken = Counter((job, slot) for job, slot, _run in slots)
        assert not [slot for slot, runs in taken.items() if runs > 1], "the keeper was asked for a slot by two runs"
        assert self.power_lost or not [run for run, times in store.run_ends.items() if times > 1], "a run ended twice"
        assert self.power_lost or not [number for number, times in store.closings.items() if times > 1], "an incident closed twice"
        live = {(run.id, run.attempt) for job in self.state.jobs.values() for run in job.memo.runs if run.is_alive}
        assert sorted(keeper.live) == sorted(wire.attempt_key(*key) for key in live)
        assert not keeper.records, "an exit record was never taken over"
        assert not keeper.doubtful
        open_runs = {run.id for job in self.state.jobs.values() for run in job.memo.runs}
        assert {row.id for row in store.runs.values() if row.ended_at is None} == open_runs
        for name, job in self.state.jobs.items():
            assert {one.key for one in job.quarantine} == {
                key for of, key in store.aside if of == name and store.aside[of, key].released_at is None
            }
        assert all(row.duration_s >= 0 for row in store.runs.values())
        for key in keeper.starts:
            if wire.split_key(key) not in live:
                self._verify_end(key)

    def _verify_end(self, key: str) -> None:
        row = self.store.attempts[wire.split_key(key)]
        assert row.phase is AttemptPhase.ENDED, f"{key} was started and its end is not written"
        truth = self.keeper.histories.get(key)
        if row.outcome is Outcome.LOST:
            assert key in self.keeper.died_unseen or self.power_lost, f"{key} is called lost, and the keeper knows how it ended"
        else:
            assert truth is not None
            assert (row.exit_code, row.signal) == (truth.get("code"), truth.get("signal"))
        if row.outcome is Outcome.SUCCEEDED:
            assert truth is not None
            assert truth["code"] == 0
        if not self.power_lost:
            assert self.store.ends[wire.split_key(key)] == 1

    def verify_slots(self) -> None:
        """Every due slot has exactly one row, and there is no row for anything else; for a world whose clock was never set."""
        for name, state in self.state.jobs.items():
            if not state.job.schedule.is_timed:
                continue
            memo = state.memo
            due = set(schedule.missed(state.job.schedule, name, memo.configured_at, self.clock.wall, 10**6))
            due = {slot for slot in due if memo.last_slot is not None and slot <= memo.last_slot} - set(memo.backlog)
            written = {slot for job, slot in self.store.slots if job == name and slot > memo.configured_at}
            assert written == due
