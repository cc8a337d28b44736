"""The attempts that live, from the plan until the keeper may forget their ends: orders about them go to the keeper, and what it says of them
becomes events for the loop. Decides nothing.
"""

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

import structlog

from supervisor import procfs, wire
from supervisor.adapters.keeper import KeeperLink
from supervisor.adapters.metrics import Metrics
from supervisor.core.actions import Action, Arm, AskToStop, Disarm, KillTree, StartAttempt
from supervisor.core.events import AttemptEnded, AttemptLost, AttemptStarted, Breached, Event
from supervisor.core.evidence import Breach, Evidence, Exit
from supervisor.core.model import Mono, RunId
from supervisor.core.state import JobState
from supervisor.counting import Counting, Live
from supervisor.errors import LaunchError
from supervisor.judging import Judging
from supervisor.ledger import Ledger
from supervisor.ports import Clock, Places, Planner, Sampler
from supervisor.successions import Successions
from supervisor.watch import Subject, Watch, let_go

FILES_PER_TICK: Final = 100
SLICE_S: Final = 0.02  # so long a crowd of files is read before limits, the keeper and questions have their turn

log = structlog.get_logger()


class Loop(Protocol):
    """What the attempts ask of the loop that they live in."""

    @property
    def jobs(self) -> Mapping[str, JobState]: ...

    def post(self, event: Event) -> None:
        """An event for when the loop has done what it is at."""

    def judge(self, event: AttemptEnded) -> bool:
        """One that is dealt with before this returns; False when the engine failed at it."""

    def obey_next(self, message: wire.Message) -> None:
        """Something that the keeper said, whose turn has come before all that waits."""

    def breached(self, event: Breached) -> None:
        """A limit struck, and the tree is stopped."""

    def saw(self, job: str, what: str, at: Mono, fact: object) -> None:
        """For the witness of a drill."""


