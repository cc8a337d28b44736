"""What the engine asks for. The daemon applies them in order; a change is recorded before it is announced or acted on."""

from msgspec import Struct

from supervisor.core.evidence import Evidence, Verdict
from supervisor.core.heal import HealReason
from supervisor.core.jobs import Job
from supervisor.core.model import Incident, Outcome, RunId, Trigger, Wall
from supervisor.core.records import QuarantinedRecord, Row, RunRow, SkipReason
from supervisor.core.remedy import StepName


class Record(Struct, frozen=True):
    """Write these rows in one transaction; ``durable`` before anything that follows may happen, power loss included."""

    rows: tuple[Row, ...]
    durable: bool = False


class StartAttempt(Struct, frozen=True):
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


class Arm(Struct, frozen=True):
    """Let the keeper start this attempt at once when the one before it has ended by itself, unless with one of the codes in ``not_after``."""

    job: Job
    run: RunId
    attempt: int
    slot: Wall | None
    not_after: frozenset[int]


class Disarm(Struct, frozen=True):
    """Take back the leave to start an attempt after this one."""

    job: str
    run: RunId
    attempt: int


class AskToStop(Struct, frozen=True):
    """Send the stop signal (a name without SIG)."""

    job: str
    run: RunId
    attempt: int
    signal: str


class KillTree(Struct, frozen=True):
    """SIGKILL to the whole tree; ``reason`` is the limit's name, or "stop" at the end of the grace."""

    job: str
    run: RunId
    attempt: int
    reason: str


# ---------------------------------------------------------------- told to log and metrics, after the fact


class TellAttemptEnded(Struct, frozen=True):
    """An attempt was judged. ``restart_after_s`` is None when no other one follows; ``why`` is the policy's reason."""

    job: str
    run: RunId
    attempt: int
    verdict: Verdict
    evidence: Evidence
    restart_after_s: float | None
    why: str


class TellRunEnded(Struct, frozen=True):
    row: RunRow


class TellSlotMissed(Struct, frozen=True):
    job: str
    slot: Wall
    reason: SkipReason


class TellIncident(Struct, frozen=True):
    """An incident changed; ``what`` is opened, seen, reminded, told_late, escalated, acknowledged, held (well, but it flaps), summed_up or closed.
    ``notified`` counts the notifications queued."""

    incident: Incident
    what: str
    notified: int


class TellGathered(Struct, frozen=True):
    """The opening of an incident is told to this receiver in a summary only."""

    receiver: str


class TellParked(Struct, frozen=True):
    job: str
    outcome: Outcome
    why: str


class TellSilenced(Struct, frozen=True):
    """Nobody is alerted about a job until then; ``until`` None: an operator ended that."""

    job: str
    until: Wall | None
    comment: str = ""


class TellHealing(Struct, frozen=True):
    """A step of ``heal:`` was taken after this attempt; ``text`` says it in words."""

    job: str
    run: RunId
    attempt: int
    step: StepName
    reason: HealReason
    text: str


class TellQuarantine(Struct, frozen=True):
    """A record went into quarantine or, with ``released_at``, came out of it."""

    record: QuarantinedRecord


class TellCommandEnded(Struct, frozen=True):
    """The command of a heal step ended."""

    job: str
    run: RunId
    attempt: int
    verdict: Verdict


class Finished(Struct, frozen=True):
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
