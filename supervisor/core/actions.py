"""What the engine asks for. The daemon applies them in order; a change is recorded before it is announced or acted on."""

from dataclasses import dataclass

from supervisor.core.heal import HealReason
from supervisor.core.model import Evidence, Incident, Job, Outcome, RunId, Trigger, Verdict, Wall
from supervisor.core.records import QuarantinedRecord, Row, RunRow, SkipReason
from supervisor.core.remedy import StepName


@dataclass(frozen=True, slots=True)
class Record:
    """Write these rows in one transaction; ``durable`` before anything that follows may happen, power loss included."""

    rows: tuple[Row, ...]
    durable: bool = False


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Start a child for this attempt, which leaves out the records whose keys stand in ``quarantine``.

    With ``begun`` the keeper has started it already, as an ``Arm`` allowed.
    """

    job: Job
    run: RunId
    attempt: int
    trigger: Trigger
    slot: Wall | None
    quarantine: tuple[str, ...] = ()
    begun: bool = False


@dataclass(frozen=True, slots=True)
class Arm:
    """Let the keeper start this attempt at once when the one before it has ended by itself, unless with one of the codes in ``not_after``."""

    job: Job
    run: RunId
    attempt: int
    slot: Wall | None
    not_after: frozenset[int]


@dataclass(frozen=True, slots=True)
class Disarm:
    """Take back the leave to start an attempt after this one."""

    job: str
    run: RunId
    attempt: int


@dataclass(frozen=True, slots=True)
class AskToStop:
    """Send the stop signal (a name without SIG)."""

    job: str
    run: RunId
    attempt: int
    signal: str


@dataclass(frozen=True, slots=True)
class KillTree:
    """SIGKILL to the whole tree; ``reason`` is the limit's name, or "stop" at the end of the grace."""

    job: str
    run: RunId
    attempt: int
    reason: str


# ---------------------------------------------------------------- told to log and metrics, after the fact


@dataclass(frozen=True, slots=True)
class TellAttemptEnded:
    """An attempt was judged. ``restart_after_s`` is None when no other one follows; ``why`` is the policy's reason."""

    job: str
    run: RunId
    attempt: int
    verdict: Verdict
    evidence: Evidence
    restart_after_s: float | None
    why: str


@dataclass(frozen=True, slots=True)
class TellRunEnded:
    row: RunRow


@dataclass(frozen=True, slots=True)
class TellSlotMissed:
    job: str
    slot: Wall
    reason: SkipReason


@dataclass(frozen=True, slots=True)
class TellIncident:
    """An incident changed; ``what`` is opened, seen, reminded, told_late, escalated, acknowledged, held (well, but it flaps), summed_up or closed.
    ``notified`` counts the notifications queued."""

    incident: Incident
    what: str
    notified: int


@dataclass(frozen=True, slots=True)
class TellGathered:
    """The opening of an incident is told to this receiver in a summary only."""

    receiver: str


@dataclass(frozen=True, slots=True)
class TellParked:
    job: str
    outcome: Outcome
    why: str


@dataclass(frozen=True, slots=True)
class TellSilenced:
    """Nobody is alerted about a job until then; ``until`` None: an operator ended that."""

    job: str
    until: Wall | None
    comment: str = ""


@dataclass(frozen=True, slots=True)
class TellHealing:
    """A step of ``heal:`` was taken after this attempt; ``text`` says it in words."""

    job: str
    run: RunId
    attempt: int
    step: StepName
    reason: HealReason
    text: str


@dataclass(frozen=True, slots=True)
class TellQuarantine:
    """A record went into quarantine or, with ``released_at``, came out of it."""

    record: QuarantinedRecord


@dataclass(frozen=True, slots=True)
class TellCommandEnded:
    """The command of a heal step ended."""

    job: str
    run: RunId
    attempt: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Finished:
    """Everything is stopped; the daemon may go."""


Action = (
    Record
    | StartAttempt
    | Arm
    | Disarm
    | AskToStop
    | KillTree
    | TellAttemptEnded
    | TellRunEnded
    | TellSlotMissed
    | TellIncident
    | TellGathered
    | TellParked
    | TellSilenced
    | TellHealing
    | TellQuarantine
    | TellCommandEnded
    | Finished
)
