"""Evidence → verdict: why an attempt ended, in the order in which the kinds of evidence can be trusted.

1. our own kill, refined: the limit that struck may only be where a runaway recursion (or a lost worker) came to light;
2. it never started; 3. we asked it to stop; 4. the guard refused to go on;
5. the signal it died of, with the kernel's counts and the crash report; 6. the exception the guard wrote down; 7. its own exit code.

Words in the output, exit codes like 137 and names never make a verdict. What follows from it is decided in ``restart``.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from signal import SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGSYS, SIGTRAP, SIGXCPU

from msgspec import Struct
from msgspec.structs import replace

from supervisor.core import testimony
from supervisor.core.cycle import find_cycle_in_frames
from supervisor.core.fingerprint import fingerprint
from supervisor.core.limits import AT_THE_WALL, SWALLOWED, WALL_SHARE
from supervisor.core.model import (
    Cycle,
    CycleKind,
    Evidence,
    ExceptionFacts,
    Expect,
    Frame,
    LimitName,
    Limits,
    Look,
    Outcome,
    Pace,
    Stack,
    Verdict,
)
from supervisor.core.prose import about_duration, about_size, at, base, clean, counted, is_own, own_frames, signal_name, turn_of

DEEP = 5000  # no healthy Python stack is deeper; the C stack of 8 MB ends between 1,600 and 40,000 levels
FILLS = 2000  # with a cycle and no memory left: twice what Python allows who has not asked for more
CLIMB_SHARE = 0.8  # of all growth of memory, where it is the stack that grows: what comes and goes beside it is the rest
TASKS_FILL = 0.75  # of the memory limit: below it, tasks that start each other have not filled the memory
DUMP_FRAMES = 95  # faulthandler writes 100 at most; a few may be foreign
SWALLOWED_ERRORS = 16  # counted by the guard
SWALLOWED_LOOKS = 5  # seen from outside
MEMORY_ERRORS_SEEN = 2
OUT_OF_MEMORY_SHARE = 0.85  # of the limit: a MemoryError of a thread far below is about something else than our line
CPU_HARD_S = 2.0  # RLIMIT_CPU: the kernel kills this much after SIGXCPU
AT_LIMIT = 0.25  # of the recursion limit: up to 3.11 calls through C count as well and leave no frame in a traceback
STACK_SIGNALS = frozenset({SIGSEGV, SIGBUS})
FATAL_SIGNALS = frozenset({SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE, SIGSYS, SIGTRAP})
LOST_C_ERROR = "error return without exception set"  # what is left of an exception that C code lost, out of memory
NO_THREAD = "can't start new thread"  # what is left of the refusal of memory for a stack

OUTCOME_OF_LIMIT = {
    LimitName.MEMORY: Outcome.MEMORY,
    LimitName.MEMORY_SOFT: Outcome.MEMORY,
    LimitName.RECURSION: Outcome.RECURSION,
    LimitName.TIME: Outcome.TIME,
    LimitName.CPU: Outcome.CPU,
    LimitName.STALL: Outcome.STALLED,
    LimitName.PROCESSES: Outcome.PROCESSES,
    LimitName.OUTPUT: Outcome.OUTPUT,
}
OWN_REASONS = frozenset(limit.value for limit in OUTCOME_OF_LIMIT)  # any other reason for a kill is the end of a stop


class Finding(Struct, frozen=True):
    """What one rule found: the outcome, the limit that struck, and the sentence about it (without who and when)."""

    outcome: Outcome
    sentence: str
    limit: LimitName | None = None


class Case(Struct, frozen=True, dict=True):
    """The evidence with what can be read out of it."""

    limits: Limits
    expect: Expect
    evidence: Evidence

    @cached_property
    def cycle(self) -> Cycle | None:
        """What repeated, by the best witness: named by the guard or the look, else found in their frames."""
        words, look = self.evidence.words, self.evidence.look
        if words.lineage is not None:
            script, levels = words.lineage
            return Cycle((Frame(base(script), script, 0),), levels, CycleKind.PROCESSES)
        if words.tasks is not None and self.error_type != "RecursionError":
            return words.tasks
        named = words.cycle or (look.cycle if look else None)
        if named is not None:
            return named
        if (error := words.exception) is not None and (found := find_cycle_in_frames(error.frames, error.depth, innermost_first=False)):
            return found
        if words.fatal_frames and (
            found := find_cycle_in_frames(words.fatal_frames, max(len(words.fatal_frames), self.evidence.depth_peak))
        ):
            return found
        return _cycle_in(look) or self.climbed

    @cached_property
    def climbed(self) -> Cycle | None:
        """What repeated at the soft line, if memory ended it and had come with a stack that got deeper and deeper: the last look may have come late,
        and found it on its way out or at its traceback."""
        facts = self.evidence
        ended_by_memory = (
            facts.exit.killed_for == LimitName.MEMORY or bool(facts.exit.oom_kills) or self.is_out_of_memory or self.gave_up_at_the_line
        )
        if not ended_by_memory or facts.depth_peak <= FILLS or facts.stack_share < CLIMB_SHARE or facts.soft_look is None:
            return None
        seen = facts.soft_look.cycle or _cycle_in(facts.soft_look)
        return seen and replace(seen, depth=max(seen.depth, facts.depth_peak))

    @cached_property
    def hidden_cycle(self) -> Cycle | None:
        """What called into C code that then called itself and left no frames (json, pickle): the application's function that first went out."""
        frames = self.evidence.words.exception.frames if self.evidence.words.exception else ()
        going_out = (i for i, frame in enumerate(frames) if is_own(frame) and not any(is_own(after) for after in frames[i + 1 : i + 2]))
        at_frame = next((frames[i] for i in going_out), None)
        if at_frame is None:
            return None
        return Cycle(
            (at_frame,), self.depth, CycleKind.FRAMES, (f"the levels are in C code that {at_frame.function} called: they have no frames",)
        )

    @cached_property
    def depth(self) -> int:
        """The deepest stack that anybody saw."""
        words, look = self.evidence.words, self.evidence.look
        error = words.exception.depth if words.exception else 0
        named = words.cycle.depth if words.cycle else 0
        return max(self.evidence.depth_peak, look.depth if look else 0, error, named, len(words.fatal_frames))

    @property
    def error(self) -> ExceptionFacts | None:
        """The exception that ended the main thread."""
        found = self.evidence.words.exception
        return found if found is not None and found.where == "main" else None

    @cached_property
    def error_type(self) -> str:
        return self.error.type.rpartition(".")[2] if self.error else ""

    @property
    def is_memory_error(self) -> bool:
        return _is_memory_error(self.error_type)

    @property
    def is_lost_error(self) -> bool:
        """It ended in what C code makes of a MemoryError that it lost. The message is written down last: there may have been no time for it."""
        return (
            self.error is not None and self.error_type == "SystemError" and (not self.error.message or LOST_C_ERROR in self.error.message)
        )

    @property
    def is_out_of_memory(self) -> bool:
        return self.is_memory_error or self.is_lost_error

    @property
    def was_refused_memory(self) -> bool:
        """It stood at its line to the end, where an rlimit that we armed refuses more."""
        line, curve = self.limits.memory_bytes, self.evidence.memory_curve
        if line is None or not self.evidence.armed or _peak(self) < WALL_SHARE * line:
            return False
        last = next((size for _, size in reversed(curve) if size), 0)  # a process that is about to be gone measures nothing
        return last >= OUT_OF_MEMORY_SHARE * line

    @property
    def gave_up_at_the_line(self) -> bool:
        """It ended by itself with its memory full, and there was no guard to say of what."""
        line = self.limits.memory_bytes
        is_own_end = self.evidence.exit.code is not None and not _is_success(self)
        return is_own_end and not self.evidence.words.spoke and line is not None and _peak(self) >= WALL_SHARE * line

    @property
    def swallows(self) -> bool:
        """RecursionErrors were raised and caught over and over."""
        breach = self.evidence.breach
        seen = self.evidence.swallowed_seen >= SWALLOWED_LOOKS or (breach is not None and breach.detail == SWALLOWED)
        return seen or self.evidence.words.swallowed_recursion >= SWALLOWED_ERRORS

    @property
    def swallows_memory_errors(self) -> bool:
        """MemoryErrors were raised and caught over and over; up to 3.11 nobody counts them, and a look catches one in flight only by luck."""
        study = self.evidence.study
        seen = study is not None and study.memory_errors >= MEMORY_ERRORS_SEEN and 2 * study.at_limit > study.looks
        return seen or self.evidence.words.swallowed_memory >= SWALLOWED_ERRORS

    @property
    def fills_the_stack(self) -> bool:
        """So deep at its end, and so much the same, that the stack itself is what grew; or tasks or processes that make themselves."""
        if self.cycle is None or (self.cycle is self.evidence.words.cycle and self._is_old_cycle):
            return False
        if self.cycle.kind is CycleKind.TASKS:
            line = self.limits.memory_bytes
            ended_by_memory = self.evidence.exit.killed_for == LimitName.MEMORY or bool(self.evidence.exit.oom_kills)
            return ended_by_memory or (line is not None and _peak(self) >= TASKS_FILL * line)
        return self.cycle.kind is not CycleKind.FRAMES or self._depth_at_end > FILLS or self.climbed is not None

    @property
    def _is_old_cycle(self) -> bool:
        """The guard named it at a RecursionError that the job survived, however long ago."""
        return self.evidence.words.swallowed_recursion > 0 and self.error_type != "RecursionError"

    @property
    def _depth_at_end(self) -> int:
        """The best witness of the end: the look, or what ran out of memory before it; else the traceback or the guard's cycle, else the deepest sample."""
        words, look = self.evidence.words, self.evidence.look
        error = self.error.depth if self.error else 0
        if look is not None and look.depth:
            return max(look.depth, error if self.is_out_of_memory else 0)
        return max(error, words.cycle.depth if words.cycle else 0) or self.evidence.depth_peak

    @property
    def was_oom_killed(self) -> bool:
        """The kernel's OOM killer ended the main process: by its log, or, where that cannot be read, by the host's count."""
        victims = self.evidence.oom_victims
        if victims is not None:
            return any(victim.is_main for victim in victims)
        return bool(self.evidence.host_oom_kills)

    @property
    def lost_workers(self) -> int:
        """How many other processes of the tree the kernel's OOM killer ended: by the job's cgroup, else by the kernel's log."""
        return self.evidence.exit.oom_kills or sum(not victim.is_main for victim in self.evidence.oom_victims or ())

    @property
    def runs_away(self) -> bool:
        return self.swallows or self.fills_the_stack

    @property
    def after(self) -> str:
        return f"after {about_duration(self.evidence.duration_s)}"


