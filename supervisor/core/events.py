"""What can happen, as the engine hears it. Frozen data; the daemon makes them from messages, timers and requests."""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from supervisor.core.evidence import Breach, Evidence
from supervisor.core.jobs import Job
from supervisor.core.model import Mono, RunId, Wall


class Verb(StrEnum):
    """What an operator may ask of a job."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    TRIGGER = "trigger"
    PAUSE = "pause"
    RESUME = "resume"


class AttemptStarted(Struct, frozen=True):
    """The child runs its own program."""

    job: str
    run: RunId
    attempt: int
    pid: int
    at: Mono


class AttemptEnded(Struct, frozen=True):
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


class AttemptLost(Struct, frozen=True):
    """The end of the child cannot be known; ``why`` says how that came. ``doubtful``: the keeper may have begun the next one too."""

    job: str
    run: RunId
    attempt: int
    why: str
    doubtful: bool = False


class Breached(Struct, frozen=True):
    """A hard limit was passed; the tree stands still (SIGSTOP) and was looked at."""

    job: str
    run: RunId
    attempt: int
    breach: Breach


class Due(Struct, frozen=True):
    """A deadline of this job may have come; harmless when it has not."""

    job: str


class Wish(Struct, frozen=True):
    """An operator asks. ``until`` bounds a pause."""

    verb: Verb
    job: str
    until: Wall | None = None


class IncidentWish(Struct, frozen=True):
    """An operator acknowledges or resolves an incident: who, with a note; ``fix`` says what mended it."""

    incident: int
    resolve: bool
    who: str = ""
    note: str = ""
    fix: str = ""


class SilenceWish(Struct, frozen=True):
    """An operator wants nobody to be alerted about a job for so long; ``for_s`` None ends all its silences."""

    job: str
    for_s: float | None
    comment: str = ""


class SummariesDue(Struct, frozen=True):
    """A summary of many incidents may be due (``EngineState.crowd``); harmless when none is."""


class ReleaseWish(Struct, frozen=True):
    """An operator takes the record *key* out of quarantine; ``because`` says why."""

    job: str
    key: str
    because: str = "an operator released it"


class Reconfigured(Struct, frozen=True):
    """A new config is in force, with these jobs."""

    jobs: Mapping[str, Job]


class ShutdownAsked(Struct, frozen=True):
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
