"""The words that everything else is said with: clocks, outcomes, states, limits, and the incident.

Seconds are floats, sizes are bytes, wall times are aware datetimes in UTC, and ``Mono`` is CLOCK_MONOTONIC seconds of one boot.
"""

from datetime import datetime
from enum import StrEnum
from typing import NewType

from msgspec import Struct

Mono = NewType("Mono", float)
Wall = datetime
RunId = int


class Now(Struct, frozen=True):
    """Both clocks, read once per event and passed in."""

    mono: Mono
    wall: Wall


class Outcome(StrEnum):
    """Why a run or an attempt ended. The same word is log value, metric label, API field, database value and alert text."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXCEPTION = "exception"
    RECURSION = "recursion"
    MEMORY = "memory"
    TIME = "time"
    CPU = "cpu"
    STALLED = "stalled"
    PROCESSES = "processes"
    OUTPUT = "output"
    CRASHED = "crashed"
    SIGNALLED = "signalled"
    HOST_OOM = "host_oom"
    WORKER_LOST = "worker_lost"
    UNMET = "unmet"
    LAUNCH_FAILED = "launch_failed"
    STOPPED = "stopped"
    LOST = "lost"

    @property
    def is_bad(self) -> bool:
        """True for an end that somebody should know of: everything but a success and a stop that was asked for."""
        return self not in (Outcome.SUCCEEDED, Outcome.STOPPED)


class State(StrEnum):
    """Where a job is; the label values of ``mainstay_job_state``."""

    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    BACKING_OFF = "backing_off"
    PARKED = "parked"
    PAUSED = "paused"
    DISABLED = "disabled"


class Trigger(StrEnum):
    """Why a run began."""

    SCHEDULE = "schedule"
    STARTUP = "startup"
    REQUEST = "request"


class LimitName(StrEnum):
    """Which line was crossed; the label values of ``limit`` in metrics and reports."""

    MEMORY = "memory"
    MEMORY_SOFT = "memory_soft"
    RECURSION = "recursion"
    TIME = "time"
    CPU = "cpu"
    STALL = "stall"
    PROCESSES = "processes"
    OUTPUT = "output"


class Incident(Struct, frozen=True):
    """An open problem with a fingerprint: opens once, counts, closes once.

    ``alerted``: a person was told that it opened (so a person is told when it ends). ``run`` is the run that opened it. Whoever acknowledged or
    resolved it is named in ``acknowledged_by`` and ``closed_by``, with what they said; ``fix`` is what is said to have mended it.
    ``regression_of``: the incident of the same bug that was over before this one, and ``regression_note`` how that one ended. ``gathered``:
    receivers that hear of it only in a summary, for too many came at once (see ``core.crowd``).
    """

    id: int
    job: str
    fingerprint: str
    outcome: Outcome
    summary: str
    severity: str
    opened_at: Wall
    last_at: Wall
    run: RunId
    last_run: RunId
    occurrences: int = 1
    alerted: bool = False
    reminded_at: Wall | None = None
    acknowledged: bool = False
    closed_at: Wall | None = None
    closed_because: str | None = None
    acknowledged_at: Wall | None = None
    acknowledged_by: str = ""
    acknowledged_note: str = ""
    closed_by: str = ""
    fix: str = ""
    regression_of: int | None = None
    regression_note: str = ""
    gathered: tuple[str, ...] = ()