def _cycle_in(look: Look | None) -> Cycle | None:
    """What repeats in the stacks of a look, the deepest first."""
    stacks = sorted(look.stacks, key=lambda stack: -stack.depth) if look else ()
    return next((found for stack in stacks if (found := find_cycle_in_frames(stack.frames, stack.depth))), None)


Rule = Callable[[Case], Finding | None]


def judge(job_limits: Limits, expect: Expect, evidence: Evidence) -> Verdict:
    """The verdict over one attempt, without its fingerprint (see ``fingerprint_of``)."""
    case = Case(job_limits, expect, evidence)
    finding = next(found for rule in RULES if (found := rule(case)) is not None)
    return Verdict(
        outcome=finding.outcome,
        summary=clean(finding.sentence),
        limit=finding.limit,
        evidence=tuple(clean(line) for line in [*_facts(case), *(_cycle_facts(case) if finding.outcome is Outcome.RECURSION else ())]),
        cycle=_measured(case, case.cycle or case.hidden_cycle) if finding.outcome is Outcome.RECURSION else None,
        exception=evidence.words.exception,
        stacks=_stacks(evidence),
    )


def _measured(case: Case, cycle: Cycle | None) -> Cycle | None:
    """The cycle with what clocks say of it: how fast it grew, where it was seen to. How many levels a turn has is told by its frames."""
    rate = case.evidence.frames_per_s
    if cycle is None or cycle.kind is not CycleKind.FRAMES or case.cycle is None or rate < 1:
        return cycle
    a_turn = len(cycle.frames)
    words = f"{counted(a_turn, 'level')} a turn, {counted(cycle.depth // a_turn, 'turn')}, growing by {rate:,.0f} levels a second when last seen"
    return replace(cycle, notes=(words, *cycle.notes))


