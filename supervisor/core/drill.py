"""Drills: a fault on purpose, in a stand-in that has a job's own limits and alert route, and the chain of what has to follow.

Pure. ``stand_in`` says what to run and what must come of it, or why the drill would prove nothing; ``Chain`` holds what was seen of each link and
names the first that is broken. Starting, watching and timing are ``supervisor.drills``'.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from supervisor.core.jobs import AlertPolicy, Expect, Fault, Job, Launch, Limits, Manual, RestartPolicy, RestartWhen, Schedule
from supervisor.core.model import LimitName, Outcome
from supervisor.core.prose import about_duration, about_size
from supervisor.core.units import format_duration

PREFIX: Final = "drill."
"""What the name of every stand-in begins with; no job of a config may be called so. It marks metrics, incidents and alerts of a drill."""

NAME_MAX: Final = 64
CAP_S: Final = 60.0  # limits on time are lowered to this for a drill, or a drill of a two-hour limit would take two hours


class Link(StrEnum):
    """The links of the chain, in order; the label values of ``link`` in ``mainstay_drill_seconds``."""

    ARMED = "armed"
    FAULT = "fault"
    DETECTED = "detected"
    KILLED = "killed"
    VERDICT = "verdict"
    METRIC = "metric"
    INCIDENT = "incident"
    RULE = "rule"
    DELIVERED = "delivered"
    RESOLVED = "resolved"


class Plan(Struct, frozen=True):
    """What to run. ``outcome`` and ``limit`` are what the verdict must be. ``patience_s``: how long the limit takes by itself; ``delivery_s``: how long a
    receiver may take. ``notes`` say in words where the stand-in differs from the job."""

    job: Job
    fault: Fault
    outcome: Outcome
    limit: LimitName | None
    patience_s: float
    delivery_s: float
    notes: tuple[str, ...] = ()


class Refusal(Struct, frozen=True):
    """Why this fault would go unnoticed, and what to write in the config. That is a result of the drill, too."""

    text: str
    mend: str


def is_stand_in(name: str) -> bool:
    """True for the name of a drill's stand-in."""
    return name.startswith(PREFIX)


def name_of(job: str) -> str:
    """The name of the stand-in for *job*."""
    return (PREFIX + job)[:NAME_MAX]


def stand_in(job: Job, fault: Fault, argv: Sequence[str], *, cap_s: float = CAP_S) -> Plan | Refusal:
    """What to run in place of *job*, so that *fault* happens; *argv* is the program that commits faults, before its arguments.

    The stand-in has the job's limits, user, priority, stop and alert route, an environment of its own (the job's may hold secrets that a fault has
    no use for), no restarts, and no schedule. *cap_s* bounds what a link may take: longer limits on time are lowered to it.
    """
    if not job.alerts.to:
        return Refusal(f"{job.name} has no receiver: nobody would be told", "write alerts: {to: [RECEIVER]} for the job or under defaults")
    expectation = _expectation(job, fault)
    if isinstance(expectation, Refusal):
        return expectation
    outcome, limit = expectation
    limits, notes, patience_s = _capped(job.limits, fault, cap_s)
    expect = Expect()
    if fault is Fault.SILENCE:
        every_s = job.expect.success_every_s or cap_s
        expect = Expect(success_every_s=min(every_s, cap_s))
        if every_s > cap_s:
            notes.append(f"expect.success_every {format_duration(every_s)} is lowered to {format_duration(cap_s)} for the drill")
        patience_s = min(every_s, cap_s)
    if job.alerts.after > 1:
        notes.append(f"alerts.after is {job.alerts.after}: of the job itself only that many failures in a row are told")
    launch = Launch(
        argv=(*argv, fault.value, *_arguments(limits, fault)),
        directory="/",
        user=job.launch.user,
        group=job.launch.group,
        groups=job.launch.groups,
        umask=job.launch.umask,
        nice=job.launch.nice,
    )
    made = Job(
        name=name_of(job.name),
        launch=launch,
        schedule=Schedule(Manual()),
        limits=limits,
        restart=RestartPolicy(when=RestartWhen.NEVER),
        stop=job.stop,
        expect=expect,
        alerts=AlertPolicy(to=job.alerts.to, after=1, severity=job.alerts.severity),
        drill=True,
        description=f"A drill in place of {job.name}: {fault.value} on purpose.",
    )
    return Plan(made, fault, outcome, limit, patience_s, cap_s, tuple(notes))