class Attempts:
    """The live attempts of one brain."""

    def __init__(
        self,
        loop: Loop,
        *,
        link: KeeperLink,
        keeper_pid: int,
        clock: Clock,
        places: Places,
        planner: Planner,
        sampler_for: Callable[[int, str | None, str], Sampler],
        watch: Watch,
        judging: Judging,
        counting: Counting,
        ledger: Ledger,
        metrics: Metrics,
        guarded: Callable[..., AbstractContextManager[None]],
    ) -> None:
        self.live: dict[str, Live] = {}
        self._loop = loop
        self._link = link
        self._keeper_pid = keeper_pid
        self._clock = clock
        self._places = places
        self._planner = planner
        self._sampler_for = sampler_for
        self._watch = watch
        self._judging = judging
        self._counting = counting
        self._ledger = ledger
        self._metrics = metrics
        self._guarded = guarded
        self._successions = Successions()
        self._owed: list[str] = []  # those that are judged, and whose records go once the history has them
        self._turn = 0

    def keys_of(self, job: str) -> list[str]:
        """The live attempts of a job."""
        return [key for key, live in self.live.items() if live.job == job]

    # ---------------------------------------------------------------- from one brain to the next

    def adopt(self, hello: wire.Message) -> set[str]:
        """Watch those that live on as if nothing had happened: their limits count from their own start. All keys that the keeper holds."""
        self._successions.take_over(hello)
        held = {*hello.get("untold", ()), *(one["key"] for one in (*hello["live"], *hello["ended"]))}
        self._places.sweep_runs({*held, *hello.get("armed", ())})
        for attempt in hello["live"]:
            if not self._successions.has_begun(attempt["key"]):  # else it is taken over once the end of the one before it is judged
                self._adopt_one(attempt)
        for key in {record["key"] for record in hello["ended"]}:
            if self._job_of(key) is not None:
                self._metrics.inc("mainstay_adopted_runs_total", outcome="ended")
        self._let_go_on({attempt["key"] for attempt in hello["live"] if attempt["killed_for"] is None})
        return held

    def take_over(self, hello: wire.Message) -> list[wire.Message]:
        """What the keeper would have said of those that ended or began while no brain was there."""
        self._owed.extend(hello.get("doubtful", ()))  # they are lost, which is written; nothing is to be heard of them
        self.let_records_go()
        ended = [{"op": wire.ENDED, "record": record} for record in hello["ended"]]
        begun = [attempt for attempt in hello["live"] if self._successions.has_begun(attempt["key"])]
        return [*ended, *({"op": wire.STARTED, "attempt": attempt} for attempt in begun)]

    def _adopt_one(self, attempt: Mapping[str, Any]) -> None:
        key, pid = attempt["key"], attempt["pid"]
        job = self._job_of(key)
        if job is None:  # the engine has it killed
            self._metrics.inc("mainstay_adopted_runs_total", outcome="lost")
            log.error("run_unknown_ended", key=key, pid=pid, why="the history knows nothing of it")
            return
        live = self.live[key] = self._remembered(key, job)
        self._counting.output(live, attempt["output_bytes"], attempt["output_dropped_bytes"])
        self._observe(key, live, attempt)  # it is not surveyed: what it was made of when it began may have been replaced since
        self._metrics.inc("mainstay_adopted_runs_total", outcome="alive")
        log.info("run_adopted", job=job, run=live.run, attempt=live.attempt, pid=pid)

    def _let_go_on(self, keys: Iterable[str]) -> None:
        """The last brain may have died between stopping a tree and asking for its end: what it stopped goes on, orphans included."""
        self._watch.find_strays(self._keeper_pid, (os.getpid(),), at_once=True)
        for key in keys:
            subject = self._watch.subject(key)
            if subject is not None and subject.sampler.is_alive():
                let_go(subject.sampler.refresh())

    def _remembered(self, key: str, job: str) -> Live:
        return self._counting.remembered(key, job, self._loop.jobs[job].started_as(wire.split_key(key)[0]))

    def _job_of(self, key: str) -> str | None:
        run, attempt = wire.split_key(key)
        for name, job_state in self._loop.jobs.items():
            found = job_state.run(run)
            if found is not None and found.attempt == attempt:
                return name
        return None

    # ---------------------------------------------------------------- orders to the keeper

    def carry_out(self, action: Action) -> None:
        """What is decided about an attempt; nothing for actions that are about none."""
        match action:
            case StartAttempt():
                self._start(action)
            case Arm():
                self._arm(action)
            case Disarm():
                self._link.send(wire.DISARM, after=wire.attempt_key(action.run, action.attempt))
            case AskToStop():
                self._link.send(wire.SIGNAL, key=wire.attempt_key(action.run, action.attempt), signal=action.signal)
            case KillTree():
                self._link.send(wire.KILL, key=wire.attempt_key(action.run, action.attempt), reason=action.reason)
            case _:
                pass

    def _start(self, action: StartAttempt) -> None:
        key = wire.attempt_key(action.run, action.attempt)
        self.live[key] = Live(action.job.name, action.run, action.attempt, action.job)
        if action.begun:
            self._judging.began(key, action.job)
            return
        why = "Mainstay failed to plan it; its log has the traceback (this is a bug of ours)"
        with self._guarded("planning", job=action.job.name, run=action.run):
            try:
                self._link.send(wire.SPAWN, key=key, plan=self._plan(action, action.quarantine))
            except LaunchError as err:
                why = self._judging.readable(action.job, str(err))
            else:
                self._judging.began(key, action.job)
                return
        del self.live[key]
        now = self._clock.now().wall
        self._loop.post(AttemptEnded(action.job.name, action.run, action.attempt, Evidence(Exit(launch_error=why)), now, now))

    def _arm(self, action: Arm) -> None:
        """Hand the next attempt's plan over ahead of time. One that cannot be made is told of when its time has come."""
        key, after = wire.attempt_key(action.run, action.attempt), wire.attempt_key(action.run, action.attempt - 1)
        with self._guarded("planning", job=action.job.name, run=action.run), contextlib.suppress(LaunchError):
            plan = self._plan(action, ())
            self._successions.arm(after, key)
            self._link.send(wire.ARM, key=key, after=after, plan=plan, not_after=sorted(action.not_after))

    def _plan(self, action: StartAttempt | Arm, quarantine: Sequence[str]) -> dict[str, Any]:
        return self._planner.plan(action.job, action.run, action.attempt, action.slot, quarantine)

    # ---------------------------------------------------------------- the keeper's words

    def started(self, attempt: Mapping[str, Any]) -> None:
        """The keeper has begun it."""
        live = self.live.get(attempt["key"])
        if live is None:
            return
        with self._guarded("observing", job=live.job, run=live.run):
            self._observe(attempt["key"], live, attempt)
        self._loop.post(AttemptStarted(live.job, live.run, live.attempt, attempt["pid"], Mono(attempt["started_mono"])))
        log.info("attempt_started", job=live.job, run=live.run, attempt=live.attempt, pid=attempt["pid"])
        self._loop.saw(live.job, "started", Mono(attempt["started_mono"]), live)

    def _observe(self, key: str, live: Live, attempt: Mapping[str, Any]) -> None:
        live.pid, live.cgroup = attempt["pid"], attempt["cgroup"]
        live.host_oom_at_start = procfs.oom_kills()
        sampler = self._sampler_for(attempt["pid"], attempt["cgroup"], self._places.run(key))
        sampler.confirm(attempt["pid_started"])
        self._watch.add(
            key,
            live.config.limits,
            sampler,
            Mono(attempt["started_mono"]),
            page=self._places.page(key),
            can_arm=attempt["cgroup"] is None,
        )
        self._watch.output(key, attempt.get("output_bytes", 0))

    def output(self, counts: Mapping[str, Sequence[int]]) -> None:
        """How much each has written, and how much of that was dropped."""
        for key, (written, dropped) in counts.items():
            live = self.live.get(key)
            if live is not None:
                self._counting.output(live, written, dropped)
                self._watch.output(key, written)

    def ended(self, message: wire.Message) -> None:
        """One has ended: it is judged and recorded before this returns."""
        record = message["record"]
        key = record["key"]
        live = self.live.pop(key, None)
        subject = self._watch.remove(key)
        job = live.job if live is not None else self._job_of(key)
        if job is None and self._successions.has_begun(key):
            self._successions.put_off(key, message)  # the end of the one before it is still to be told
            return
        unused = self._successions.settle(key, record.get("next"))
        if unused is not None:
            self._places.forget_run(unused)
        is_judged = True
        if job is not None:
            live = live or self._remembered(key, job)
            is_judged = self._judge(live, record, subject)
        if record.get("next") is not None:
            self._go_on(record["next"], job, is_judged=is_judged)
        if is_judged and not self._ledger.is_behind and live is not None and any(live.saved):
            self._counting.forget([key])  # not before its end is written: until then the next brain is told of it again
        if is_judged:
            self._owed.append(key)
            self.let_records_go()
        if live is not None:
            with self._guarded("pruning", job=live.job):
                self._places.prune_logs(live.job, live.config.logs.keep_attempts)

    def _judge(self, live: Live, record: Mapping[str, Any], subject: Subject | None) -> bool:
        event = self._judging.ended(live, record, subject)
        with self._guarded("counting", job=live.job, run=live.run):
            self._counting.output(live, record.get("output_bytes") or 0, record.get("output_dropped_bytes") or 0)
            self._counting.cpu(live, event.evidence.exit.cpu_s)
            self._counting.records(live, event.evidence.records or 0)
        self._take_metrics(live.job, live.run, self.keys_of(live.job), at_once=True)
        self._loop.saw(live.job, "ended", Mono(record["ended_mono"]), event.evidence)
        return self._loop.judge(event)

    def _go_on(self, key: str, job: str | None, *, is_judged: bool) -> None:
        """To the attempt that the keeper began by itself after one that is dealt with now. It may have ended too, or have died unseen."""
        if not is_judged:  # nobody would watch it
            self._link.send(wire.KILL, key=key, reason="unknown")
        if self._successions.is_lost(key) and job is not None:
            self.live.pop(key, None)
            self._loop.post(AttemptLost(job, *wire.split_key(key), "Mainstay died with it, in the moment in which it began"))
        message = self._successions.take_up(key)
        if message is not None:
            self._loop.obey_next(message)

    def let_records_go(self) -> None:
        """Exit records that the history holds now; until it does they stay with the keeper."""
        if self._ledger.is_behind:
            return
        owed, self._owed = self._owed, []
        for key in owed:
            self._link.send(wire.FORGET, key=key)
            with self._guarded("forgetting", key=key):
                self._places.forget_run(key)

    # ---------------------------------------------------------------- breaches

    def on_breach(self, key: str, breach: Breach) -> None:
        """The watch has stopped the tree of *key*."""
        live = self.live.get(key)
        if live is None:
            return
        log.warning(
            "limit_breached",
            job=live.job,
            run=live.run,
            attempt=live.attempt,
            limit=breach.limit.value,
            measured=breach.measured,
            line=breach.line,
        )
        self._loop.saw(live.job, "breached", self._clock.mono(), breach)
        self._loop.breached(Breached(live.job, live.run, live.attempt, breach))

    # ---------------------------------------------------------------- what they count while they live

    def count(self) -> None:
        """CPU time and records at the last look: a service never ends to be counted then."""
        for key, live in self.live.items():
            subject = self._watch.subject(key)
            if subject is not None and subject.watched.last is not None:
                self._counting.cpu(live, subject.watched.last.cpu_s)
                self._counting.records(live, subject.records)

    def take_metrics_in_turn(self) -> None:
        """Files of live attempts in turn, for one slice and at most FILES_PER_TICK: a thousand each second would cost 1 % of a core, and a
        crowd of jobs that each write a new file every second, as large as it may be, all of it. The others come in the next ticks.

        A tree that has shown no sign of change since the last time has written nothing (the watch looks at it anew once a minute in any case).
        """
        lives = tuple(self.live.items())
        until, count = self._clock.mono() + SLICE_S, min(len(lives), FILES_PER_TICK)
        keys: dict[str, list[str]] = {}
        for _ in range(count):
            self._turn = (self._turn + 1) % len(lives)
            key, live = lives[self._turn]
            subject = self._watch.subject(key)
            if subject is not None and 0.0 < subject.judged_at < live.metrics_at:
                continue
            live.metrics_at = self._clock.mono()
            if live.config.multiprocess_metrics and not keys:
                for other, its in lives:
                    keys.setdefault(its.job, []).append(other)
            self._take_metrics(live.job, live.run, keys.get(live.job, []))
            if self._clock.mono() >= until:
                return

    def _take_metrics(self, job: str, run: RunId, keys: Collection[str], *, at_once: bool = False) -> None:
        """*keys*: the live attempts of *job*. *at_once*: one of them has just ended."""
        state = self._loop.jobs.get(job)
        if state is not None:
            with self._guarded("reading", job=job):
                self._counting.take(state.job, run, keys, at_once=at_once)