def fingerprint_of(job: str, verdict: Verdict, evidence: Evidence) -> str:
    """One name for one bug of *job*, whichever costume it died in."""
    return fingerprint(
        job,
        verdict.outcome,
        cycle=verdict.cycle,
        exception=verdict.exception,
        frames=evidence.words.fatal_frames,
        hangs_in=_hangs_in(evidence),
        exit_code=evidence.exit.code,
        signal=evidence.exit.signal,
    )


def _hangs_in(evidence: Evidence) -> tuple[Frame, ...]:
    """The stack of the first thread, where looks before the end found that nothing moved."""
    if evidence.study is None or evidence.study.pace is not Pace.HANGING or evidence.look is None:
        return ()
    return next((stack.frames for stack in evidence.look.stacks if stack.frames), ())


# ---------------------------------------------------------------- 1 to 4: our own doing


def _own_kill(case: Case) -> Finding | None:
    reason = case.evidence.exit.killed_for
    if reason is None:
        return None
    if reason not in OWN_REASONS:
        return Finding(Outcome.STOPPED, f"It was asked to stop, did not, and was killed {case.after}.")
    limit = LimitName(reason)
    return _refined(case, limit) or Finding(OUTCOME_OF_LIMIT[limit], _limit_sentence(case, limit), limit)


def _refined(case: Case, limit: LimitName) -> Finding | None:
    """The cause behind the limit that struck."""
    ended = case.evidence.words.exception
    if ended is not None and ended.type == "RecursionError" and ended.where == "main" and limit is not LimitName.RECURSION:
        end = f"ended in RecursionError, and was still busy with its traceback at the limit on {limit.value.replace('_soft', '')}"
        return _recursion(case, f"{_depth_words(case)}, {end}; it was killed {case.after}", limit)
    if limit is LimitName.RECURSION or case.runs_away:
        end = "" if limit is LimitName.RECURSION else f"; it came to light at the limit on {limit.value.replace('_soft', '')}"
        return _recursion(case, f"{_depth_words(case)}{end}; it was killed {case.after}", limit)
    if limit in (LimitName.TIME, LimitName.CPU, LimitName.STALL) and case.swallows_memory_errors:
        caught = case.evidence.words.swallowed_memory
        count = counted(caught, "MemoryError") if caught else "MemoryErrors (seen from outside)"
        return Finding(Outcome.MEMORY, f"It caught {count} of its own and went on without memory; it was killed {case.after}.", limit)
    if limit in (LimitName.TIME, LimitName.STALL) and case.lost_workers:
        struck = LimitName.MEMORY if case.evidence.exit.oom_kills else limit
        return Finding(Outcome.WORKER_LOST, f"{_workers(case)}, and the rest never ended; it was killed {case.after}.", struck)
    return None


