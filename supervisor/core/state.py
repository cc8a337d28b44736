"""Where everything is: live runs, jobs, the engine as a whole. Frozen data, and the text by which it survives the brain."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Self

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from supervisor.core import dispatch, heal, overdue, schedule
from supervisor.core import incidents as incident_rules
from supervisor.core.crowd import Crowd
from supervisor.core.jobs import Every, Job, Overlap
from supervisor.core.lived import Stretch
from supervisor.core.model import Incident, Mono, Outcome, RunId, State, Trigger, Wall
from supervisor.core.records import QuarantinedRecord
from supervisor.core.remedy import RunCommand

NEVER: Final = Mono(0.0)


class StopReason(StrEnum):
    """Who asked a run to stop."""

    OPERATOR = "operator"
    SHUTDOWN = "shutdown"
    RELOAD = "reload"
    REPLACED = "replaced"


class LiveRun(Struct, frozen=True):
    """A run that has not ended. ``deadline``: backing off → when the next attempt is due; stopping → when the grace ends.

    ``attempt_at`` is the start of the present attempt (its intent, until the keeper says when it really began). ``begun_at`` is
    ``started_at`` on the monotonic clock, None once that is another boot's. ``errand``: the present attempt is not the job itself but the command of
    its heal step at (outcome, index).
    """

    id: RunId
    trigger: Trigger
    slot: Wall | None
    started_at: Wall
    phase: State
    attempt: int = 0
    attempt_at: Mono = NEVER
    attempt_wall: Wall | None = None
    pid: int | None = None
    deadline: Mono | None = None
    stop: StopReason | None = None
    then_start: bool = False
    killed: bool = False
    memory_peak_bytes: int = 0
    cpu_s: float = 0.0
    begun_at: Mono | None = None
    errand: tuple[str, int] | None = None

    @property
    def is_alive(self) -> bool:
        """True while a child of it may exist."""
        return self.phase in (State.STARTING, State.RUNNING, State.STOPPING)


class Last(Struct, frozen=True):
    """How the job's last run ended."""

    run: RunId
    outcome: Outcome
    summary: str
    ended_at: Wall
    duration_s: float
    memory_peak_bytes: int