def _expectation(job: Job, fault: Fault) -> tuple[Outcome, LimitName | None] | Refusal:
    """The verdict that the fault must get under the job's limits."""
    match fault:
        case Fault.MEMORY:
            return Outcome.MEMORY, LimitName.MEMORY
        case Fault.RECURSION:
            return Outcome.RECURSION, LimitName.RECURSION if job.limits.recursion_frames is not None else None
        case Fault.STALL if job.limits.stall_s is None:
            return Refusal(
                f"{job.name} has no limits.stall: a job that goes round in circles is only ended by limits.time",
                "write limits: {stall: 5m}, or drill --fault hang to see limits.time at work",
            )
        case Fault.HANG | Fault.STALL:
            return _first_to_strike(job.limits, fault)[1:]
        case Fault.CRASH:
            return Outcome.CRASHED, None
        case Fault.EXIT:
            return Outcome.FAILED, None
        case Fault.SILENCE if job.expect.success_every_s is None:
            return Refusal(
                f"{job.name} has no expect.success_every: nobody would miss it",
                "write expect: {success_every: 2h}, somewhat longer than its schedule",
            )
        case Fault.SILENCE:
            return Outcome.UNMET, None


def _first_to_strike(limits: Limits, fault: Fault) -> tuple[float, Outcome, LimitName]:
    """Which line a job that hangs (or, busy, gets nowhere) crosses first, and after how many seconds."""
    lines = [(limits.time_s, Outcome.TIME, LimitName.TIME), (limits.stall_s, Outcome.STALLED, LimitName.STALL)]
    if fault is Fault.STALL:
        lines.append((limits.cpu_s, Outcome.CPU, LimitName.CPU))
    found = [(seconds, outcome, limit) for seconds, outcome, limit in lines if seconds is not None]
    return min(found, default=(CAP_S, Outcome.TIME, LimitName.TIME), key=lambda line: line[0])


def _capped(limits: Limits, fault: Fault, cap_s: float) -> tuple[Limits, list[str], float]:
    """Limits under which *fault* strikes within *cap_s*, what to say of them, and after how long it does. All times shrink alike: their order stays."""
    if fault not in (Fault.HANG, Fault.STALL):
        return limits, [], 0.0
    first_s = _first_to_strike(limits, fault)[0]
    if first_s <= cap_s:
        return limits, [], first_s
    changes, notes = {}, []
    for key, value in (("time", limits.time_s), ("stall", limits.stall_s), ("cpu", limits.cpu_s)):
        if value is not None:
            changes[f"{key}_s"] = value * cap_s / first_s
            notes.append(f"limits.{key} {format_duration(value)} is lowered to {about_duration(changes[f'{key}_s'])} for the drill")
    return replace(limits, **changes), notes, cap_s  # all of these are seconds


def _arguments(limits: Limits, fault: Fault) -> tuple[str, ...]:
    """What the stand-in has to be told: how much it must take to be over the line."""
    if fault is Fault.MEMORY:
        return (str(limits.memory_bytes or 0),)
    return ()


# ---------------------------------------------------------------- the chain


class Seen(Struct, frozen=True):
    """One link as it was seen: held or broken, ``at_s`` seconds after the fault began (None: no time to speak of), and what was seen in words."""

    link: Link
    holds: bool
    at_s: float | None
    detail: str
    receiver: str | None = None


class Chain(Struct, frozen=True):
    """What a drill has seen so far, in order. The first link that does not hold is its result."""

    links: tuple[Seen, ...] = ()

    def __or__(self, seen: Seen) -> "Chain":
        return Chain((*self.links, seen))

    @property
    def broken(self) -> Seen | None:
        """The first link that does not hold."""
        return next((seen for seen in self.links if not seen.holds), None)