def _never_started(case: Case) -> Finding | None:
    error = case.evidence.exit.launch_error
    return None if error is None else Finding(Outcome.LAUNCH_FAILED, f"It could not be started: {error}.")


def _asked_to_stop(case: Case) -> Finding | None:
    if not case.evidence.exit.asked_to_stop:
        return None
    return Finding(Outcome.STOPPED, f"It was asked to stop and ended {case.after} ({_how(case)}).")


def _refused(case: Case) -> Finding | None:
    lineage = case.evidence.words.lineage
    if lineage is None:
        return None
    script, levels = lineage
    sentence = f"Runaway recursion: {base(script)} started itself {levels} levels deep, and the guard refused to go on, {case.after}."
    return Finding(Outcome.RECURSION, sentence, LimitName.PROCESSES)


# ---------------------------------------------------------------- 5: signals


def _signal(case: Case) -> Finding | None:
    number = case.evidence.exit.signal
    if number is None:
        return None
    if number == SIGKILL:
        return _sigkill(case)
    if number == SIGXCPU:
        return _refined(case, LimitName.CPU) or Finding(Outcome.CPU, _limit_sentence(case, LimitName.CPU), LimitName.CPU)
    if number in FATAL_SIGNALS:
        return _fatal_signal(case, number)
    return Finding(Outcome.SIGNALLED, f"{signal_name(number)} ended it {case.after}; {_sender(case) or 'Mainstay did not send it'}.")


def _sigkill(case: Case) -> Finding:
    facts = case.evidence
    if facts.exit.oom_kills:
        if case.fills_the_stack:
            return _recursion(case, f"{_depth_words(case)}; the kernel killed it at {_memory_line(case)} {case.after}", LimitName.MEMORY)
        where = _where(case)
        return Finding(
            Outcome.MEMORY,
            f"The kernel killed it at {_memory_line(case)} {case.after}{where and f'; it was in {where}'}.",
            LimitName.MEMORY,
        )
    if case.was_oom_killed:
        main = next((victim for victim in facts.oom_victims or () if victim.is_main), None)
        who = "a control group around it" if main is not None and main.in_cgroup else "the host"
        return Finding(
            Outcome.HOST_OOM,
            f"The kernel killed it {case.after} because {who} ran out of memory; it used {about_size(_peak(case))} itself"
            + (f", within its limit of {about_size(case.limits.memory_bytes)}." if case.limits.memory_bytes is not None else "."),
        )
    if case.limits.cpu_s is not None and facts.exit.cpu_s >= case.limits.cpu_s + CPU_HARD_S - 0.1:
        return _refined(case, LimitName.CPU) or Finding(Outcome.CPU, _limit_sentence(case, LimitName.CPU), LimitName.CPU)
    who = _sender(case) or "neither Mainstay nor the kernel's OOM killer sent it"
    return Finding(Outcome.SIGNALLED, f"SIGKILL ended it {case.after}; {who}.")


def _sender(case: Case) -> str:
    sender = case.evidence.sender
    if sender is None:
        return ""
    return "it sent it to itself" if sender.is_self else f"{sender.name} (pid {sender.pid}) sent it"


def _fatal_signal(case: Case, number: int) -> Finding:
    name = signal_name(number)
    if _is_stack_overflow(case, number):
        return _recursion(case, f"{_depth_words(case)} overflowed the C stack: {name} {case.after}")
    if (
        case.cycle is not None and case.cycle.kind is CycleKind.TASKS and case.fills_the_stack
    ):  # CPython does not survive each failed allocation
        return _recursion(
            case, f"{_depth_words(case)}, filled its memory of {about_size(_peak(case))} and crashed with {name} {case.after}"
        )
    line = case.limits.memory_bytes
    if (
        line is not None and case.swallows_memory_errors and _peak(case) >= OUT_OF_MEMORY_SHARE * line
    ):  # CPython does not survive each of them
        caught = counted(max(case.evidence.words.swallowed_memory, 1), "MemoryError")
        sentence = f"It caught {caught} of its own, went on without memory, and crashed with {name}"
        return Finding(Outcome.MEMORY, f"{sentence} {case.after}; its limit is {about_size(line)}.", LimitName.MEMORY)
    frames = case.evidence.words.fatal_frames
    where = f" in {at(frames[0])}" if frames else ""
    if line is not None and case.was_refused_memory:  # C code does not survive each of these refusals, CPython's own least of all
        sentence = f"It crashed with {name}{where} at {about_size(_peak(case))} of memory, its limit of {about_size(line)}, and got no more"
        return Finding(Outcome.MEMORY, f"{sentence}; it ended {case.after}.", LimitName.MEMORY)
    return Finding(Outcome.CRASHED, f"It crashed with {name}{where} {case.after}.")


