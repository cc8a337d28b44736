"""Rules of verdict, 1 to 4: our own doing. A limit that struck may only be where a runaway recursion, or a lost worker, came to light."""

from supervisor.core.model import LimitName, Outcome
from supervisor.core.prose import base, counted
from supervisor.core.verdict.case import Case, Finding
from supervisor.core.verdict.phrases import depth_words, how_it_ended, limit_sentence, lost_workers_words, runaway

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


def own_kill(case: Case) -> Finding | None:
    """We killed it: for a limit, or at the end of a stop."""
    reason = case.evidence.exit.killed_for
    if reason is None:
        return None
    if reason not in OWN_REASONS:
        return Finding(Outcome.STOPPED, f"It was asked to stop, did not, and was killed {case.after}.")
    limit = LimitName(reason)
    return refined(case, limit) or Finding(OUTCOME_OF_LIMIT[limit], limit_sentence(case, limit), limit)


def refined(case: Case, limit: LimitName) -> Finding | None:
    """The cause behind the limit that struck."""
    if case.overrun is not None and limit is not LimitName.RECURSION:
        end = f"ended in RecursionError, and was still busy with its traceback at the limit on {limit.value.replace('_soft', '')}"
        return runaway(case, f"{depth_words(case)}, {end}; it was killed {case.after}", limit)
    if limit is LimitName.RECURSION or case.runs_away:
        end = "" if limit is LimitName.RECURSION else f"; it came to light at the limit on {limit.value.replace('_soft', '')}"
        return runaway(case, f"{depth_words(case)}{end}; it was killed {case.after}", limit)
    if limit in (LimitName.TIME, LimitName.CPU, LimitName.STALL) and case.swallows_memory_errors:
        caught = case.evidence.words.swallowed_memory
        count = counted(caught, "MemoryError") if caught else "MemoryErrors (seen from outside)"
        return Finding(Outcome.MEMORY, f"It caught {count} of its own and went on without memory; it was killed {case.after}.", limit)
    if limit in (LimitName.TIME, LimitName.STALL) and case.lost_workers:
        struck = LimitName.MEMORY if case.evidence.exit.oom_kills else limit
        return Finding(Outcome.WORKER_LOST, f"{lost_workers_words(case)}, and the rest never ended; it was killed {case.after}.", struck)
    return None


def never_started(case: Case) -> Finding | None:
    """No process ever ran its command."""
    error = case.evidence.exit.launch_error
    return None if error is None else Finding(Outcome.LAUNCH_FAILED, f"It could not be started: {error}.")


def asked_to_stop(case: Case) -> Finding | None:
    """It ended after we had asked it to."""
    if not case.evidence.exit.asked_to_stop:
        return None
    return Finding(Outcome.STOPPED, f"It was asked to stop and ended {case.after} ({how_it_ended(case)}).")


def refused(case: Case) -> Finding | None:
    """The guard refused to start a script that had started itself too often."""
    lineage = case.evidence.words.lineage
    if lineage is None:
        return None
    script, levels = lineage
    sentence = f"Runaway recursion: {base(script)} started itself {levels} levels deep, and the guard refused to go on, {case.after}."
    return Finding(Outcome.RECURSION, sentence, LimitName.PROCESSES)
