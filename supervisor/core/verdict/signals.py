"""Rules of verdict, 5: the signal it died of, with the kernel's counts and the crash report."""

from collections.abc import Sequence
from signal import SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGSYS, SIGTRAP, SIGXCPU

from supervisor.core.cycle import find_cycle_in_frames
from supervisor.core.evidence import CycleKind, Frame
from supervisor.core.limits import WALL_SHARE
from supervisor.core.model import LimitName, Outcome
from supervisor.core.prose import about_size, at, counted, signal_name
from supervisor.core.verdict.case import OUT_OF_MEMORY_SHARE, UNHEALTHY_FRAMES, Case, Finding, peak_bytes
from supervisor.core.verdict.kills import refined
from supervisor.core.verdict.phrases import depth_words, limit_sentence, memory_line, runaway, sender_words, where_it_was

DUMP_FRAMES = 95  # faulthandler writes 100 at most; a few may be foreign
CPU_TICK_S = 0.1  # the kernel and getrusage count CPU time in ticks of their own
CPU_HARD_S = 2.0  # RLIMIT_CPU: the kernel kills this much after SIGXCPU
# The C stack of 8 MiB ends between 1,600 (sorted) and 40,000 levels, and Python's own limit stands at 1,000: who never raised it never came that deep.
OVERFLOW_LEVELS = 1_024
FATAL_SIGNALS = frozenset({SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE, SIGSYS, SIGTRAP})


def by_signal(case: Case) -> Finding | None:
    """A signal ended it."""
    number = case.evidence.exit.signal
    if number is None:
        return None
    if number == SIGKILL:
        return _sigkill(case)
    if number == SIGXCPU and case.limits.cpu_s is not None and case.evidence.exit.cpu_s >= case.limits.cpu_s - CPU_TICK_S:
        return refined(case, LimitName.CPU) or Finding(Outcome.CPU, limit_sentence(case, LimitName.CPU), LimitName.CPU)
    if number in FATAL_SIGNALS:
        return _fatal_signal(case, number)
    own = "; the kernel sends it at an RLIMIT_CPU, which was not of Mainstay's making" if number == SIGXCPU else ""
    who = sender_words(case) or f"Mainstay did not send it{own}"
    return _at_its_traceback(case, number) or Finding(Outcome.SIGNALLED, f"{signal_name(number)} ended it {case.after}; {who}.")


def _at_its_traceback(case: Case, number: int) -> Finding | None:
    """Its main thread had ended in RecursionError before the signal came: 3.13 prints some thousands of the levels a second, and an alarm does not wait."""
    if case.overrun is None:
        return None
    end = f"ended in RecursionError, and was still busy with its traceback when {signal_name(number)} ended it {case.after}"
    return runaway(case, f"{depth_words(case)}, {end}; {sender_words(case) or 'Mainstay did not send it'}")


def _sigkill(case: Case) -> Finding:
    facts = case.evidence
    if facts.exit.oom_kills:
        if case.fills_the_stack:
            return runaway(case, f"{depth_words(case)}; the kernel killed it at {memory_line(case)} {case.after}", LimitName.MEMORY)
        where = where_it_was(case)
        return Finding(
            Outcome.MEMORY,
            f"The kernel killed it at {memory_line(case)} {case.after}{where and f'; it was in {where}'}.",
            LimitName.MEMORY,
        )
    if case.was_oom_killed:
        main = next((victim for victim in facts.oom_victims or () if victim.is_main), None)
        who = "a control group around it" if main is not None and main.in_cgroup else "the host"
        return Finding(
            Outcome.HOST_OOM,
            f"The kernel killed it {case.after} because {who} ran out of memory; it used {about_size(peak_bytes(case))} itself"
            + (f", within its limit of {about_size(case.limits.memory_bytes)}." if case.limits.memory_bytes is not None else "."),
        )
    if case.limits.cpu_s is not None and facts.exit.cpu_s >= case.limits.cpu_s + CPU_HARD_S - 0.1:
        return refined(case, LimitName.CPU) or Finding(Outcome.CPU, limit_sentence(case, LimitName.CPU), LimitName.CPU)
    who = sender_words(case) or "neither Mainstay nor the kernel's OOM killer sent it"
    return _at_its_traceback(case, SIGKILL) or Finding(Outcome.SIGNALLED, f"SIGKILL ended it {case.after}; {who}.")


