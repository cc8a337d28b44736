"""What can happen, as the engine hears it. Frozen data; the daemon makes them from messages, timers and requests."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from supervisor.core.model import Breach, Evidence, Job, Mono, RunId, Wall


class Verb(StrEnum):
    """What an operator may ask of a job."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    TRIGGER = "trigger"
    PAUSE = "pause"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """The child runs its own program."""

    job: str
    run: RunId
    attempt: int
    pid: int
    at: Mono


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """The child and its whole tree are gone. ``started_at`` and ``ended_at`` are the keeper's wall times; ``output_tail`` is the end of what it wrote,
    bytes that are no UTF-8 as lone surrogates.

    ``containment`` says which means held its limits (memory, processes, kill), ``surroundings`` what the host was like; for the report.
    ``changes`` is what has changed since the last good run, ``survey`` what the job was made of now (``core.survey``); None: not known.
    ``followed``: the keeper has begun the next attempt already, as the engine had allowed.
    """

    job: str
    run: RunId
    attempt: int
    evidence: Evidence
    started_at: Wall
    ended_at: Wall
    output_tail: str = ""
    containment: Mapping[str, str] | None = None
    surroundings: Mapping[str, object] | None = None
    changes: Mapping[str, object] | None = None
    survey: str | None = None
    followed: bool = False


@dataclass(frozen=True, slots=True)
class AttemptLost:
    """The end of the child cannot be known; ``why`` says how that came. ``doubtful``: the keeper may have begun the next one too."""

    job: str
    run: RunId
    attempt: int
    why: str
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Breached:
    """A hard limit was passed; the tree stands still (SIGSTOP) and was looked at."""

    job: str
    run: RunId
    attempt: int
    breach: Breach


@dataclass(frozen=True, slots=True)
class Due:
    """A deadline of this job may have come; harmless when it has not."""

    job: str


@dataclass(frozen=True, slots=True)
class Wish:
    """An operator asks. ``until`` bounds a pause."""

    verb: Verb
    job: str
    until: Wall | None = None


@dataclass(frozen=True, slots=True)
class IncidentWish:
    """An operator acknowledges or resolves an incident: who, with a note; ``fix`` says what mended it."""

    incident: int
    resolve: bool
    who: str = ""
    note: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class SilenceWish:
    """An operator wants nobody to be alerted about a job for so long; ``for_s`` None ends all its silences."""

    job: str
    for_s: float | None
    comment: str = ""


@dataclass(frozen=True, slots=True)
class SummariesDue:
    """A summary of many incidents may be due (``EngineState.crowd``); harmless when none is."""


@dataclass(frozen=True, slots=True)
class ReleaseWish:
    """An operator takes the record *key* out of quarantine; ``because`` says why."""

    job: str
    key: str
    because: str = "an operator released it"


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """A new config is in force, with these jobs."""

    jobs: Mapping[str, Job]


@dataclass(frozen=True, slots=True)
class ShutdownAsked:
    """Stop everything in order, then finish."""


Event = (
    AttemptStarted
    | AttemptEnded
    | AttemptLost
    | Breached
    | Due
    | Wish
    | SilenceWish
    | IncidentWish
    | SummariesDue
    | ReleaseWish
    | Reconfigured
    | ShutdownAsked
)