def _is_stack_overflow(case: Case, number: int) -> bool:
    words = case.evidence.words
    if words.fatal_signal is not None and "stack overflow" in words.fatal_signal.lower():
        return True
    if case.error_type == "RecursionError" or _repeats(words.fatal_frames):
        return True
    if number not in STACK_SIGNALS:
        return False
    # A crash in any thread leaves a dump, unless there was no stack left to write it on: only the main thread has a spare one.
    speechless = words.spoke and words.fatal_signal is None and not words.fatal_frames and not words.finalized
    return case.evidence.depth_peak > DEEP or speechless


def _repeats(frames: Sequence[Frame]) -> bool:
    """A dump that is full, or has a cycle; the full one has to be of few functions, for a deep framework fills it as well."""
    if len(frames) >= DUMP_FRAMES and 2 * len({(frame.file, frame.function) for frame in frames}) <= len(frames):
        return True
    return find_cycle_in_frames(frames) is not None


# ---------------------------------------------------------------- 6: exceptions, and what the kernel says about workers


def _recursion_error(case: Case) -> Finding | None:
    if _is_success(case):
        return None
    other = case.evidence.words.exception
    if (
        case.error is None
        and other is not None
        and other.where == "thread"
        and other.type == "RecursionError"
        and case.evidence.exit.signal is None
    ):
        return _recursion(case, f"{_depth_words(case)}, ended a thread of it in RecursionError; it gave up {case.after} ({_how(case)})")
    if case.gave_up_at_the_line and case.climbed is not None:
        ending = f"{_depth_words(case)}, filled its memory of {about_size(_peak(case))} and gave up {case.after} ({_how(case)})"
        return _recursion(case, ending, LimitName.MEMORY)
    if case.error is None:
        return None
    lost = case.is_lost_error and (case.depth > DEEP or case.fills_the_stack)
    if case.error_type == "RecursionError" or lost:
        if lost:
            return _recursion(case, f"{_depth_words(case)}, ran out of memory (SystemError: the MemoryError itself was lost) {case.after}")
        line = case.limits.recursion_frames
        if line is not None and case.depth >= AT_LIMIT * line:  # the guard had set Python's own limit to ours
            return _recursion(case, f"{_depth_words(case)}, stopped at its recursion limit of {line:,} {case.after}", LimitName.RECURSION)
        return _recursion(case, f"{_depth_words(case)}, ended in RecursionError {case.after}")
    if case.is_memory_error and case.fills_the_stack:
        return _recursion(case, f"{_depth_words(case)}, filled its memory of {about_size(_peak(case))} {case.after}", LimitName.MEMORY)
    return None


def _memory_error(case: Case) -> Finding | None:
    line = case.limits.memory_bytes
    if line is None or _is_success(case):
        return None
    other = case.evidence.words.exception
    if case.error is None and other is not None and _is_memory_error(other.type) and _peak(case) >= OUT_OF_MEMORY_SHARE * line:
        who = "a thread of it" if other.where == "thread" else "a process of its tree" if other.where == "child" else "a part of it"
        sentence = (
            f"{other.type.rpartition('.')[2]} in {_where(case)}, in {who}, at {about_size(_peak(case))}; its limit is {about_size(line)}."
        )
        return Finding(Outcome.MEMORY, f"{sentence} It ended {case.after} ({_how(case)}).", LimitName.MEMORY)
    # At the line itself C code loses even the MemoryError that it was given (CPython 3.12 under asyncio), and a new thread finds no room for its stack.
    words = {"SystemError": LOST_C_ERROR, "RuntimeError": NO_THREAD}.get(case.error_type)
    lost = case.error is not None and words is not None and words in case.error.message and _peak(case) >= AT_LIMIT * line
    if not case.is_memory_error and not lost:
        return None
    where = _where(case)
    place = f" in {where}" if where else ""
    peak = f" at {about_size(_peak(case))}" if _peak(case) else ""
    return Finding(
        Outcome.MEMORY,
        f"{case.error_type}{place}{peak}; its limit is {about_size(line)}. It ended {case.after}.",
        LimitName.MEMORY,
    )


def _is_memory_error(kind: str) -> bool:
    """A MemoryError or a kind of it (numpy has one); not one that speaks of another memory than the job's own."""
    name = kind.rpartition(".")[2]
    return name.endswith("MemoryError") and not name.startswith("OutOf")


