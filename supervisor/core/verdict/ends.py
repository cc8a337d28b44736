"""Rules of verdict, 6 and 7: the exception that the guard wrote down, what the kernel says about workers, its own exit code."""

from supervisor.core.model import LimitName, Outcome
from supervisor.core.prose import about_size, clean, counted
from supervisor.core.verdict.case import AT_LIMIT, LOST_C_ERROR, UNHEALTHY_FRAMES, Case, Finding, is_success, peak_bytes
from supervisor.core.verdict.errors import overrun_of, refusal_of
from supervisor.core.verdict.phrases import (
    depth_words,
    how_it_ended,
    lost_workers_words,
    memory_line,
    origin,
    runaway,
    thread_note,
    where_it_was,
)

NOT_FLUSHED = 120  # Python's own exit code where its standard output could not be flushed at its end
NO_THREAD = "can't start new thread"  # what is left of the refusal of memory for a stack


def recursion_error(case: Case) -> Finding | None:
    """A RecursionError, or what is left of a recursion that ran out of memory."""
    if is_success(case):
        return None
    other = case.evidence.words.exception
    if (
        case.error is None
        and other is not None
        and other.where == "thread"
        and overrun_of(other) is not None
        and case.evidence.exit.signal is None
    ):
        return runaway(case, f"{depth_words(case)}, ended a thread of it in RecursionError; it gave up {case.after} ({how_it_ended(case)})")
    if case.gave_up_at_the_line and case.climbed is not None:
        ending = f"{depth_words(case)}, filled its memory of {about_size(peak_bytes(case))} and gave up {case.after} ({how_it_ended(case)})"
        return runaway(case, ending, LimitName.MEMORY)
    if case.error is None:
        return None
    lost = case.is_lost_error and (case.depth > UNHEALTHY_FRAMES or case.fills_the_stack)
    if case.overrun is not None or lost:
        if lost:
            return runaway(case, f"{depth_words(case)}, ran out of memory (SystemError: the MemoryError itself was lost) {case.after}")
        line = case.limits.recursion_frames
        if line is not None and case.depth >= AT_LIMIT * line:  # the guard had set Python's own limit to ours
            return runaway(case, f"{depth_words(case)}, stopped at its recursion limit of {line:,} {case.after}", LimitName.RECURSION)
        return runaway(case, f"{depth_words(case)}, ended in RecursionError {case.after}")
    if case.refusal is not None and case.fills_the_stack:
        return runaway(case, f"{depth_words(case)}, filled its memory of {about_size(peak_bytes(case))} {case.after}", LimitName.MEMORY)
    return None


def memory_error(case: Case) -> Finding | None:
    """A MemoryError under a memory limit, or what C code made of one."""
    line = case.limits.memory_bytes
    if line is None or is_success(case):
        return None
    other = case.evidence.words.exception
    if peak_bytes(case) < case.refused_from_bytes:
        return None  # whoever refused it memory, our line did not
    if case.error is None and other is not None and refusal_of(other) is not None:
        who = "a thread of it" if other.where == "thread" else "a process of its tree" if other.where == "child" else "a part of it"
        sentence = f"{other.type.rpartition('.')[2]} in {where_it_was(case)}, in {who}, at {about_size(peak_bytes(case))}; its limit is {about_size(line)}."
        return Finding(Outcome.MEMORY, f"{sentence} It ended {case.after} ({how_it_ended(case)}).", LimitName.MEMORY)
    # At the line itself C code loses even the MemoryError that it was given (CPython 3.12 under asyncio), and a new thread finds no room for its stack.
    words = {"SystemError": LOST_C_ERROR, "RuntimeError": NO_THREAD}.get(case.error_type)
    lost = case.error is not None and words is not None and words in case.error.message and not case.error.is_raised
    if case.refusal is None and not lost:
        return None
    where = where_it_was(case)
    place = f" in {where}" if where else ""
    kind = case.refusal.type.rpartition(".")[2] if case.refusal is not None else case.error_type
    peak = f" at {about_size(peak_bytes(case))}" if peak_bytes(case) else ""
    return Finding(
        Outcome.MEMORY,
        f"{kind}{place}{peak}; its limit is {about_size(line)}. It ended {case.after}.",
        LimitName.MEMORY,
    )


def worker_lost(case: Case) -> Finding | None:
    """The kernel's OOM killer ended others of its tree, and it gave up."""
    if not case.lost_workers or is_success(case):
        return None
    limit = LimitName.MEMORY if case.evidence.exit.oom_kills else None
    return Finding(Outcome.WORKER_LOST, f"{lost_workers_words(case)}; the rest gave up {case.after} ({how_it_ended(case)}).", limit)


def out_of_processes(case: Case) -> Finding | None:
    """It was refused a process by its cgroup."""
    if not case.evidence.exit.pids_max_hits or is_success(case):
        return None
    line = "" if case.limits.processes is None else f" of {case.limits.processes}"
    return Finding(
        Outcome.PROCESSES,
        f"It was refused a process at its limit{line} and ended {case.after} ({how_it_ended(case)}).",
        LimitName.PROCESSES,
    )


def by_exception(case: Case) -> Finding | None:
    """Any other exception that ended its main thread."""
    error, last = case.error, case.evidence.words.exception
    if is_success(case):
        return None
    if error is None and last is not None and last.where == "unraisable" and case.evidence.exit.code == NOT_FLUSHED:
        message = f": {clean(last.message, 200)}" if last.message else ""
        return Finding(
            Outcome.EXCEPTION, f"{last.type}{message}, when its output was flushed at its end {case.after} (exit code {NOT_FLUSHED})."
        )
    if error is None:
        return None
    where = where_it_was(case)
    message = f": {clean(error.message, 200)}" if error.message else ""
    return Finding(
        Outcome.EXCEPTION, f"{error.type}{message}{f', in {where}' if where else ''}, {case.after}{_below_its_line(case)}{origin(case)}."
    )


def _below_its_line(case: Case) -> str:
    """For a MemoryError that our line had no part in."""
    line, error = case.limits.memory_bytes, case.refusal
    if line is None or error is None or error.is_raised is not False or peak_bytes(case) >= case.refused_from_bytes:
        return ""
    held = f"at {about_size(peak_bytes(case))}, " if peak_bytes(case) else ""
    return f"; {held}far below {memory_line(case)}: it asked for more at once than there is, or met another limit"


def by_exit_code(case: Case) -> Finding | None:
    """Its own exit code, and whether what was expected of a success held."""
    code = case.evidence.exit.code
    if code is None:
        return None
    if not is_success(case):
        line = case.limits.memory_bytes
        stood = (
            f", with its memory at its limit of {about_size(line)}, where it was given no more"
            if line is not None and case.was_refused_memory
            else ""
        )
        return Finding(Outcome.FAILED, f"It ended with exit code {code} {case.after}{stood}{thread_note(case)}.")
    wanted, had = case.expect.records_at_least, case.evidence.records
    if wanted is not None and (had or 0) < wanted:
        said = "reported no records" if had is None else f"processed {counted(had, 'record')}"
        return Finding(Outcome.UNMET, f"It ended with exit code {code} {case.after}, but {said}; at least {wanted:,} were expected.")
    return Finding(Outcome.SUCCEEDED, f"It succeeded {case.after}{thread_note(case)}.")


def end_unknown(_case: Case) -> Finding:
    """No evidence of an end at all."""
    return Finding(Outcome.LOST, "How it ended cannot be known: there is no record of its end.")
