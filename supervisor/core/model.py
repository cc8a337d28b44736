"""The nouns that everything else speaks of: Job, Run, Attempt, Exit, Evidence, Verdict, Incident.

Frozen data only; what they *do* lives in the other modules of ``core``. Seconds are floats, sizes are bytes, wall times are
aware datetimes in UTC, and ``Mono`` is CLOCK_MONOTONIC seconds of one boot.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final, NewType

from msgspec import Struct, field

from supervisor.core.remedy import HealPolicy

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
    ``stable_s`` seconds starts the back-off afresh and, for a service, closes its incidents.
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
    """What happens to fire times that passed while Mainstay was not running. Those of a pause are always skipped."""

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


# ---------------------------------------------------------------- evidence


class Frame(Struct, frozen=True):
    """One level of a Python stack. ``line`` is 0 where it is not known."""

    function: str
    file: str
    line: int


class CycleKind(StrEnum):
    """What repeats; the label values of ``mainstay_job_recursion_detected_total``."""

    FRAMES = "frames"
    TASKS = "tasks"
    PROCESSES = "processes"


class Cycle(Struct, frozen=True):
    """What called itself: one turn of it (outermost call first), how deep it stood, and what did not change.

    ``notes`` has a line per argument that stayed the same or stepped by one from turn to turn. ``origin``: the application's own frame that called into
    it, where none of the cycle is its own (a copy.deepcopy of something endless). ``values`` are numbers among its arguments, which only a job whose config allows it shows.
    """

    frames: tuple[Frame, ...]
    depth: int
    kind: CycleKind = CycleKind.FRAMES
    notes: tuple[str, ...] = ()
    origin: Frame | None = None
    values: tuple[str, ...] = ()


class ExceptionFacts(Struct, frozen=True):
    """An uncaught Python exception as the guard wrote it down: frames outermost first, possibly cut in the middle.

    ``depth`` is the length of the whole traceback; ``at`` stands for the text of the application's innermost line (a hash, "" if it could not be
    read); ``where`` is "main", "thread", "unraisable", or "child" for another process of the tree.
    ``chain`` is what it came from (``raise … from``), nearest first, each "Type: message".
    """

    type: str
    message: str
    frames: tuple[Frame, ...]
    depth: int
    where: str = "main"
    chain: tuple[str, ...] = ()
    at: str = ""


class Stack(Struct, frozen=True):
    """The Python stack of one thread, innermost frame first, at most some hundred frames; ``depth`` is the true number."""

    thread: int
    frames: tuple[Frame, ...]
    depth: int


class MemoryType(Struct, frozen=True):
    """A share of a job's objects by type: how many there are and their own bytes, estimated from a random sample."""

    type: str
    count: int
    bytes: int


class Waiting(Struct, frozen=True):
    """What one thread did when it was last seen: in words ("waiting for a lock", "running"), the kernel's wait channel (wchan), and the number of the
    system call it was in (None: in none, or not told)."""

    pid: int
    thread: int
    what: str
    wchan: str = ""
    call: int | None = None


class BusyLine(Struct, frozen=True):
    """A line of the application that a thread stood at in ``samples`` of ``of`` looks. ``in_c``: always at the same instruction, which is no
    jump: it was inside C that it had called from there."""

    frame: Frame
    samples: int
    of: int
    in_c: bool = False


class Pace(StrEnum):
    """How an attempt went on while it was studied."""

    BUSY = "busy"  # computes
    SLOW = "slow"  # wakes up now and then, or computes a little
    HANGING = "hanging"  # nothing moves: no CPU time, no wake-up, the same stacks


class Study(Struct, frozen=True):
    """What several looks before a line say together: ``looks`` of them within ``span_s`` seconds.

    ``growing``: they were taken while memory grew from the soft line on. ``cpu_share`` is in cores. ``memory_errors``: looks that found a MemoryError
    in flight; ``at_limit``: looks that found the memory within a tenth of its limit.
    """

    pace: Pace
    looks: int
    span_s: float
    cpu_share: float = 0.0
    growing: bool = False
    busy: tuple[BusyLine, ...] = ()
    memory_errors: int = 0
    at_limit: int = 0


class OomVictim(Struct, frozen=True):
    """A process that the kernel's OOM killer ended, by the kernel's log. ``in_cgroup``: for the limit of a control group, not for want of host memory;
    ``is_main``: the job's main process."""

    pid: int
    name: str
    resident_bytes: int
    in_cgroup: bool
    is_main: bool = False


class Sender(Struct, frozen=True):
    """Who sent a signal, by the kernel's own trace: the process as it was called then. ``is_self``: it sent it to itself."""

    signal: int
    pid: int
    name: str
    is_self: bool = False


class LastWords(Struct, frozen=True):
    """What the guard inside the job left behind. ``spoke`` is False when no guard was active in the job's main process.

    ``finalized``: the interpreter reached its orderly end. ``fatal_signal``/``fatal_frames``: what faulthandler wrote about a
    native crash (innermost first). ``asked_limit``: the highest recursion limit the job asked for and did not get.
    ``swallowed_recursion``/``swallowed_memory``: RecursionErrors/MemoryErrors that the job's own code caught.
    ``lineage``: the script that started itself and how many levels deep, when the guard refused to go on. ``memory_types``: the largest types
    of objects when memory passed its soft line. ``asked_frames``: the main thread's stack (innermost first) when the guard was last asked for it.
    ``tasks``: asyncio tasks that were seen to start each other, a great many of them, while memory grew.
    """

    spoke: bool = False
    python: str = ""
    finalized: bool = False
    exception: ExceptionFacts | None = None
    cycle: Cycle | None = None
    fatal_signal: str | None = None
    fatal_frames: tuple[Frame, ...] = ()
    fatal_truncated: bool = False
    asked_limit: int | None = None
    swallowed_recursion: int = 0
    swallowed_memory: int = 0
    lineage: tuple[str, int] | None = None
    memory_types: tuple[MemoryType, ...] = ()
    asked_frames: tuple[Frame, ...] = ()
    tasks: Cycle | None = None


