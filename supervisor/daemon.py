"""The brain's loop: one event in, actions out, apply. Everything that is decided is decided in ``core``; everything that takes long is done elsewhere.

keeper's messages ─┐
operators' wishes ─┼─▶ event ─▶ engine.step ─▶ actions ─▶ record, then act, then tell
deadlines, breaches┘
"""

import gc
import itertools
import os
import selectors
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import structlog

from supervisor import wire
from supervisor.adapters.jobmetrics import JobMetrics
from supervisor.adapters.keeper import KeeperLink
from supervisor.adapters.metrics import Metrics
from supervisor.adapters.multiproc import Tally
from supervisor.agenda import Agenda
from supervisor.attempts import Attempts
from supervisor.core import engine
from supervisor.core.actions import (
    Action,
    Finished,
    Record,
    TellAttemptEnded,
    TellIncident,
)
from supervisor.core.engine import Answer
from supervisor.core.events import (
    AttemptEnded,
    Breached,
    Due,
    Event,
    Reconfigured,
    ShutdownAsked,
    SummariesDue,
    Verb,
    Wish,
)
from supervisor.core.evidence import Breach, Look
from supervisor.core.jobs import Job
from supervisor.core.model import Mono, Wall
from supervisor.core.plan import settings_that_wait
from supervisor.core.settings import Config
from supervisor.core.state import EngineState, JobState
from supervisor.counting import Counting
from supervisor.errors import ConfigError
from supervisor.evidence import Gatherer, Hider
from supervisor.judging import Judging
from supervisor.ledger import Ledger
from supervisor.mistakes import Mistakes
from supervisor.ports import Clock, Places, Planner, Sampler, Store, Surveyor
from supervisor.requests import Requests
from supervisor.teller import Teller
from supervisor.watch import Watch

TICK_S: Final = 1.0
SAVE_S: Final = 5.0
TOGETHER: Final = 32  # jobs that are due and share one commit: deciding about them takes some milliseconds
SLICE_S: Final = 0.02  # so long a batch is worked at before limits, the keeper and questions have their turn
HOUR_S: Final = 3600.0
PRUNE_BYTES: Final = 64 * 2**20  # of dossiers: then the history is pruned before its hour
PUT_OFF_S: Final = 60.0  # a job that we failed to look at is put off, not forgotten
STEP_FAILURES_MAX: Final = 20  # then we had better start afresh: the keeper sees to that

log = structlog.get_logger()


Witness = Callable[[str, Mono, object], None]
"""Told in the loop what becomes of a drill's stand-in: the kind of fact, when it was on the monotonic clock, and the fact itself."""


