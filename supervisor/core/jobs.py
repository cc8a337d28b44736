"""A job as it is configured, with every default filled in: what to run, when, under which limits, and what to do when it fails."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct, field

from supervisor.core.model import Outcome
from supervisor.core.remedy import HealPolicy


class OutputAction(StrEnum):
    """What happens when a job has written more than its output limit."""

    KILL = "kill"
    DROP = "drop"


SERVICE_TIME_S: Final = 52 * 7 * 86400.0
"""The time limit of a service whose config names none: a line there is, but no default may end a healthy service every hour."""


class Limits(Struct, frozen=True):
    """The lines a job must not cross; None means "no line". They hold for the whole process tree of an attempt.

    ``recursion_frames`` None means Python's own limit, capped so that it cannot be raised out of reach.
    """

    memory_bytes: int | None = 512 * 2**20
    memory_soft_bytes: int | None = None
    recursion_frames: int | None = None
    time_s: float | None = 3600.0
    cpu_s: float | None = None
    stall_s: float | None = None
    processes: int | None = None
    files: int | None = None
    output_bytes: int | None = None
    output_action: OutputAction = OutputAction.KILL


class RestartWhen(StrEnum):
    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


class Backoff(Struct, frozen=True):
    """Wait before restart n: ``first_s * factor**(n-1)``, at most ``max_s``, spread by ± ``jitter`` (a ratio, 0.1 = 10 %)."""

    first_s: float = 1.0
    factor: float = 2.0
    max_s: float = 300.0
    jitter: float = 0.1


class Budget(Struct, frozen=True):
    """At most ``restarts`` restarts in any window of ``within_s`` seconds; then the job is parked."""

    restarts: int = 5
    within_s: float = 600.0


class RestartPolicy(Struct, frozen=True):
    """When an ended attempt is followed by another.

    ``retry_on`` None means every bad outcome; ``park_on`` outcomes park the job at once. An attempt that lived
    ``stable_s`` seconds starts the back-off afresh and, for a service, closes its incidents and ends its sequence of failures.
    """

    when: RestartWhen = RestartWhen.ON_FAILURE
    backoff: Backoff = Backoff()
    budget: Budget = Budget()
    retry_on: frozenset[Outcome] | None = None
    park_on: frozenset[Outcome] = frozenset()
    stable_s: float = 60.0


class StopPolicy(Struct, frozen=True):
    """``signal`` is the name without SIG ("TERM"); after ``grace_s`` the whole tree is killed."""

    signal: str = "TERM"
    grace_s: float = 10.0


class Overlap(StrEnum):
    """What a fire time does while the previous run is still going."""

    FORBID = "forbid"
    REPLACE = "replace"
    ALLOW = "allow"


class CatchUp(StrEnum):
    """What happens to fire times that passed while Mainstay was not running. Those of a pause are always skipped; those
    of a time in which the job was disabled, not in the config or on another schedule count for nothing."""

    NONE = "none"
    LAST = "last"
    ALL = "all"


class Every(Struct, frozen=True):
    """A fixed interval on the wall clock, aligned to multiples of ``every_s`` since the epoch."""

    every_s: float


class Cron(Struct, frozen=True):
    """A five-field cron expression in a time zone (IANA name)."""

    expression: str
    timezone: str = "UTC"


class Manual(Struct, frozen=True):
    """No fire times: the job runs only when it is triggered."""


class Service(Struct, frozen=True):
    """No fire times: the job is kept running."""


class Schedule(Struct, frozen=True):
    """When a job runs. ``within_s`` bounds how old a missed fire time may be and still be caught up."""

    when: Every | Cron | Manual | Service = Service()
    jitter_s: float = 0.0
    catch_up: CatchUp = CatchUp.NONE
    within_s: float | None = None
    overlap: Overlap = Overlap.FORBID

    @property
    def is_service(self) -> bool:
        return isinstance(self.when, Service)

    @property
    def is_timed(self) -> bool:
        return isinstance(self.when, Every | Cron)


class Expect(Struct, frozen=True):
    """What has to hold although the exit code is 0, and how old the last success may become."""

    success_every_s: float | None = None
    records_at_least: int | None = None
    success_exit_codes: frozenset[int] = frozenset({0})


class Escalation(Struct, frozen=True):
    """Who hears of an incident that nobody has acknowledged ``after_s`` seconds after people were told of it."""

    after_s: float
    to: tuple[str, ...]


class AlertPolicy(Struct, frozen=True):
    """Who hears of an incident (receiver names), after how many failed attempts in sequence, and how loud."""

    to: tuple[str, ...] = ()
    after: int = 1
    remind_s: float | None = None
    severity: str = "critical"
    escalate: Escalation | None = None


class Window(Struct, frozen=True):
    """A maintenance window: from each fire time of ``when`` on, nobody is alerted for ``for_s`` seconds. ``name`` is its key in the config."""

    name: str
    when: Every | Cron
    for_s: float


class LogPolicy(Struct, frozen=True):
    """Captured output on disk: an attempt's file turns over at ``max_bytes`` (one turned-over file is kept beside it);
    the files of the last ``keep_attempts`` attempts are kept."""

    max_bytes: int = 10 * 2**20
    keep_attempts: int = 20


class DossierPolicy(Struct, frozen=True):
    """What of a job's own data its dossiers may hold: the end of its ``output``, the ``messages`` of its exceptions, the ``values`` of arguments."""

    output: bool = True
    messages: bool = True
    values: bool = False


class Launch(Struct, frozen=True):
    """How the child process is made. ``directory`` is absolute; None for user and umask means "as Mainstay's own"."""

    argv: tuple[str, ...]
    directory: str
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    group: str | None = None
    groups: tuple[str, ...] = ()
    umask: int | None = None
    nice: int | None = None
    guard: bool = True


class Fault(StrEnum):
    """What a drill does on purpose; the label values of ``fault`` in ``mainstay_drill_*``."""

    RECURSION = "recursion"
    MEMORY = "memory"
    HANG = "hang"
    CRASH = "crash"
    EXIT = "exit"
    STALL = "stall"
    SILENCE = "silence"


class DrillPolicy(Struct, frozen=True):
    """Which faults are drilled by themselves, and when: one after the other at each fire time. Without faults: never."""

    faults: tuple[Fault, ...] = ()
    schedule: Schedule = Schedule(Manual())


class Job(Struct, frozen=True):
    """A thing to run, as configured, with every default filled in.

    ``maintenance``: the windows that hold for it. ``drill``: a stand-in whose alerts are marked as a drill. ``multiprocess_metrics``: it gets
    a ``$PROMETHEUS_MULTIPROC_DIR`` of its own for each attempt.
    """

    name: str
    launch: Launch
    schedule: Schedule = Schedule()
    limits: Limits = Limits()
    restart: RestartPolicy = RestartPolicy()
    stop: StopPolicy = StopPolicy()
    expect: Expect = Expect()
    alerts: AlertPolicy = AlertPolicy()
    logs: LogPolicy = LogPolicy()
    dossier: DossierPolicy = DossierPolicy()
    drills: DrillPolicy = DrillPolicy()
    heal: HealPolicy = field(default_factory=HealPolicy)
    enabled: bool = True
    description: str = ""
    maintenance: tuple[Window, ...] = ()
    drill: bool = False
    multiprocess_metrics: bool = False
