"""The playbook: what happens when, and all that the engine answers, as lines.

    Play(job()).at(0).when(wish("stop")).expect("ask 1.1 TERM", state="stopping", wait=10)

``expect`` wants every line, in order: what is written that a person would see, what is asked for, what is told. ``wait`` is in how many
seconds the next thing is due, on either clock. The laws (``laws.py``) are checked at every step on top.
"""

from datetime import timedelta
from typing import Any, Self

import laws
from fakes import T0, FakeClock
from msgspec.structs import replace

from supervisor.core import engine
from supervisor.core.actions import (
    Action,
    AskToStop,
    Finished,
    KillTree,
    Record,
    StartAttempt,
    TellCommandEnded,
    TellHealing,
    TellIncident,
    TellParked,
)
from supervisor.core.events import (
    AttemptEnded,
    AttemptLost,
    AttemptStarted,
    Breached,
    Due,
    Event,
    IncidentWish,
    Reconfigured,
    ShutdownAsked,
    Verb,
    Wish,
)
from supervisor.core.evidence import Breach, Evidence, Exit, Progress
from supervisor.core.jobs import (
    AlertPolicy,
    Backoff,
    Budget,
    CatchUp,
    Cron,
    Every,
    Job,
    Launch,
    Manual,
    Overlap,
    RestartPolicy,
    RestartWhen,
    Schedule,
    Service,
    StopPolicy,
)
from supervisor.core.model import LimitName, Outcome
from supervisor.core.records import AttemptPhase, AttemptRow, Notification, QuarantinedRecord, Row, RunRow, SlotRow
from supervisor.core.state import EngineState

STEADY = Backoff(first_s=1, factor=2, max_s=300, jitter=0)


def job(
    name: str = "job",
    *,
    every: float | None = None,
    cron: str | None = None,
    manual: bool = False,
    jitter: float = 0.0,
    catch_up: str = "none",
    within: float | None = None,
    overlap: str = "forbid",
    when: str = "on-failure",
    backoff: Backoff = STEADY,
    budget: tuple[int, float] = (3, 600),
    retry_on: frozenset[Outcome] | None = None,
    park_on: frozenset[Outcome] = frozenset(),
    stable: float = 60,
    grace: float = 10,
    alerts: AlertPolicy | None = None,
    argv: tuple[str, ...] = ("run",),
    **rest: Any,
) -> Job:
    """A job with steady waits (no jitter) and one receiver."""
    kind = Every(every) if every is not None else Cron(cron) if cron is not None else Manual() if manual else Service()
    return Job(
        name,
        Launch(argv, "/"),
        schedule=Schedule(kind, jitter, CatchUp(catch_up), within, Overlap(overlap)),
        restart=RestartPolicy(RestartWhen(when), backoff, Budget(*budget), retry_on, park_on, stable),
        stop=StopPolicy("TERM", grace),
        alerts=alerts or AlertPolicy(to=("ops",)),
        **rest,
    )


# ---------------------------------------------------------------- events in few words


def wish(verb: str, name: str = "job", until_s: float | None = None) -> Wish:
    return Wish(Verb(verb), name, None if until_s is None else T0 + timedelta(seconds=until_s))


def started(run: int = 1, attempt: int = 1, name: str = "job") -> Event:
    return _Started(name, run, attempt)


def ended(
    run: int = 1, attempt: int = 1, name: str = "job", *, lived: float = 1.0, position: Progress | None = None, **exit_: Any
) -> Event:
    """It ended now, having lived so long and standing there; with exit code 0 unless told otherwise."""
    facts = exit_ if {"code", "signal", "launch_error"} & exit_.keys() else {"code": 0, **exit_}
    return _Ended(name, run, attempt, Exit(**facts), lived, position)


def lost(run: int = 1, attempt: int = 1, name: str = "job") -> Event:
    return AttemptLost(name, run, attempt, "nobody saw it")


def breached(run: int = 1, attempt: int = 1, name: str = "job") -> Event:
    return Breached(name, run, attempt, Breach(LimitName.MEMORY, 600 * 2**20, 512 * 2**20))


def reload(*jobs: Job) -> Event:
    return Reconfigured({each.name: each for each in jobs})


DUE = Due("job")
SHUTDOWN = ShutdownAsked()


class _Started:
    """A start whose moment is that of the play."""

    def __init__(self, name: str, run: int, attempt: int) -> None:
        self.key = (name, run, attempt)

    def at(self, clock: FakeClock) -> Event:
        name, run, attempt = self.key
        return AttemptStarted(name, run, attempt, 100 + attempt, clock.mono())


class _Ended:
    """An end whose moment is that of the play."""

    def __init__(self, name: str, run: int, attempt: int, facts: Exit, lived: float, position: Progress | None = None) -> None:
        self.key, self.facts, self.lived, self.position = (name, run, attempt), facts, lived, position

    def at(self, clock: FakeClock) -> Event:
        wall = clock.wall
        evidence = Evidence(self.facts, duration_s=self.lived, progress=self.position)
        return AttemptEnded(*self.key, evidence, wall - timedelta(seconds=self.lived), wall, "output\n")


# ---------------------------------------------------------------- the play


