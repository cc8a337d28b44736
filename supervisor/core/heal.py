"""Failures that will repeat, and what is done about them beyond another attempt.

Two ends are one failure when they have the same fingerprint and the job stood at the same place of its input. Each further one of a sequence counts;
a success (of a service: a good stretch, ``was_well_s``), or a person who starts the job, ends the sequence. What follows is decided here and remembered
as a ``Course``:

- a record that was in work at ``KILLS`` deaths running is set aside, where the job named it by a key and ``quarantine`` is the next step;
- ``repeats`` failures in sequence lead to the first of the other steps, each later one to the next;
- where ``heal:`` does not name the outcome, the steps are ``DEFAULT``, and a job that does not say where it stands is never parked by them;
- causes that are the host's (``host_cause``), and failures of many jobs at once, neither count nor break a sequence.

What counts against the restart budget: everything but the restart right after a record was set aside, for that one begins without what killed
the job. A quarantine needs two deaths, of which the first has counted, so the budget bounds these too.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from supervisor.core.evidence import Evidence, ExceptionFacts, Progress, Verdict
from supervisor.core.fingerprint import of_words
from supervisor.core.jobs import Job, Limits, Schedule
from supervisor.core.model import Outcome, Wall
from supervisor.core.prose import clean, counted
from supervisor.core.redact import is_secretive, looks_secret
from supervisor.core.remedy import DEFAULT, ChangeEnvironment, HealPolicy, Park, RunCommand, SetAside, Step, StepName, TryAgain

KILLS: Final = 2
ROW_MAX: Final = 3  # records set aside one after the other without one finished in between: then it is not the records
CROWD: Final = 5  # jobs, this one included, that failed within CROWD_S of each other: then it is not the job
CROWD_S: Final = 10.0
GIVEN_BACK_MAX: Final = 2  # commands of one sequence that are run again because they were cut short: one may be what kills the keeper
QUARANTINE_MAX: Final = 1000  # records of one job; beyond, its input as a whole is not what it takes it for
KEY_SHOWN: Final = 80
STEPS_TOLD: Final = 6  # of one sequence, the latest

# Deaths that a record in work can be the cause of. A launch that failed had no record, and a signal from elsewhere is somebody's doing.
BLAMABLE: Final = frozenset(
    {
        Outcome.FAILED,
        Outcome.EXCEPTION,
        Outcome.RECURSION,
        Outcome.MEMORY,
        Outcome.TIME,
        Outcome.CPU,
        Outcome.STALLED,
        Outcome.PROCESSES,
        Outcome.OUTPUT,
        Outcome.CRASHED,
        Outcome.WORKER_LOST,
    }
)
# These strike whatever is in work when the time is up: a record is to blame only if it took a good part of the attempt.
_OF_TIME: Final = frozenset({Outcome.TIME, Outcome.CPU})
BLAME_SHARE: Final = 0.25

_HOST_OUTCOMES: Final = {Outcome.HOST_OOM: "the host ran out of memory", Outcome.LOST: "nobody saw how it ended"}
_HOST_LAUNCH: Final = re.compile(
    r"Resource temporarily unavailable|Cannot allocate memory|Too many open files|No space left on device|Disk quota exceeded"
)
_HOST_ERRNO: Final = re.compile(r"\[Errno (11|23|28|122)\]")  # nothing of one job's input
_HOST_ERRNO_BEFORE: Final = re.compile(r"\[Errno (23|28|122)\]")  # not EAGAIN: a socket that does not block says it all day, and is handled
_ERRNO_NAMES: Final = {"11": "EAGAIN", "23": "ENFILE", "28": "ENOSPC", "122": "EDQUOT"}
_NO_THREAD: Final = "RuntimeError: can't start new thread"


class HealReason(StrEnum):
    """Why a step is taken."""

    RECORD_KILLED_AGAIN = "record_killed_again"
    REPEATED = "repeated"
    CAME_BACK = "came_back"
    NOT_THE_RECORD = "not_the_record"


class Mark(Struct, frozen=True):
    """Where an attempt ended: how many records it had finished, with which checkpoint, and by which bug."""

    records: int = 0
    checkpoint: str | None = None
    fingerprint: str = ""


class Course(Struct, frozen=True):
    """A sequence of failures of one job, and what was done about it. Part of the job's memo.

    ``times`` counts the failures with this fingerprint at this position (the last of them after ``records`` finished ones), ``kills`` the deaths
    running with this record in work. ``taken``: the steps of the outcome's list that were taken against this very failure. ``changes`` are the steps in
    force, (outcome, index in its list). ``row``: records set aside with none finished since; ``row_at`` is where the job stood when the last of them was.
    ``under`` names the config that all this holds for (``name_of``; "" in memos of a version that had no name for it). ``given_back``: commands that
    were cut short and may run again. ``steps``: what was taken, in words, the latest ``STEPS_TOLD``; of a command with how it ended.
    """

    fingerprint: str = ""
    position: str = ""
    times: int = 0
    record: str = ""
    kills: int = 0
    taken: int = 0
    at: Wall | None = None
    changes: tuple[tuple[str, int], ...] = ()
    row: tuple[str, ...] = ()
    row_at: Mark = Mark()
    under: str = ""
    given_back: int = 0
    steps: tuple[str, ...] = ()
    records: int = 0


class Failure(Struct, frozen=True):
    """A bad end, as far as it matters here. ``position`` is where the job stood by its own word, None when it does not say."""

    outcome: Outcome
    fingerprint: str
    position: Progress | None
    at: Wall
    duration_s: float = 0.0
    host_cause: str | None = None

    @property
    def place(self) -> str:
        """The position as one text, "" where it is not known."""
        return "" if self.position is None else self.position.place

    @property
    def blamed(self) -> str:
        """The key of the record that this death may be the work of, "" for none."""
        position = self.position
        if position is None or position.record is None or not position.keyed or self.outcome not in BLAMABLE:
            return ""
        if self.outcome in _OF_TIME and (position.record_s is None or position.record_s < BLAME_SHARE * self.duration_s):
            return ""
        return position.record

    @property
    def mark(self) -> Mark:
        """Where it ended."""
        if self.position is None:
            return Mark(fingerprint=self.fingerprint)
        return Mark(self.position.records, self.position.checkpoint, self.fingerprint)


class Healing(Struct, frozen=True):
    """What is done about a failure. ``step`` None: what the restart policy says, and nothing more.

    ``course`` is what to remember when the step is taken, ``counted`` when it is not. ``did`` says it in words. ``record`` is the key to set aside,
    ``release`` are keys to take back.
    """

    course: Course
    counted: Course
    step: Step | None = None
    reason: HealReason | None = None
    did: str = ""
    record: str = ""
    release: tuple[str, ...] = ()


def host_cause(verdict: Verdict, evidence: Evidence) -> str | None:
    """Why this end says nothing about the job: the host's own trouble, in words; None when it is the job's."""
    if verdict.outcome in _HOST_OUTCOMES:
        return _HOST_OUTCOMES[verdict.outcome]
    error = evidence.exit.launch_error
    if error is not None and (found := _HOST_LAUNCH.search(error)) is not None:
        return f"the host could not start it: {found[0]}"
    return (evidence.refused or refusal(verdict.exception)) if verdict.outcome is Outcome.EXCEPTION else None


def refusal(raised: ExceptionFacts | None) -> str | None:
    """What the host refused to a job that ended by this exception, or by one that this one came from; None for nothing. Nothing of its messages is in it."""
    if raised is None:
        return None
    found = _HOST_ERRNO.search(raised.message)
    for link in raised.chain:
        found = found or _HOST_ERRNO_BEFORE.search(link)
    if found is not None:
        return f"the host refused it something: {_ERRNO_NAMES[found[1]]}"
    return "the host gave it no new thread" if _NO_THREAD in (f"{raised.type}: {raised.message}", *raised.chain) else None


def was_well_s(outcome: Outcome, evidence: Evidence, limits: Limits) -> float:
    """How long an attempt did well before what ended it: not the time in which it stood still, nor in which the record in work was that."""
    if outcome is Outcome.LOST:
        return 0.0  # how long it lived is not known, only how long at most
    record_s = evidence.progress.record_s if evidence.progress is not None else None
    stood_s = limits.stall_s if outcome is Outcome.STALLED else None
    return evidence.duration_s - max(record_s or 0.0, stood_s or 0.0)


def repeats_itself(course: Course, failure: Failure) -> bool:
    """Whether it ended exactly where the last attempt had, by the same bug after as many records: no accident, however long it takes to get there."""
    before = (course.fingerprint, course.position, course.records)
    return course.times > 0 and failure.place != "" and before == (failure.fingerprint, failure.place, failure.mark.records)


def is_refused_start(verdict: Verdict, evidence: Evidence) -> bool:
    """Whether it never ran because of what the host is out of."""
    return verdict.outcome is Outcome.LAUNCH_FAILED and host_cause(verdict, evidence) is not None


def consider(policy: HealPolicy, course: Course, failure: Failure, *, crowd: int, crowd_then: int = 0, held: int = 0) -> Healing:
    """What is done about *failure*, the next one after those of *course*.

    *crowd* is how many jobs, this one included, failed at about the same time; *crowd_then* the same for the time of the last failure that counted
    (whoever failed first in a crowd could not see it). *held* is how many records of the job are in quarantine already.
    """
    if failure.host_cause is not None or crowd >= CROWD:
        return Healing(course, course)
    if crowd_then >= CROWD:
        course = replace(course, fingerprint="", position="", times=0, record="", kills=0, taken=0)
    course = _count(course, failure)
    if policy.repeats is None and failure.outcome not in policy.steps:
        steps: tuple[Step, ...] = (SetAside(),)
    else:
        steps = policy.steps.get(failure.outcome, DEFAULT)
    is_named = failure.outcome in policy.steps
    again = course.taken > 0
    due = again or (policy.repeats is not None and course.times >= policy.repeats)
    for index in range(course.taken, len(steps)):
        step = steps[index]
        if isinstance(step, SetAside):
            if not failure.blamed:
                continue
            return _set_aside(course, failure, index, held)
        if isinstance(step, ChangeEnvironment) and (failure.outcome.value, index) in course.changes:
            continue
        if not due or not (is_named or failure.place):
            return Healing(course, course)
        reason = HealReason.CAME_BACK if again else HealReason.REPEATED
        return _take(course, failure, index, step, reason)
    return Healing(course, course)


def may_step_in(policy: HealPolicy, course: Course) -> bool:
    """Whether some failure could be the one that ``consider`` answers with a step, if it is the next after *course*."""
    if policy.steps or course.taken or course.kills + 1 >= KILLS:
        return True
    times = course.times + 1 if course.position else 1  # one at another place begins a sequence, and one at none leads to no default step
    return policy.repeats is not None and times >= policy.repeats


def _count(course: Course, failure: Failure) -> Course:
    same = course.times > 0 and (course.fingerprint, course.position) == (failure.fingerprint, failure.place)
    blamed = failure.blamed
    kills = (course.kills + 1 if blamed == course.record else 1) if blamed else 0
    return replace(
        course,
        fingerprint=failure.fingerprint,
        position=failure.place,
        times=course.times + 1 if same else 1,
        record=blamed,
        kills=kills,
        taken=course.taken if same else 0,
        given_back=course.given_back if same else 0,
        steps=course.steps if same else (),
        at=failure.at,
        row=() if _got_on(course.row_at, failure.mark) else course.row,
        records=failure.mark.records,
    )


def _got_on(before: Mark, now: Mark) -> bool:
    """Whether records were finished that were not when the last one was set aside.

    A job that begins from the start has always finished the same ones again, so only more of them count; fewer do where it went on from another
    checkpoint, and where another bug ended it.
    """
    is_elsewhere = (now.checkpoint, now.fingerprint) != (before.checkpoint, before.fingerprint)
    return now.records > before.records or (now.records > 0 and is_elsewhere)


def _set_aside(course: Course, failure: Failure, index: int, held: int) -> Healing:
    """The record goes, if it killed the job often enough and if records are the cause at all."""
    record = failure.blamed
    if course.kills < KILLS:
        return Healing(course, course)
    shown = f"record {clean(record, KEY_SHOWN)!r}"
    if len(course.row) >= ROW_MAX:
        did = (
            f"took {counted(len(course.row), 'record')} back out of quarantine: {shown} is the next that dies the same way with none finished in between, "
            "so the cause is not in the records"
        )
        return Healing(replace(course, row=()), course, Park(), HealReason.NOT_THE_RECORD, did, release=course.row)
    if held >= QUARANTINE_MAX:
        did = f"did not set {shown} aside: {counted(held, 'record')} of this job are in quarantine already"
        return Healing(course, course, Park(), HealReason.NOT_THE_RECORD, did)
    did = f"set {shown} aside: it was in work at {course.kills} deaths running"
    taken = replace(_noted(course, f"set {shown} aside"), taken=index + 1, row=(*course.row, record), row_at=failure.mark)
    return Healing(taken, course, SetAside(), HealReason.RECORD_KILLED_AGAIN, did, record=record)


def _take(course: Course, failure: Failure, index: int, step: Step, reason: HealReason) -> Healing:
    counted_only, course = course, replace(course, taken=index + 1)
    where = f" at {failure.position.words}" if failure.position is not None and failure.place else ""
    why = f"the same failure{where}, {course.times} times in sequence"
    match step:
        case TryAgain():
            course = _noted(course, "tried once more")
            return Healing(course, counted_only, step, reason, f"tries once more with nothing changed ({why})")
        case ChangeEnvironment(variables):
            names = ", ".join(sorted(variables))
            course = replace(_noted(course, f"changed {names}"), changes=(*course.changes, (failure.outcome.value, index)))
            return Healing(course, counted_only, step, reason, f"changes {names} for the next attempts ({why})")
        case RunCommand(argv):
            program = clean(argv[0], KEY_SHOWN)
            return Healing(_noted(course, f"ran {program}"), counted_only, step, reason, f"runs {program} before the next attempt ({why})")
        case _:
            return Healing(course, counted_only, step, reason, f"saw {why}: it will repeat")


def _noted(course: Course, step: str) -> Course:
    return replace(course, steps=(*course.steps, clean(step, 2 * KEY_SHOWN))[-STEPS_TOLD:])


def told(course: Course) -> str:
    """What was done in the sequence so far; "" for nothing."""
    return "; ".join(course.steps)


def name_of(job: Job) -> str:
    """One name for what the job runs and how it is healed: a course holds for these. Values that are secret have no part in it."""
    public = {name: "" if is_secretive(name) or looks_secret(value) else value for name, value in sorted(job.launch.environment.items())}
    return of_words(repr((job.heal.repeats, sorted(job.heal.steps.items()), replace(job.launch, environment=public))))


def course_of(job: Job, course: Course) -> Course:
    """*course* as far as it is the job's: what was decided under another config is over, for its steps are remembered by their place in the list."""
    if course == Course():
        return course
    return course if course.under in ("", name_of(job)) else Course()


