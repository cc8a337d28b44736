"""The words of a verdict: how deep and how often, over which line, where it was, how it ended."""

from collections.abc import Callable, Sequence

from supervisor.core import testimony
from supervisor.core.cycle import find_cycle_in_frames
from supervisor.core.evidence import CycleKind, Evidence, ExceptionFacts, Frame, Stack
from supervisor.core.jobs import Limits
from supervisor.core.limits import AT_THE_WALL
from supervisor.core.model import LimitName, Outcome
from supervisor.core.prose import about_duration, about_size, at, counted, is_ours, is_own, own_frames, signal_name, turn_of
from supervisor.core.verdict.case import AT_LIMIT, Case, Finding, peak_bytes
from supervisor.core.verdict.errors import is_overrun, refusal_of


def runaway(case: Case, ending: str, limit: LimitName | None = None) -> Finding:
    """The finding of a runaway recursion: what repeats, and then *ending*."""
    if case.cycle is not None and case.cycle.kind is CycleKind.PROCESSES:
        what = f"{case.cycle.frames[0].function} starts itself" if case.cycle.frames else "a process starts itself"
    elif case.cycle is not None:
        what = turn_of(case.cycle)
    elif case.hidden_cycle is not None:
        return Finding(Outcome.RECURSION, f"Runaway recursion in C code called by {at(case.hidden_cycle.frames[0])}, {ending}.", limit)
    else:
        what = where_it_was(case) or "no cycle could be named"
    return Finding(Outcome.RECURSION, f"Runaway recursion: {what}, {ending}.", limit)


def depth_words(case: Case) -> str:
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


def limit_sentence(case: Case, limit: LimitName) -> str:
    """The sentence about *limit* that struck: measured, line, where it was, what it did."""
    breach = case.evidence.breach
    measured = breach.measured if breach is not None and breach.limit is limit else None
    line = breach.line if breach is not None and breach.limit is limit else _line(case.limits, limit)
    ended = f"; it was killed {case.after}"
    where = where_it_was(case)
    inside = f", in {where}" if where else ""
    waits = testimony.doing(case.evidence)
    match limit:
        case LimitName.MEMORY | LimitName.MEMORY_SOFT:
            used = about_size(measured if measured is not None else peak_bytes(case))
            if breach is not None and breach.detail == AT_THE_WALL:
                return f"It stood at {used} of memory{_of(line, about_size)} and only asked for more, which it did not get{ended}{inside}."
            return f"It used {used} of memory, over its limit{_of(line, about_size)}{ended}{inside}."
        case LimitName.RECURSION:
            return f"It was {counted(case.depth, 'level')} deep, over its limit{_of(line, _plain)}{ended}{inside}."
        case LimitName.TIME:
            return f"It ran for {about_duration(measured or case.evidence.duration_s)}; its time limit is{_is(line)}, and it was killed{inside}{waits}{thread_note(case)}."
        case LimitName.CPU:
            used = about_duration(max(measured or 0.0, case.evidence.exit.cpu_s))
            return f"It used {used} of CPU time; its limit is{_is(line)}{ended}{inside}."
        case LimitName.STALL:
            return f"It made no progress for {about_duration(measured or line or 0.0)}; its limit is{_is(line)}{ended}{inside}{waits}{thread_note(case)}."
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


def memory_line(case: Case) -> str:
    """For the middle of a sentence: its memory limit, with the number where there is one."""
    line = case.limits.memory_bytes
    return "its memory limit" if line is None else f"its memory limit of {about_size(line)}"


def lost_workers_words(case: Case) -> str:
    """Whom the OOM killer ended."""
    if case.evidence.exit.oom_kills:
        return f"The kernel killed {counted(case.lost_workers, 'process', 'processes')} of its tree at {memory_line(case)}"
    return f"The kernel's OOM killer ended {counted(case.lost_workers, 'process', 'processes')} of its tree"


def where_it_was(case: Case) -> str:
    """The innermost of the application's own frames, by the exception, else by the looks, else by the last look at its first thread."""
    error, look, killed_for = case.evidence.words.exception, case.evidence.look, case.evidence.exit.killed_for
    if error is not None and (killed_for not in (None, LimitName.MEMORY) or (killed_for is not None and error.where != "main")):
        error = None  # that thread or process was done with, and it is the rest of it that met the limit
    stacks = [stack for stack in look.stacks if stack.frames] if look else []
    if error is not None and (root := error.root) is not None and root.where == "child" and root.frames:
        return at(own_frames(root.frames)[-1])
    if error is not None and error.frames and not _is_cut(error, stacks):
        return at(own_frames(error.frames)[-1])
    if (line := testimony.main_line(case.evidence.study)) is not None:
        return at(line.frame)
    told = stacks or [stack for stack in stacks_of(case.evidence) if stack.frames]
    if case.evidence.study is not None and case.evidence.study.growing and len(told) > 1 and case.evidence.study.busy:
        return at(case.evidence.study.busy[0].frame)  # of several threads, the one that was seen at it
    inner = [own_frames(stack.frames)[0] for stack in told]
    best = next((frame for frame in inner if is_own(frame)), next((frame for frame in inner if not is_ours(frame)), None))
    return at(best) if best is not None else ""


def origin(case: Case) -> str:
    """The recursion or the want of memory that an exception came from, for the end of the sentence about it."""
    root = case.error.root if case.error is not None else None
    if root is None or case.error is None or root.type == case.error.type:
        return ""
    if not is_overrun(root):
        return (
            f"; it came from {root.type}{f' in {at(own_frames(root.frames)[-1])}' if root.frames else ''}"
            if refusal_of(root) is not None
            else ""
        )
    cycle, line = find_cycle_in_frames(root.frames, root.depth, innermost_first=False), case.limits.recursion_frames
    what = turn_of(cycle) if cycle is not None else at(own_frames(root.frames)[-1]) if root.frames else "no cycle could be named"
    at_line = f", at its recursion limit of {line:,}" if line is not None and root.depth >= AT_LIMIT * line else ""
    return f"; it came from a runaway recursion: {what}, {counted(root.depth, 'level')} deep{at_line}"


def stacks_of(evidence: Evidence) -> tuple[Stack, ...]:
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


def how_it_ended(case: Case) -> str:
    """The signal by its name, or the exit code."""
    facts = case.evidence.exit
    if facts.signal is not None:
        return signal_name(facts.signal)
    return "no exit code" if facts.code is None else f"exit code {facts.code}"


def thread_note(case: Case) -> str:
    """What died beside the main thread, for the end of a sentence."""
    error = case.evidence.words.exception
    if error is None or error.where == "main":
        return ""
    if error.where == "unraisable":
        return f"; but {error.type} was raised where nobody could catch it"
    line = case.limits.memory_bytes
    is_ours = line is not None and refusal_of(error) is not None and peak_bytes(case) >= case.refused_from_bytes
    at_line = f" at {memory_line(case)}" if is_ours else ""
    return f"; but a {'thread' if error.where == 'thread' else 'process'} of it died of {error.type}{at_line}"


def sender_words(case: Case) -> str:
    """Who sent the signal that ended it, where the kernel told."""
    sender = case.evidence.sender
    if sender is None:
        return ""
    return "it sent it to itself" if sender.is_self else f"{sender.name} (pid {sender.pid}) sent it"