def _worker_lost(case: Case) -> Finding | None:
    if not case.lost_workers or _is_success(case):
        return None
    limit = LimitName.MEMORY if case.evidence.exit.oom_kills else None
    return Finding(Outcome.WORKER_LOST, f"{_workers(case)}; the rest gave up {case.after} ({_how(case)}).", limit)


def _out_of_processes(case: Case) -> Finding | None:
    if not case.evidence.exit.pids_max_hits or _is_success(case):
        return None
    line = "" if case.limits.processes is None else f" of {case.limits.processes}"
    return Finding(
        Outcome.PROCESSES,
        f"It was refused a process at its limit{line} and ended {case.after} ({_how(case)}).",
        LimitName.PROCESSES,
    )


def _exception(case: Case) -> Finding | None:
    error = case.error
    if error is None or _is_success(case):
        return None
    where = _where(case)
    message = f": {clean(error.message, 200)}" if error.message else ""
    return Finding(Outcome.EXCEPTION, f"{error.type}{message}{f', in {where}' if where else ''}, {case.after}.")


# ---------------------------------------------------------------- 7: exit codes


def _exit_code(case: Case) -> Finding | None:
    code = case.evidence.exit.code
    if code is None:
        return None
    if not _is_success(case):
        return Finding(Outcome.FAILED, f"It ended with exit code {code} {case.after}.")
    wanted, had = case.expect.records_at_least, case.evidence.records
    if wanted is not None and (had or 0) < wanted:
        said = "reported no records" if had is None else f"processed {counted(had, 'record')}"
        return Finding(Outcome.UNMET, f"It ended with exit code {code} {case.after}, but {said}; at least {wanted:,} were expected.")
    return Finding(Outcome.SUCCEEDED, f"It succeeded {case.after}{_thread_note(case)}.")


def _unknown(_case: Case) -> Finding:
    return Finding(Outcome.LOST, "How it ended cannot be known: there is no record of its end.")


def _is_success(case: Case) -> bool:
    return case.evidence.exit.code is not None and case.evidence.exit.code in case.expect.success_exit_codes


RULES: tuple[Rule, ...] = (
    _own_kill,
    _never_started,
    _asked_to_stop,
    _refused,
    _signal,
    _recursion_error,
    _memory_error,
    _worker_lost,
    _out_of_processes,
    _exception,
    _exit_code,
    _unknown,
)


# ---------------------------------------------------------------- sentences


def _recursion(case: Case, ending: str, limit: LimitName | None = None) -> Finding:
    if case.cycle is not None and case.cycle.kind is CycleKind.PROCESSES:
        what = f"{case.cycle.frames[0].function} starts itself" if case.cycle.frames else "a process starts itself"
    elif case.cycle is not None:
        what = turn_of(case.cycle)
    elif case.hidden_cycle is not None:
        return Finding(Outcome.RECURSION, f"Runaway recursion in C code called by {at(case.hidden_cycle.frames[0])}, {ending}.", limit)
    else:
        what = _where(case) or "no cycle could be named"
    return Finding(Outcome.RECURSION, f"Runaway recursion: {what}, {ending}.", limit)


def _depth_words(case: Case) -> str:
    """How deep, and over which line; for swallowed errors, how often."""
    if case.cycle is not None and case.cycle.kind is CycleKind.TASKS:
        return f"{counted(case.cycle.depth, 'task')} that start each other"
    if case.swallows:
        count = case.evidence.words.swallowed_recursion
        return f"with its RecursionError caught again and again ({f'{count:,} times' if count else 'seen from outside'})"
    breach = case.evidence.breach
    over = f", over the limit of {breach.line:,.0f}" if breach is not None and breach.limit is LimitName.RECURSION else ""
    is_known = case.depth and (case.cycle is not None or case.hidden_cycle is None)
    return f"{counted(case.depth, 'level')} deep{over}" if is_known else "of unknown depth"


def _limit_sentence(case: Case, limit: LimitName) -> str:
    breach = case.evidence.breach
    measured = breach.measured if breach is not None and breach.limit is limit else None
    line = breach.line if breach is not None and breach.limit is limit else _line(case.limits, limit)
    ended = f"; it was killed {case.after}"
    where = _where(case)
    inside = f", in {where}" if where else ""
    waits = testimony.doing(case.evidence)
    match limit:
        case LimitName.MEMORY | LimitName.MEMORY_SOFT:
            used = about_size(measured if measured is not None else _peak(case))
            if breach is not None and breach.detail == AT_THE_WALL:
                return f"It stood at {used} of memory{_of(line, about_size)} and only asked for more, which it did not get{ended}{inside}."
            return f"It used {used} of memory, over its limit{_of(line, about_size)}{ended}{inside}."
        case LimitName.RECURSION:
            return f"It was {counted(case.depth, 'level')} deep, over its limit{_of(line, _plain)}{ended}{inside}."
        case LimitName.TIME:
            return f"It ran for {about_duration(measured or case.evidence.duration_s)}; its time limit is{_is(line)}, and it was killed{inside}{waits}."
        case LimitName.CPU:
            used = about_duration(max(measured or 0.0, case.evidence.exit.cpu_s))
            return f"It used {used} of CPU time; its limit is{_is(line)}{ended}{inside}."
        case LimitName.STALL:
            return f"It made no progress for {about_duration(measured or line or 0.0)}; its limit is{_is(line)}{ended}{inside}{waits}."
        case LimitName.PROCESSES:
            had = "more" if measured is None else f"{measured:,.0f}"
            return f"It had {had} processes and threads, over its limit{_of(line, _plain)}{ended}."
        case LimitName.OUTPUT:
            wrote = about_size(measured if measured is not None else case.evidence.exit.output_bytes)
            return f"It wrote {wrote} of output, over its limit{_of(line, about_size)}{ended}."