class Daemon:
    """Supervises until everything is stopped. Built by ``brain``, which knows how the parts are made."""

    def __init__(
        self,
        *,
        config: Config,
        state: EngineState,
        link: KeeperLink,
        keeper_pid: int,
        clock: Clock,
        store: Store,
        places: Places,
        planner: Planner,
        sampler_for: Callable[[int, str | None, str], Sampler],
        gatherer: Gatherer,
        metrics: Metrics,
        job_metrics: JobMetrics,
        containment: Mapping[str, str],
        reload_config: Callable[[], Config],
        wake_outbox: Callable[[], None],
        configured: Callable[[Config], None],
        keep_config: Callable[[], None],
        hourly: Callable[[], None],
        counters: Mapping[tuple[str, str], float] | None = None,
        beat: Callable[[], None] = lambda: None,
        tally: Tally | None = None,
        hider: Hider | None = None,
        surveyor: Surveyor | None = None,
        drills_due: Callable[[Mapping[str, Job], Wall], None] = lambda _jobs, _now: None,
    ) -> None:
        self.config = config
        self.running = config.settings
        """What this life of the brain was started with; of ``config.settings`` some hold from the next start on."""
        self.state = state
        self.watch = Watch(clock, self._on_breach)
        self.containment = containment
        self.last_tick = clock.now()
        self._link = link
        self._keeper_pid = keeper_pid
        self._clock = clock
        self._places = places
        self._metrics = metrics
        self._teller = Teller(metrics)
        self._reload_config = reload_config
        self._configured = configured
        self._keep_config = keep_config
        self._hourly = hourly
        self._beat = beat
        self._drills_due = drills_due
        self._mistakes = Mistakes()
        self._guarded = self._mistakes.guarded
        self.ledger = Ledger(store, metrics, clock, posted=wake_outbox, caught_up=self._let_records_go)
        self._counting = Counting(metrics, job_metrics, tally, self.ledger, store, places, clock, counters or {})
        self._attempts = Attempts(
            self,
            link=link,
            keeper_pid=keeper_pid,
            clock=clock,
            places=places,
            planner=planner,
            sampler_for=sampler_for,
            watch=self.watch,
            judging=Judging(places, gatherer, hider or Hider({}), surveyor, containment, self._guarded),
            counting=self._counting,
            ledger=self.ledger,
            metrics=metrics,
            guarded=self._guarded,
        )
        self._hourly_at = 0.0
        self._events: deque[Event] = deque()
        self._heard: deque[wire.Message] = deque()
        self._agenda = Agenda()
        self._is_applying = False
        self.requests = Requests()
        self._selector = selectors.DefaultSelector()
        self._exit_code: int | None = None
        self._step_failures = 0
        self._tick_at = 0.0
        self._save_at = 0.0
        self._shown = False  # a page went out since the last save
        self._offset = 0.0
        self._begun = False
        self._lent: dict[str, Job] = {}  # stand-ins of drills: jobs beside the config's
        self._witness: Witness | None = None

    # ---------------------------------------------------------------- the loop

    def begin(self, hello: wire.Message) -> None:
        """Everything that the first scrape has to find: all series of all jobs, and what the keeper holds counted in. Starts nothing."""
        self._begun = True
        for job_state in self.state.jobs.values():
            self._metrics.add_job(job_state.job, job_state.memo.configured_at)
            with self._guarded("reading", job=job_state.name):
                self._counting.begin(job_state.name)
        held = self._attempts.adopt(hello)
        for name, job_state in self.state.jobs.items():
            with self._guarded("reading", job=name):
                self._counting.take_multiproc(job_state.job, self._attempts.keys_of(name), at_once=True)
        for name in self.state.jobs:
            self._after(name)
        self._counting.forget_gone(held)

    def take_over(self, first: engine.Step, hello: wire.Message) -> None:
        """Go on from what the last brain left: *first* is the step that it takes."""
        self._selector.register(self._link, selectors.EVENT_READ, self._on_keeper)
        self._selector.register(self.requests, selectors.EVENT_READ, self.requests.answer)
        if not self._begun:
            self.begin(hello)
        self._apply_all(first)
        for name in self.state.jobs:
            self._after(name)
        self._heard.extend((*self._attempts.take_over(hello), *self._link.early))
        self._drain()
        self._obey_heard()
        self._link.send(wire.READY, status=self._status_line())

    def run(self) -> int:
        """Supervise until everything is stopped; the exit code."""
        gc.collect()
        gc.freeze()  # modules, config and jobs are here to stay: no later collection walks them while a kill waits
        while self._exit_code is None:
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._drain()
            self._obey_heard()
            self.watch.run()
            self._drain()
            self._run_due()
            self._tick()
        return self._exit_code

    def _patience(self) -> float:
        if self._heard or self._agenda.is_due or self._events:
            return 0.0
        now = self._clock.now()
        waits = [TICK_S - (now.mono - self._tick_at)]
        look = self.watch.next_due()
        if look is not None:
            waits.append(look - now.mono)
        return max(0.0, min((*waits, *self._agenda.waits_s(now))))

    def _drain(self) -> None:
        while self._events:
            self._step(self._events.popleft())

    def _run_due(self) -> None:
        """Look at the jobs whose moment has come, for one slice; the others keep their place.

        What the keeper said comes first: a job that has ended is not "still running" when its next fire time is looked at.
        """
        now = self._clock.now()
        self._agenda.collect(now)
        until = now.mono + SLICE_S
        while self._agenda.is_due and not self._heard:
            self._step_due([name for name in self._next_turns() if name in self.state.jobs])
            self._drain()
            if self._clock.mono() >= until:
                return

    def _next_turns(self) -> list[str]:
        """The jobs that are looked at together now."""
        names: list[str] = []
        now = self._clock.now()
        while self._agenda.is_due and len(names) < TOGETHER:
            turn = self._agenda.next_turn()
            self._metrics.observe("mainstay_loop_delay_seconds", turn.late_s(now))
            names.append(turn.job)
        return names

    def _step_due(self, names: list[str]) -> None:
        """Jobs that are due at one instant share one commit. If a mistake of ours is in one of them, each is looked at by itself."""
        try:
            result = engine.step_due(self.state, names, self._clock.now())
        except Exception:  # noqa: BLE001 - the step of the one that fails says so
            for name in names:
                self._step(Due(name))
            return
        self._take(result)

    def _step(self, event: Event) -> Answer | None:
        """One event through the core. A mistake of ours in it must not stop the other jobs."""
        try:
            result = engine.step(self.state, event, self._clock.now())
        except Exception:
            self._step_failures += 1
            log.exception("step_failed", during=type(event).__name__, job=getattr(event, "job", None), failures=self._step_failures)
            if self._step_failures >= STEP_FAILURES_MAX:
                self._exit_code = 70
            if isinstance(event, Due):
                self._agenda.wait(event.job, self._clock.mono() + PUT_OFF_S, on_wall=False)
            if isinstance(event, Breached):
                self.watch.tell_again(wire.attempt_key(event.run, event.attempt))
            return Answer(ok=False, text="Mainstay failed to do this; its log has the traceback (this is a bug of ours)")
        self._take(result)
        return result.answer

    def _take(self, result: engine.Step) -> None:
        """Make it so."""
        self.state = result.state
        self._apply_all(result)
        for name in result.touched:
            self._after(name)

    def _apply_all(self, result: engine.Step) -> None:
        now = self._clock.now()
        until = now.mono + SLICE_S
        self._is_applying = True
        has_record = False
        try:
            for number, action in enumerate(result.actions):
                if isinstance(action, Record):
                    has_record = True
                    self._record(action, (result.actions[at] for at in range(number + 1, len(result.actions))))
                elif not has_record:
                    self._count(action)
                self._attempts.carry_out(action)
                if isinstance(action, Finished):
                    self._finish()
                if self._witness is not None:
                    self._let_witness(action, now.mono)
                with self._guarded("telling", action=type(action).__name__):
                    self._teller.tell(action, now)
                if self._clock.mono() >= until:
                    self._breathe()
                    until = self._clock.mono() + SLICE_S
        finally:
            self._is_applying = False
        with self._guarded("telling"):
            self._teller.flush()

    def _breathe(self) -> None:
        """Amid a long list of actions: pings are answered and limits held. Whatever else comes waits for the end of the list."""
        if self._link.is_readable():
            for message in self._link.receive():
                if message["op"] == wire.PING:
                    self._link.send(wire.PONG)
                else:
                    self._heard.append(message)
        self.watch.run()

    def _after(self, name: str) -> None:
        """New deadlines and gauges of a job that was touched."""
        job_state = self.state.jobs.get(name)
        if job_state is None:
            self._counting.drop(name)
            return
        mono, wall = job_state.mono_deadline(), job_state.wall_deadline(closing=self.state.closing)
        if mono is not None:
            self._agenda.wait(name, mono, on_wall=False)
        if wall is not None:
            self._agenda.wait(name, wall.timestamp(), on_wall=True)
        with self._guarded("telling", job=name):
            self._teller.job_changed(job_state)

    # ---------------------------------------------------------------- actions

    def _record(self, record: Record, later: Iterable[Action]) -> None:
        """Write its rows, and with them the counters of what is told of them among *later* actions: a brain that dies leaves both or neither."""
        told = itertools.takewhile(lambda action: not isinstance(action, Record), later)
        counted = [self._count(action) for action in told]
        if any(counted):
            self._counting.save_with(record.rows, self._attempts.live, durable=record.durable)
        else:
            self.ledger.write(record.rows, durable=record.durable)

    def _count(self, action: Action) -> bool:
        with self._guarded("counting", action=type(action).__name__):
            return self._teller.count(action)
        return False

    def _finish(self) -> None:
        self._counting.save(self._attempts.live)
        log.info("everything_stopped")
        self._link.send(wire.BYE, code=0)
        self._exit_code = 0

    # ---------------------------------------------------------------- the keeper's messages

    def _on_keeper(self) -> None:
        self._heard.extend(self._link.receive())

    def _obey_heard(self) -> None:
        """What the keeper said, in its order, for one slice."""
        until = self._clock.mono() + SLICE_S
        while self._heard and self._exit_code is None:
            self._obey(self._heard.popleft())
            self._drain()
            if self._clock.mono() >= until:
                return

    def _obey(self, message: wire.Message) -> None:
        match message["op"]:
            case wire.STARTED:
                self._attempts.started(message["attempt"])
            case wire.ENDED:
                self._attempts.ended(message)
            case wire.OUTPUT:
                self._attempts.output(message["counts"])
            case wire.PING:
                self._link.send(wire.PONG)
            case wire.SHUTDOWN:
                log.info("shutdown_asked")
                self._events.append(ShutdownAsked())
            case wire.RELOAD:
                self.reload()
                self._link.send(wire.RELOADED)
            case other:
                log.warning("message_unknown", op=other)

    # ---------------------------------------------------------------- what the attempts ask of the loop

    @property
    def jobs(self) -> Mapping[str, JobState]:
        """All jobs as they are now."""
        return self.state.jobs

    def post(self, event: Event) -> None:
        """An event for when the loop has done what it is at."""
        self._events.append(event)

    def judge(self, event: AttemptEnded) -> bool:
        """One that is dealt with before this returns; False when the engine failed at it."""
        return self._step(event) is None

    def obey_next(self, message: wire.Message) -> None:
        """Something that the keeper said, whose turn has come before all that waits."""
        self._heard.appendleft(message)

    def breached(self, event: Breached) -> None:
        """A limit struck, and the tree is stopped."""
        if self._is_applying:  # amid the actions of another step
            self._events.append(event)
        else:
            self._step(event)

    def _on_breach(self, key: str, breach: Breach, _look: Look | None) -> None:
        self._attempts.on_breach(key, breach)

    def _let_records_go(self) -> None:
        self._attempts.let_records_go()

    # ---------------------------------------------------------------- requests of other threads

    def ask(self, work: Callable[[], Any], timeout_s: float) -> Any:
        """Run *work* in the loop and wait for what it returns. Called from other threads. ``TimeoutError``."""
        return self.requests.ask(work, timeout_s)

    def wish(self, event: Event) -> Answer:
        """In the loop: an operator's event and its answer."""
        restarted = event.job if isinstance(event, Wish) and event.verb is Verb.RESTART and self._runs(event.job) else None
        answer = self._step(event) or Answer(ok=True, text="done")
        if restarted is not None and answer.ok:
            self._metrics.inc("mainstay_job_restarts_total", job_name=restarted, reason="request")
        return answer

    def _runs(self, job: str) -> bool:
        return job in self.state.jobs and bool(self.state.jobs[job].memo.runs)

    def reload(self) -> Answer:
        """Take the config anew, whole or not at all."""
        try:
            config = self._reload_config()
        except ConfigError as err:
            self._metrics.set("mainstay_config_last_reload_successful", 0)
            for problem in err.problems:
                log.error("config_refused", problem=problem)  # noqa: TRY400 - the problem names the place
            return Answer(ok=False, text="the config was refused, the one in force stays:\n" + "\n".join(err.problems))
        self.config = config
        self._configured(config)
        self.mark_config_taken()
        self._lent = {}
        self._step(Reconfigured(config.jobs))
        self._keep_config()  # not before what follows from it is written: the next brain would see nothing that has changed
        for job_state in self.state.jobs.values():
            self._metrics.add_job(job_state.job, job_state.memo.configured_at)
            self._after(job_state.name)
        log.info("config_reloaded", path=config.path, jobs=len(config.jobs))
        waiting = settings_that_wait(self.running, config.settings)
        notes = [f"at the next start: {', '.join(waiting)}"] if waiting else []
        return Answer(ok=True, text="\n".join([f"{config.path} is in force: {len(config.jobs)} jobs", *notes]))

    # ---------------------------------------------------------------- drills

    def lend(self, job: Job, witness: Witness) -> None:
        """In the loop: take in a stand-in beside the jobs of the config, and tell *witness* what becomes of it. A reload ends it."""
        self._lent = {job.name: job}
        self._witness = witness
        self._step(Reconfigured({**self.config.jobs, **self._lent}))
        lent = self.state.jobs[job.name]
        self._metrics.add_job(lent.job, lent.memo.configured_at)
        self._after(job.name)

    def give_back(self) -> None:
        """In the loop: the stand-in leaves, and its open incidents close."""
        self._witness = None
        if self._lent:
            self._lent = {}
            self._step(Reconfigured(self.config.jobs))

    @property
    def lent(self) -> frozenset[str]:
        """The names of stand-ins."""
        return frozenset(self._lent)

    def _let_witness(self, action: Action, at: Mono) -> None:
        match action:
            case TellAttemptEnded():
                self.saw(action.job, "judged", at, action.verdict)
            case TellIncident():
                self.saw(action.incident.job, f"incident {action.what}", at, action.incident)
            case _:
                pass

    def saw(self, job: str, what: str, at: Mono, fact: object) -> None:
        """For the witness of a drill, if the job is its stand-in."""
        if self._witness is not None and job in self._lent:
            self._witness(what, at, fact)

    def mark_config_taken(self) -> None:
        """The metrics of a config that was taken."""
        self._metrics.set("mainstay_config_last_reload_successful", 1)
        self._metrics.set("mainstay_config_last_reload_success_timestamp_seconds", self._clock.now().wall.timestamp())

    # ---------------------------------------------------------------- once a second

    def _tick(self) -> None:
        now = self._clock.now()
        if now.mono - self._tick_at < TICK_S:
            return
        self._tick_at = now.mono
        self.last_tick = now
        self._metrics.set("mainstay_loop_last_tick_timestamp_seconds", now.wall.timestamp())
        if not self.state.closing:
            self._beat()
        self._notice_jump(now.wall.timestamp() - now.mono)
        self.watch.find_strays(self._keeper_pid, (os.getpid(),))
        summary = self.state.crowd.due_at()
        if summary is not None and summary <= now.wall:
            self._step(SummariesDue())
        self._attempts.take_metrics_in_turn()
        with self._guarded("drilling"):
            self._drills_due(self.config.jobs, now.wall)
        if now.mono - self._save_at >= SAVE_S or (
            self._shown and self._counting.is_saved
        ):  # what Prometheus has seen must not fall: it would count it all again
            self._save_at, self._shown = now.mono, False
            self._attempts.count()
            self._counting.save(self._attempts.live)
        if now.mono - self._hourly_at >= HOUR_S or self.ledger.dossier_bytes >= PRUNE_BYTES:
            self._hourly_at = now.mono
            self.ledger.dossier_bytes = 0
            with self._guarded("pruning"):
                self._hourly()
                old = now.wall.timestamp() - self.config.settings.history_days * 86400
                for folder in self._places.sweep_jobs({*self.config.jobs, *self.state.jobs}, old):
                    log.info("folder_removed", path=folder, why="its job is not in the config, and nothing in it is young enough to keep")

    def _notice_jump(self, offset: float) -> None:
        """The wall clock was set: every deadline on it is looked at afresh."""
        if self._offset and abs(offset - self._offset) > 2.0:
            log.warning("wall_clock_jumped", by_s=round(offset - self._offset, 1))
            self._agenda.clock_was_set(self.state.jobs, self._clock.now().wall.timestamp())
        self._offset = offset

    def _status_line(self) -> str:
        return f"supervising {len(self.state.jobs)} jobs"

    def refresh_gauges(self) -> None:
        """The gauges that are looked up rather than counted; called when the page is asked for, from its thread."""
        self._shown = True
        self._teller.totals(self.state)
        self._counting.gauges(dict(self.watch.subjects()), self._attempts.live, tuple(self.state.jobs), self._clock.now())
