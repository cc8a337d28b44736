"""What is written down: rows of the history and of the outbox, as frozen data. The store keeps them, the core makes them."""

from enum import StrEnum

from msgspec import Struct

from supervisor.core.model import Incident, Outcome, RunId, Trigger, Wall


class AttemptPhase(StrEnum):
    """How far an attempt is known to have got on disk (design: the order that makes "none lost, none doubled" provable)."""

    INTENDED = "intended"
    STARTED = "started"
    ENDED = "ended"


class SlotResult(StrEnum):
    """What became of a due fire time."""

    RAN = "ran"
    LATE = "late"
    SKIPPED = "skipped"


class SkipReason(StrEnum):
    """Why a due fire time did not run; the label values of ``mainstay_job_slots_missed_total``."""

    OVERLAP = "overlap"
    PAUSED = "paused"
    PARKED = "parked"
    DAEMON_DOWN = "daemon_down"
    STOPPED = "stopped"


class RunRow(Struct, frozen=True):
    """One occasion of a job. Open while ``ended_at`` is None."""

    id: RunId
    job: str
    trigger: Trigger
    slot: Wall | None
    started_at: Wall
    attempts: int = 0
    ended_at: Wall | None = None
    outcome: Outcome | None = None
    summary: str = ""
    duration_s: float = 0.0
    memory_peak_bytes: int = 0
    cpu_s: float = 0.0


class AttemptRow(Struct, frozen=True):
    """One child process within a run. ``epoch`` names the keeper's life that it was asked of; ``pid_started`` is field 22 of
    proc_pid_stat(5) in clock ticks. ``report`` is the dossier as JSON text once the attempt has ended."""

    run: RunId
    attempt: int
    job: str
    phase: AttemptPhase
    epoch: str
    boot_id: str
    intended_at: Wall
    pid: int | None = None
    pid_started: int | None = None
    started_at: Wall | None = None
    ended_at: Wall | None = None
    outcome: Outcome | None = None
    exit_code: int | None = None
    signal: int | None = None
    report: str | None = None


class SlotRow(Struct, frozen=True):
    """What became of one due fire time of one job; the key is (job, slot), which is why no slot can run twice."""

    job: str
    slot: Wall
    result: SlotResult
    reason: SkipReason | None = None
    run: RunId | None = None


class JobMemo(Struct, frozen=True):
    """What the engine must remember of a job over a restart of the brain, as JSON text made by ``core.engine``."""

    job: str
    text: str


class GoodRow(Struct, frozen=True):
    """What a job was made of at its last good run (``core.survey``), against which a bad end is held. ``survey`` is its text."""

    job: str
    run: RunId
    ended_at: Wall
    survey: str


class QuarantinedRecord(Struct, frozen=True):
    """A record of a job's input that was set aside because it killed the job; (job, key) is its key. In quarantine while ``released_at`` is None.

    ``run`` and ``attempt`` are the death whose dossier tells why.
    """

    job: str
    key: str
    at: Wall
    run: RunId
    attempt: int
    outcome: Outcome
    fingerprint: str
    summary: str
    released_at: Wall | None = None
    released_because: str | None = None


class NotificationKind(StrEnum):
    """What a notification is about. ``escalated``: its opening, told to those who hear of it because nobody acknowledged it."""

    OPENED = "opened"
    REMINDER = "reminder"
    ESCALATED = "escalated"
    ACKNOWLEDGED = "acknowledged"
    CLOSED = "closed"


class Notification(Struct, frozen=True):
    """One delivery to one receiver. ``key`` (incident, kind, reminder number, receiver) is unique: asking twice sends once.

    ``body`` is JSON text with all that a receiver may want to say (see ``core.incidents.body``).
    """

    key: str
    receiver: str
    kind: NotificationKind
    incident: int
    created_at: Wall
    body: str


class Delivery(Struct, frozen=True):
    """What became of a notification: ``state`` is "due" (tried ``tries`` times so far), "sent" or "dropped"; ``done_at`` is when it left the queue."""

    receiver: str
    kind: NotificationKind
    state: str
    tries: int
    done_at: Wall | None
    last_error: str


Row = RunRow | AttemptRow | SlotRow | JobMemo | GoodRow | Incident | Notification | QuarantinedRecord