def _of(line: float | None, show: Callable[[float], str]) -> str:
    return "" if line is None else f" of {show(line)}"


def _is(line: float | None) -> str:
    return " lower now" if line is None else f" {about_duration(line)}"


def _plain(number: float) -> str:
    return f"{number:,.0f}"


def _line(limits: Limits, limit: LimitName) -> float | None:
    lines: dict[LimitName, float | None] = {
        LimitName.MEMORY: limits.memory_bytes,
        LimitName.MEMORY_SOFT: limits.memory_soft_bytes,
        LimitName.RECURSION: limits.recursion_frames,
        LimitName.TIME: limits.time_s,
        LimitName.CPU: limits.cpu_s,
        LimitName.STALL: limits.stall_s,
        LimitName.PROCESSES: limits.processes,
        LimitName.OUTPUT: limits.output_bytes,
    }
    return lines[limit]


def _memory_line(case: Case) -> str:
    line = case.limits.memory_bytes
    return "its memory limit" if line is None else f"its memory limit of {about_size(line)}"


def _peak(case: Case) -> int:
    kernel = case.evidence.exit.memory_peak_bytes
    return max(case.evidence.memory_peak_bytes, case.evidence.exit.max_rss_bytes, kernel or 0)


def _workers(case: Case) -> str:
    if case.evidence.exit.oom_kills:
        return f"The kernel killed {counted(case.lost_workers, 'process', 'processes')} of its tree at {_memory_line(case)}"
    return f"The kernel's OOM killer ended {counted(case.lost_workers, 'process', 'processes')} of its tree"


def _where(case: Case) -> str:
    """The innermost of the application's own frames, by the exception, else by the looks, else by the last look at its first thread."""
    error, look = case.evidence.words.exception, case.evidence.look
    stacks = [stack for stack in look.stacks if stack.frames] if look else []
    if error is not None and error.frames and not _is_cut(error, stacks):
        return at(own_frames(error.frames)[-1])
    if (line := testimony.main_line(case.evidence.study)) is not None:
        return at(line.frame)
    told = stacks or [stack for stack in _stacks(case.evidence) if stack.frames]
    return at(own_frames(told[0].frames)[0]) if told else ""


def _stacks(evidence: Evidence) -> tuple[Stack, ...]:
    """Those that were seen from outside; where nobody could look, the one that the guard was asked for, or faulthandler's of the end."""
    seen = evidence.look.stacks if evidence.look else ()
    if any(stack.frames for stack in seen):
        return seen
    asked = evidence.words.asked_frames if evidence.exit.killed_for is not None else ()
    frames = evidence.words.fatal_frames or asked
    return (Stack(0, frames, len(frames)),) if frames else seen


def _is_cut(error: ExceptionFacts, stacks: Sequence[Stack]) -> bool:
    """A traceback that could not be allocated to its end: out of memory, the interpreter drops its inner frames."""
    if not error.type.endswith("MemoryError") or error.where != "main":
        return False
    outermost = error.frames[0]
    return any(
        stack.depth > error.depth and _same_code(stack.frames[-1], outermost) for stack in stacks if stack.depth == len(stack.frames)
    )


def _same_code(one: Frame, other: Frame) -> bool:
    return (one.function, one.file) == (other.function, other.file)


def _how(case: Case) -> str:
    facts = case.evidence.exit
    if facts.signal is not None:
        return signal_name(facts.signal)
    return "no exit code" if facts.code is None else f"exit code {facts.code}"


def _thread_note(case: Case) -> str:
    error = case.evidence.words.exception
    if error is None or error.where == "main":
        return ""
    return (
        f"; but a thread of it died of {error.type}"
        if error.where == "thread"
        else f"; but {error.type} was raised where nobody could catch it"
    )


# ---------------------------------------------------------------- facts, each with its source


def _facts(case: Case) -> list[str]:
    return [*_our_facts(case), *_kernel_facts(case), *testimony.facts(case.evidence), *_guard_facts(case), *_outside_facts(case)]