class Play:
    """One engine, told what happens; ``last`` is the last step."""

    def __init__(self, *jobs: Job, fresh: bool = True) -> None:
        self.clock = FakeClock()
        self.jobs = {each.name: each for each in jobs}
        self.state = EngineState({}, boot_id="boot-1", epoch="epoch-1")
        self.lines: list[str] = []
        if fresh:
            view = engine.KeeperView("epoch-1", "boot-1", {})
            self._take(None, engine.restore(self.jobs, {}, {}, (1, 1), view, self.clock.now()))

    def restart(self, epoch: str) -> Self:
        """The next brain with another keeper, which holds nothing: what lived is gone."""
        jobs = self.state.jobs
        open_ = {name: one.incidents for name, one in jobs.items()}
        aside = {name: one.quarantine for name, one in jobs.items()}
        next_ids, view = (self.state.next_run, self.state.next_incident), engine.KeeperView(epoch, "boot-1", {})
        memos = {name: one.memo for name, one in jobs.items()}
        self.lines = []
        self.state = EngineState({}, boot_id="boot-1", epoch=epoch)
        self._take(None, engine.restore(self.jobs, memos, open_, next_ids, view, self.clock.now(), quarantined=aside))
        return self

    def at(self, seconds: float) -> Self:
        """So long after the beginning, on both clocks."""
        self.clock.advance(seconds - (self.clock.mono() - 10_000.0))
        return self

    def set_wall(self, seconds: float) -> Self:
        """Somebody sets the clock, to so long after the beginning."""
        self.clock.set_wall(T0 + timedelta(seconds=seconds))
        return self

    def when(self, *events: Any) -> Self:
        """These happen now; the lines of all of them are what ``expect`` sees."""
        self.lines = []
        for event in events:
            real = event.at(self.clock) if hasattr(event, "at") and not isinstance(event, AttemptStarted) else event
            self._take(real, engine.step(self.state, real, self.clock.now()))
        return self

    def _take(self, event: Event | None, result: engine.Step) -> None:
        laws.check(self.state, event, result, self.clock.now())
        self.state, self.last = result.state, result
        self.lines += [line for action in result.actions for line in lines_of(action)]

    def expect(self, *lines: str, state: str | None = None, wait: float | None = -1.0, name: str = "job") -> Self:
        """Exactly these lines; the job's state; in how many seconds the next thing is due (None: never)."""
        assert self.lines == list(lines)
        if state is not None:
            assert self.job_state(name).state.value == state
        if wait is None or wait >= 0:
            assert self.wait == wait
        return self

    def says(self, text: str, *, ok: bool = True) -> Self:
        """What the operator hears."""
        assert self.last.answer is not None
        assert (self.last.answer.ok, self.last.answer.text) == (ok, text)
        return self

    def job_state(self, name: str = "job") -> Any:
        return self.state.jobs[name]

    @property
    def memo(self) -> Any:
        return self.job_state().memo

    @property
    def wait(self) -> float | None:
        mono, wall = engine.earliest(self.state)
        now = self.clock.now()
        waits = [round(mono - now.mono, 6)] if mono is not None else []
        waits += [round((wall - now.wall).total_seconds(), 6)] if wall is not None else []
        return min(waits, default=None)


def lines_of(action: Action) -> list[str]:
    """An action as a person would see it."""
    match action:
        case Record(rows):
            return [line for row in rows for line in _row(row)]
        case StartAttempt(_, run, attempt):
            return [f"start {run}.{attempt}"]
        case AskToStop(_, run, attempt, signal):
            return [f"ask {run}.{attempt} {signal}"]
        case KillTree(_, run, attempt, reason):
            return [f"kill {run}.{attempt} {reason}"]
        case TellIncident(incident, what):
            return [f"incident {incident.id} {what}"]
        case TellParked(_, outcome, why):
            return [f"parked {outcome} {why}"]
        case TellHealing(_, _, _, step, reason):
            return [f"heal {step} {reason}"]
        case TellCommandEnded(_, run, attempt, verdict):
            return [f"command {run}.{attempt} {verdict.outcome}"]
        case Finished():
            return ["finished"]
        case _:
            return []


def _row(row: Row) -> list[str]:
    match row:
        case AttemptRow(phase=AttemptPhase.ENDED):
            return [f"attempt {row.run}.{row.attempt} {row.outcome}"]
        case RunRow(ended_at=at) if at is not None:
            return [f"run {row.id} {row.outcome}"]
        case SlotRow():
            reason = f" {row.reason}" if row.reason else f" as {row.run}"
            return [f"slot {(row.slot - T0).total_seconds():.12g} {row.result}{reason}"]
        case QuarantinedRecord():
            return [f"{'aside' if row.released_at is None else 'released'} {row.key}"]
        case Notification():
            return [f"notify {row.kind} {row.receiver}"]
        case _:
            return []


def changed(base: Job, **changes: Any) -> Job:
    """The same job, configured otherwise."""
    return replace(base, **changes)


__all__ = [
    "DUE", "SHUTDOWN", "STEADY", "IncidentWish", "Play", "breached", "changed", "ended", "job", "lines_of", "lost", "reload", "started",
    "wish",
]  # fmt: skip