class Result(Struct, frozen=True):
    """A drill as it stands: ``done`` once nothing follows. ``refused`` when it would have proved nothing."""

    id: int
    job: str
    fault: Fault
    chain: Chain = field(default_factory=Chain)
    notes: tuple[str, ...] = ()
    refused: Refusal | None = None
    done: bool = False

    @property
    def passed(self) -> bool:
        """Every link held."""
        return self.done and self.refused is None and self.chain.broken is None

    def as_json(self) -> dict[str, object]:
        """The shape of ``drill --json``: a contract."""
        broken = self.chain.broken
        return {
            "schema": 1,
            "drill": self.id,
            "job": self.job,
            "fault": self.fault.value,
            "done": self.done,
            "passed": self.passed,
            "refused": None if self.refused is None else {"error": self.refused.text, "mend": self.refused.mend},
            "broken": None if broken is None else broken.link.value,
            "notes": list(self.notes),
            "links": [
                {
                    "link": seen.link.value,
                    "receiver": seen.receiver,
                    "holds": seen.holds,
                    "seconds": None if seen.at_s is None else round(seen.at_s, 4),
                    "detail": seen.detail,
                }
                for seen in self.chain.links
            ],
        }


def verdict_link(plan: Plan, outcome: Outcome, limit: LimitName | None, summary: str, at_s: float) -> Seen:
    """Whether the verdict is the one that this fault must get."""
    holds = outcome is plan.outcome and (plan.limit is None or limit is plan.limit)
    wanted = "" if holds else f"; expected {plan.outcome.value}" + (f" at limits.{plan.limit.value}" if plan.limit is not None else "")
    return Seen(Link.VERDICT, holds, at_s, f"{outcome.value}: {summary}{wanted}")


def breach_words(limit: LimitName, measured: float, line: float) -> str:
    """What was seen over which line, in its own unit."""
    if limit in (LimitName.MEMORY, LimitName.MEMORY_SOFT, LimitName.OUTPUT):
        return f"limits.{limit.value}: {about_size(measured)} over {about_size(line)}"
    if limit in (LimitName.TIME, LimitName.CPU, LimitName.STALL):
        return f"limits.{limit.value}: {about_duration(measured)} over {about_duration(line)}"
    return f"limits.{limit.value}: {measured:,.0f} over {line:,.0f}"


def screen(document: Mapping[str, object]) -> str:
    """A drill's JSON as a person reads it: a line per link with its delay, and the result."""
    links = document.get("links")
    lines = [link_line(seen) for seen in links if isinstance(seen, Mapping)] if isinstance(links, list) else []
    return head_lines(document) + "\n".join([*lines, verdict_line(document)]) + "\n"


def head_lines(document: Mapping[str, object]) -> str:
    """What is drilled, and where the stand-in differs from the job."""
    notes = document.get("notes")
    lines = [f"drill {document['drill']}: {document['fault']} in place of {document['job']}"]
    lines += [f"  note: {note}" for note in notes] if isinstance(notes, list) else []
    return "\n".join(lines) + "\n"


def link_line(seen: Mapping[str, object]) -> str:
    """One link on one line."""
    seconds = seen.get("seconds")
    after = f"{seconds:+9.3f}s" if isinstance(seconds, float | int) else " " * 10
    name = f"{seen['link']} {seen['receiver']}" if seen.get("receiver") else str(seen["link"])
    return f"  {'holds ' if seen['holds'] else 'BROKEN'} {after}  {name:<18} {seen['detail']}"


def verdict_line(document: Mapping[str, object]) -> str:
    """The last line: all held, or the first that did not, or why the fault would go unnoticed."""
    refused = document.get("refused")
    if isinstance(refused, Mapping):
        return f"Not drilled: {refused['error']}; {refused['mend']}."
    if document.get("passed"):
        return "Every link held. Times count from the beginning of the fault."
    return f"The chain is broken at: {document['broken']}." if document.get("broken") else "It has not come to its end."