class Look(Struct, frozen=True):
    """What was seen from outside while the tree was stopped (SIGSTOP) just before a kill.

    ``waiting`` says in words what the process waits for ("waiting for a lock", "reading from a pipe"), from /proc; ``threads`` what each thread of
    the tree did, as far as somebody looked.
    """

    stacks: tuple[Stack, ...] = ()
    cycle: Cycle | None = None
    depth: int = 0
    recursion_limit: int | None = None
    exception_in_flight: str | None = None
    waiting: str = ""
    processes: tuple[str, ...] = ()
    note: str = ""
    threads: tuple[Waiting, ...] = ()


class Breach(Struct, frozen=True):
    """A sample over a line. ``measured`` and ``line`` are in the limit's own unit (bytes, seconds, frames, processes)."""

    limit: LimitName
    measured: float
    line: float
    detail: str = ""


class Exit(Struct, frozen=True):
    """The raw fact of how the main process of an attempt ended, as the keeper saw it.

    Exactly one of ``code`` and ``signal`` is set, unless ``launch_error`` tells why it never ran. ``killed_for`` is the reason the brain gave *before*
    we sent SIGKILL, "stop" for the end of a stop's grace; ``asked_to_stop`` when we sent the stop signal. ``oom_kills`` counts the kernel's kills inside the
    attempt's cgroup, None without a cgroup. ``leftovers`` is how many processes of the tree had to be killed after the main one ended.
    """

    code: int | None = None
    signal: int | None = None
    launch_error: str | None = None
    killed_for: str | None = None
    asked_to_stop: bool = False
    cpu_s: float = 0.0
    max_rss_bytes: int = 0
    memory_peak_bytes: int | None = None
    oom_kills: int | None = None
    pids_max_hits: int | None = None
    output_bytes: int = 0
    output_dropped_bytes: int = 0
    leftovers: int = 0
    unkillable: tuple[int, ...] = ()


class Progress(Struct, frozen=True):
    """Where in its input an attempt stood, by its own word (``supervisor.job``, or the text file of the same meaning).

    ``record`` is the key of the record in work; ``keyed`` when the job named it by a key and not by its position. ``records`` were finished, ``done`` of
    ``total`` in ``stage`` is in the job's own unit. ``checkpoint`` is a digest of what it last kept. ``record_s`` is about how long the record had been
    in work, as seen from outside; None when nobody looked.
    """

    record: str | None = None
    done: int | None = None
    total: int | None = None
    stage: str = ""
    keyed: bool = False
    records: int = 0
    checkpoint: str | None = None
    record_s: float | None = None

    @property
    def place(self) -> str:
        """One text for this place: the same input again gives the same text. "" when the job has not said where it is."""
        if self.record is not None:
            return f"record {self.record}"
        so_far = self.done or self.records
        if self.checkpoint is not None:
            return f"checkpoint {self.checkpoint} {self.stage} {so_far}"
        return f"{self.stage} {so_far}" if so_far else ""

    @property
    def words(self) -> str:
        """The place for a person; nothing of it is escaped."""
        if self.record is not None:
            return f"record {self.record[:80]!r}"
        if self.checkpoint is not None:
            return "the same checkpoint"
        return f"{self.done or self.records} done" + (f" of {self.stage[:80]!r}" if self.stage else "")


class Evidence(Struct, frozen=True):
    """Everything that bears on the verdict over one attempt. ``frames_per_s`` is how fast its deepest stack grew when it was last seen to.

    ``look`` was taken at the kill, or else at the soft line, whose own is ``soft_look``. ``stack_share`` of all growth of its memory came while its
    deepest stack got deeper. ``armed``: an rlimit let its allocations fail at the memory line.

    ``host_oom_kills`` is the rise of the host's own OOM-kill count during the attempt (None: not readable). ``records`` is how many records the
    job said it processed (None: it does not say). ``memory_curve`` has (seconds since the start, bytes), at most some 60 points. ``oom_victims`` are the
    processes of its tree that the kernel's log names (None: the log does not tell). ``progress`` is None for a job that never used its page.
    """

    exit: Exit
    words: LastWords = LastWords()
    breach: Breach | None = None
    look: Look | None = None
    memory_peak_bytes: int = 0
    depth_peak: int = 0
    frames_per_s: float = 0.0
    swallowed_seen: int = 0
    host_oom_kills: int | None = None
    duration_s: float = 0.0
    records: int | None = None
    memory_curve: tuple[tuple[float, int], ...] = ()
    study: Study | None = None
    oom_victims: tuple[OomVictim, ...] | None = None
    sender: Sender | None = None
    progress: Progress | None = None
    processes_peak: int = 0
    soft_look: Look | None = None
    stack_share: float = 0.0
    armed: bool = False


class Verdict(Struct, frozen=True):
    """The judgement: outcome, the limit that struck (or None), one sentence for a tired person, and the facts it rests on."""

    outcome: Outcome
    summary: str
    limit: LimitName | None = None
    evidence: tuple[str, ...] = ()
    cycle: Cycle | None = None
    exception: ExceptionFacts | None = None
    stacks: tuple[Stack, ...] = ()
    fingerprint: str = ""


# ---------------------------------------------------------------- incidents


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
