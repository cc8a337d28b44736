"""What was seen of one attempt, by whomever (keeper, watch, guard, kernel), and the verdict over it. What it means is judged in ``outcome``."""

from enum import StrEnum

from msgspec import Struct

from supervisor.core.model import LimitName, Outcome


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
    ``chain`` is what it came from (``raise … from``), nearest first, each "Type: message". ``is_raised``: a ``raise`` of Python code made it, and nothing that
    was called there (None: not known). ``root`` is the RecursionError or MemoryError that it came from, with the stack of that one (``where`` is "child"
    if it was another process's). ``origins`` are what else tells the bug: the first of its causes that the application's own code met, and that of each member of a
    group, with type, ``at`` and functions (each once, without lines).
    """

    type: str
    message: str
    frames: tuple[Frame, ...]
    depth: int
    where: str = "main"
    chain: tuple[str, ...] = ()
    at: str = ""
    is_raised: bool | None = None
    root: "ExceptionFacts | None" = None
    origins: "tuple[ExceptionFacts, ...]" = ()


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


class Fault(Struct, frozen=True):
    """A SIGSEGV that nobody handled, by the kernel's log: the address that was asked for, and the stack pointer at the time."""

    address: int
    stack_pointer: int

    @property
    def is_beside_stack(self) -> bool:
        """Whether the address is where a call or a local variable would be: a page and a large frame around the stack pointer."""
        return -(2**20) <= self.address - self.stack_pointer <= 2**16


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
    ``recursion_limit``: the highest that was in force by Python's own function; ``dumps_elsewhere``: the job took faulthandler into its own hands.
    ``swallowed_recursion``/``swallowed_memory``: RecursionErrors/MemoryErrors that the job's own code caught; ``…_at``: when the sixteenth latest of them
    was, and the latest (seconds of CLOCK_MONOTONIC, 0 for want of sixteen), None where nobody noted it.
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
    recursion_limit: int | None = None
    dumps_elsewhere: bool = False
    swallowed_recursion_at: tuple[float, float] | None = None
    swallowed_memory_at: tuple[float, float] | None = None


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
    deepest stack got deeper, which it did not do any more in its last ``steady_s`` seconds. ``armed``: an rlimit let its allocations fail at the memory line.

    ``host_oom_kills`` is the rise of the host's own OOM-kill count during the attempt (None: not readable). ``records`` is how many records the
    job said it processed (None: it does not say). ``memory_curve`` has (seconds since the start, bytes), at most some 60 points. ``oom_victims`` are the
    processes of its tree that the kernel's log names (None: the log does not tell). ``progress`` is None for a job that never used its page.
    ``fault`` is None where it did not crash, handled its signal, or the log does not tell. ``struck_mono``: when a line was crossed, or else when it ended
    (CLOCK_MONOTONIC, as the stamps of the guard are); 0 where that is not known. ``full_s`` is for how long before its end
    its memory had not become larger than ever. ``refused`` is what its exception says that the host refused it (``heal.refusal``), also where messages are
    not kept.
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
    steady_s: float = 0.0
    fault: Fault | None = None
    struck_mono: float = 0.0
    full_s: float = 0.0
    refused: str | None = None


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