def variables(job: Job, course: Course) -> dict[str, str]:
    """What the steps in force add to the job's environment."""
    found: dict[str, str] = {}
    policy, changes = job.heal, course.changes and course_of(job, course).changes
    for outcome, index in changes:
        steps = policy.steps.get(outcome, ())
        step = steps[index] if index < len(steps) else None
        if isinstance(step, ChangeEnvironment):
            found |= step.variables
    return found


def command_ended(course: Course, index: int, verdict: Verdict) -> Course:
    """*course* once the command that is step *index* has ended. One that was cut short, by no fault of its own, is taken again at the next failure."""
    if course.taken != index + 1:
        return course
    ended = f"{verdict.outcome.value}: {clean(verdict.summary, 2 * KEY_SHOWN).rstrip('.')}"
    course = replace(course, steps=(*course.steps[:-1], *(f"{step} ({ended})" for step in course.steps[-1:])))
    return _cut_short(course, index) if verdict.outcome in (Outcome.STOPPED, Outcome.LOST) else course


def _cut_short(course: Course, index: int) -> Course:
    if course.given_back >= GIVEN_BACK_MAX:
        return course
    return replace(course, taken=index, given_back=course.given_back + 1)


def errand(job: Job, step: RunCommand) -> Job:
    """The job as which a step's command runs: same user and directory, limits of its own, nothing expected but exit code 0."""
    launch = replace(job.launch, argv=step.argv)
    limits = Limits(memory_bytes=step.memory_bytes, time_s=step.time_s, output_bytes=None)
    return Job(job.name, launch, Schedule(), limits, job.restart, job.stop, alerts=job.alerts, logs=job.logs)


def command_of(policy: HealPolicy, errand_of: tuple[str, int]) -> RunCommand | None:
    """The command step at (outcome, index); None when the config no longer has it."""
    outcome, index = errand_of
    steps: Mapping[str, tuple[Step, ...]] = policy.steps
    found = steps.get(outcome, ())
    step = found[index] if index < len(found) else None
    return step if isinstance(step, RunCommand) else None


__all__ = ["Course", "Failure", "HealReason", "Healing", "StepName", "command_of", "consider", "errand", "host_cause", "variables"]