class Memo(Struct, frozen=True):
    """What is remembered of a job; this is what survives a restart of the brain.

    ``last_slot``: fire times up to here are dealt with, ``lived`` where else they are (see ``core.lived``), ``settled_at`` since when the wall
    clock has gone on without a leap. ``backlog``: fire times that wait for the run before them to end. ``expected_since``: successes are
    expected from then on (a start of Mainstay, the end of a pause); before it is set, since ``configured_at``. ``desk``: silences, and what was said
    of the open incidents (see ``core.dispatch``). ``past``: bugs whose incidents are over. ``well_since``: it has not failed since then, while an
    incident that flaps is held open. ``course``: its failures in sequence, and what was done about
    them. ``failure_before_at`` is the failure before ``last_failure_at``. ``away``: disabled, or not in the config any more. ``timing``
    names the schedule of which ``last_slot`` is one.
    """

    configured_at: Wall
    boot_id: str = ""
    epoch: str = ""
    runs: tuple[LiveRun, ...] = ()
    paused: bool = False
    paused_until: Wall | None = None
    parked: str | None = None
    last_slot: Wall | None = None
    lived: tuple[Stretch, ...] = ()
    settled_at: Wall | None = None
    backlog: tuple[Wall, ...] = ()
    restarts: tuple[Mono, ...] = ()
    failures_in_row: int = 0
    last: Last | None = None
    last_start_at: Wall | None = None
    last_success_at: Wall | None = None
    last_failure_at: Wall | None = None
    expected_since: Wall | None = None
    desk: dispatch.Desk = dispatch.NOTHING
    past: tuple[incident_rules.Past, ...] = ()
    well_since: Wall | None = None
    failure_before_at: Wall | None = None
    away: bool = False
    timing: str = ""
    course: heal.Course = field(default_factory=heal.Course)

    def encode(self) -> str:
        """As JSON text."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """From JSON text. ``ValueError`` if it is not one of ours."""
        return msgspec.json.decode(text, type=cls)


class JobState(Struct, frozen=True):
    """One job: what is configured, what is remembered, and its open incidents. ``removed``: no longer configured, only ending.

    ``quarantine`` are its records that are set aside. ``kept`` is the config that a live run began with, where the job was configured anew since.
    """

    job: Job
    memo: Memo
    incidents: tuple[Incident, ...] = ()
    removed: bool = False
    quarantine: tuple[QuarantinedRecord, ...] = ()
    kept: Mapping[RunId, Job] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def name(self) -> str:
        return self.job.name

    @property
    def state(self) -> State:
        """The one word for where the job is."""
        for phase in (State.STOPPING, State.RUNNING, State.STARTING, State.BACKING_OFF):
            if any(run.phase is phase for run in self.memo.runs):
                return phase
        if not self.job.enabled:
            return State.DISABLED
        if self.memo.parked is not None:
            return State.PARKED
        return State.PAUSED if self.memo.paused else State.IDLE

    def run(self, run_id: RunId) -> LiveRun | None:
        return next((run for run in self.memo.runs if run.id == run_id), None)

    def job_of(self, run_id: RunId) -> Job:
        """The config that this run goes by."""
        return self.kept.get(run_id, self.job)

    def started_as(self, run_id: RunId) -> Job:
        """What the run's present attempt was, or is to be, started as: its job with what heal steps changed, or the command of one."""
        job, run = self.job_of(run_id), self.run(run_id)
        if run is not None and run.errand is not None:
            return heal.errand(job, heal.command_of(job.heal, run.errand) or RunCommand(("true",)))
        changed = heal.variables(job, self.memo.course)
        return replace(job, launch=replace(job.launch, environment={**job.launch.environment, **changed})) if changed else job

    def with_run(self, run: LiveRun) -> "JobState":
        """The same with *run* put in place of its former self, or added."""
        others = tuple(run if old.id == run.id else old for old in self.memo.runs)
        runs = others if self.run(run.id) is not None else (*others, run)
        return self.remember(runs=runs)

    def without_run(self, run_id: RunId) -> "JobState":
        kept = MappingProxyType({key: job for key, job in self.kept.items() if key != run_id})
        return replace(self.remember(runs=tuple(run for run in self.memo.runs if run.id != run_id)), kept=kept)

    def remember(self, **changes: object) -> "JobState":
        """The same with these fields of the memo changed."""
        return replace(self, memo=replace(self.memo, **changes))  # names and types are Memo's

    @property
    def next_slot(self) -> Wall | None:
        """The next fire time that has not been dealt with."""
        if not (self.job.enabled and self.job.schedule.is_timed) or self.removed:
            return None
        memo = self.memo
        return schedule.next_fire(self.job.schedule, self.name, memo.last_slot or memo.configured_at)

    @property
    def next_start(self) -> Wall | None:
        """When the next fire time runs, jitter included."""
        slot = self.next_slot
        return None if slot is None else schedule.start_at(self.job.schedule, self.name, slot)

    def mono_deadline(self) -> Mono | None:
        """The next moment on the monotonic clock at which something is due."""
        return min(self._mono_deadlines(), default=None)

    def _mono_deadlines(self) -> Iterator[Mono]:
        for run in self.memo.runs:
            if run.deadline is not None:
                yield run.deadline
            job = self.job_of(run.id)
            if run.phase is State.RUNNING and job.schedule.is_service and self.awaits_recovery:
                yield Mono(run.attempt_at + job.restart.stable_s)

    @property
    def awaits_recovery(self) -> bool:
        """Something is to be called over once the job proves to be well."""
        return bool(self.memo.failures_in_row or (self.incidents and self.memo.well_since is None))

    @property
    def calm_at(self) -> Wall | None:
        """When it has been well for so long that even an incident that flaps is over."""
        since = self.memo.well_since
        return None if since is None or not self.incidents else incident_rules.calm_at(since)

    @property
    def awaits_first_run(self) -> bool:
        """An interval job that has never run starts at once."""
        never = isinstance(self.job.schedule.when, Every) and self.memo.last_slot is None
        return never and self.job.enabled and not self.is_blocked

    @property
    def awaits_backlog(self) -> bool:
        """A fire time waits, and nothing is in its way: no run at all, or, where runs may overlap, none of an earlier fire time."""
        if not self.memo.backlog or not self.job.enabled or self.is_blocked:
            return False
        if self.job.schedule.overlap is not Overlap.ALLOW:
            return not self.memo.runs
        return all(run.slot is None or run.slot > self.memo.backlog[0] for run in self.memo.runs)

    @property
    def is_blocked(self) -> bool:
        """Nothing starts by itself."""
        return self.removed or self.memo.paused or self.memo.parked is not None

    @property
    def overdue_at(self) -> Wall | None:
        """When the lack of a success becomes an incident; None while it cannot."""
        memo = self.memo
        if self.removed or memo.paused:
            return None
        return overdue.overdue_at(self.job, memo.last_success_at, memo.expected_since or memo.configured_at, self.incidents)

    def wall_deadline(self, *, closing: bool) -> Wall | None:
        """The next moment on the wall clock at which something is due; while Mainstay is *closing* nothing begins any more."""
        moments = [incident_rules.next_reminder(incident, self.job.alerts) for incident in self.incidents]
        moments += [dispatch.next_look(self.memo.desk, self.job, self.incidents)]
        moments.append(self.calm_at)
        if not (closing or self.removed):
            moments += [self.next_start, self.memo.paused_until if self.memo.paused else None, self.overdue_at]
            moments += [self.memo.configured_at] if self.awaits_first_run else []
            moments += [self.memo.backlog[0]] if self.awaits_backlog else []
        return min((moment for moment in moments if moment is not None), default=None)


class EngineState(Struct, frozen=True):
    """All jobs, the next numbers, and whether we are stopping. ``former``: the memos of jobs that left, lest a slot run twice; ``aside``: their
    quarantines. ``crowd``: what receivers were told of lately, ``summaries`` the open summaries by receiver (``core.crowd``)."""

    jobs: Mapping[str, JobState]
    next_run: RunId = 1
    next_incident: int = 1
    boot_id: str = ""
    epoch: str = ""
    closing: bool = False
    former: Mapping[str, Memo] = field(default_factory=lambda: MappingProxyType({}))
    crowd: Crowd = field(default_factory=Crowd)
    summaries: Mapping[str, Incident] = field(default_factory=lambda: MappingProxyType({}))
    aside: Mapping[str, tuple[QuarantinedRecord, ...]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def is_idle(self) -> bool:
        """True when no run is alive."""
        return not any(state.memo.runs for state in self.jobs.values())