def _fatal_signal(case: Case, number: int) -> Finding:
    name = signal_name(number)
    if _is_stack_overflow(case, number):
        return runaway(case, f"{depth_words(case)} overflowed the C stack: {name} {case.after}")
    if (
        case.cycle is not None and case.cycle.kind is CycleKind.TASKS and case.fills_the_stack
    ):  # CPython does not survive each failed allocation
        return runaway(
            case, f"{depth_words(case)}, filled its memory of {about_size(peak_bytes(case))} and crashed with {name} {case.after}"
        )
    line = case.limits.memory_bytes
    if (
        line is not None and case.swallows_memory_errors and peak_bytes(case) >= OUT_OF_MEMORY_SHARE * line
    ):  # CPython does not survive each of them
        caught = counted(max(case.evidence.words.swallowed_memory, 1), "MemoryError")
        sentence = f"It caught {caught} of its own, went on without memory, and crashed with {name}"
        return Finding(Outcome.MEMORY, f"{sentence} {case.after}; its limit is {about_size(line)}.", LimitName.MEMORY)
    frames = case.evidence.words.fatal_frames
    where = f" in {at(frames[0])}" if frames else ""
    if line is not None and case.was_refused_memory:  # C code does not survive each of these refusals, CPython's own least of all
        sentence = (
            f"It crashed with {name}{where} at {about_size(peak_bytes(case))} of memory, its limit of {about_size(line)}, and got no more"
        )
        return Finding(Outcome.MEMORY, f"{sentence}; it ended {case.after}.", LimitName.MEMORY)
    full = _stack_words(case) or (
        f"; it stood at {about_size(peak_bytes(case))} of {memory_line(case)}, and may have been refused more"
        if line is not None and case.evidence.armed and peak_bytes(case) >= WALL_SHARE * line
        else ""
    )
    return Finding(Outcome.CRASHED, f"It crashed with {name}{where} {case.after}{full}.")


def _stack_words(case: Case) -> str:
    """What the kernel's log says of the C stack of a program that no guard is in."""
    fault = case.evidence.fault
    if fault is None or not fault.is_beside_stack:
        return ""
    return "; it was beside its C stack, which a recursion without end or a large local variable may have filled"


def _is_stack_overflow(case: Case, number: int) -> bool:
    facts, words = case.evidence, case.evidence.words
    if words.fatal_signal is not None and "stack overflow" in words.fatal_signal.lower():
        return True
    if case.overrun is not None:
        return True
    if number != SIGSEGV or (facts.fault is not None and not facts.fault.is_beside_stack):
        return False
    if words.fatal_frames:
        return _fills_a_dump(words.fatal_frames) and max(words.recursion_limit or OVERFLOW_LEVELS, facts.depth_peak) >= OVERFLOW_LEVELS
    if facts.depth_peak > UNHEALTHY_FRAMES:
        return True
    # A crash in any thread leaves a dump, unless there was no stack left to write it on: only the main thread has a spare one.
    is_speechless = words.spoke and words.fatal_signal is None and not words.dumps_elsewhere and not words.finalized
    return is_speechless and facts.processes_peak != 1


def _fills_a_dump(frames: Sequence[Frame]) -> bool:
    """Deeper than a dump tells, and of few functions, or with a cycle: a deep framework fills it as well. A short one tells the whole stack: that had room."""
    if len(frames) < DUMP_FRAMES:
        return False
    return 2 * len({(frame.file, frame.function) for frame in frames}) <= len(frames) or find_cycle_in_frames(frames) is not None