def _our_facts(case: Case) -> list[str]:
    facts, breach = case.evidence.exit, case.evidence.breach
    found: list[str] = []
    if facts.launch_error is not None:
        found.append(f"start: {facts.launch_error}")
    if facts.killed_for is not None:
        figures = f" {_figures(breach.limit, breach.measured)} over {_figures(breach.limit, breach.line)}" if breach is not None else ""
        found.append(f"we killed it: {facts.killed_for}{figures}{f' ({breach.detail})' if breach is not None and breach.detail else ''}")
    elif breach is not None:
        found.append(
            f"seen, but it ended by itself: {breach.limit.value} {_figures(breach.limit, breach.measured)} over {_figures(breach.limit, breach.line)}"
        )
    if facts.asked_to_stop:
        found.append("we asked it to stop")
    if facts.output_dropped_bytes:
        found.append(f"output: {about_size(facts.output_dropped_bytes)} of {about_size(facts.output_bytes)} dropped")
    if case.evidence.records is not None:
        found.append(f"job: {counted(case.evidence.records, 'record')} processed")
    return found


def _figures(limit: LimitName, number: float) -> str:
    if limit in (LimitName.MEMORY, LimitName.MEMORY_SOFT, LimitName.OUTPUT):
        return about_size(number)
    if limit in (LimitName.TIME, LimitName.CPU, LimitName.STALL):
        return about_duration(number)
    return f"{number:,.0f}"


def _kernel_facts(case: Case) -> list[str]:
    facts = case.evidence.exit
    found: list[str] = []
    if facts.code is not None or facts.signal is not None:
        found.append(f"kernel: {_how(case)}")
    if facts.oom_kills:
        found.append(f"kernel: memory.events oom_kill {facts.oom_kills}")
    if case.evidence.host_oom_kills:
        found.append(f"kernel: the host's oom_kill count rose by {case.evidence.host_oom_kills}")
    if facts.pids_max_hits:
        found.append(f"kernel: pids.events max {facts.pids_max_hits}")
    if peak := _peak(case):
        found.append(f"memory peak {about_size(peak)}, CPU time {about_duration(facts.cpu_s)}")
    if facts.leftovers:
        found.append(f"{counted(facts.leftovers, 'process', 'processes')} left behind, ended by us")
    if facts.unkillable:
        found.append(f"cannot be killed: pid {', '.join(str(pid) for pid in facts.unkillable)}")
    return found


def _guard_facts(case: Case) -> list[str]:
    words = case.evidence.words
    found: list[str] = []
    if words.exception is not None:
        where = "" if words.exception.where == "main" else f" ({words.exception.where})"
        found.append(f"guard: {words.exception.type}{where}, {counted(words.exception.depth, 'level')} deep")
    if words.lineage is not None:
        found.append(f"guard: {words.lineage[0]} started itself {words.lineage[1]} levels deep; refused to go on")
    if words.fatal_signal is not None:
        more = " and more" if words.fatal_truncated else ""
        found.append(f"guard: {words.fatal_signal}, {counted(len(words.fatal_frames), 'frame')}{more}")
    elif case.evidence.exit.signal in FATAL_SIGNALS and words.spoke:
        found.append("guard: was there, but its crash report is empty: no stack was left to write it on")
    if words.swallowed_recursion:
        found.append(f"guard: {counted(words.swallowed_recursion, 'RecursionError')} caught by the job")
    if words.swallowed_memory:
        found.append(f"guard: {counted(words.swallowed_memory, 'MemoryError')} caught by the job")
    if words.asked_limit is not None:
        found.append(f"guard: the job asked for a recursion limit of {words.asked_limit:,} and did not get it")
    if not words.spoke:
        found.append("guard: not active in this process")
    return found


def _outside_facts(case: Case) -> list[str]:
    look, facts = case.evidence.look, case.evidence
    found: list[str] = []
    if look is not None:
        if look.depth:
            limit = "" if look.recursion_limit is None else f", its own recursion limit is {look.recursion_limit:,}"
            found.append(f"look: {counted(look.depth, 'level')} deep{limit}")
        if look.exception_in_flight:
            found.append(f"look: {look.exception_in_flight} in flight")
        if look.waiting:
            found.append(f"look: waiting: {look.waiting}")
        if look.note:
            found.append(f"look: {look.note}")
    if facts.depth_peak:
        growth = (
            f"; {facts.stack_share:.0%} of the growth of memory came while it got deeper"
            if facts.stack_share and facts.depth_peak > FILLS
            else ""
        )
        found.append(f"samples: deepest stack {counted(facts.depth_peak, 'level')}{growth}")
    if facts.swallowed_seen:
        found.append(f"samples: {counted(facts.swallowed_seen, 'look')} found a RecursionError on its way or the stack at its limit")
    return found


def _cycle_facts(case: Case) -> list[str]:
    return [] if case.cycle is None else [f"cycle: {note}" for note in case.cycle.notes]
