"""Evidence → verdict: why an attempt ended, in the order in which the kinds of evidence can be trusted.

1. our own kill, refined: the limit that struck may only be where a runaway recursion (or a lost worker) came to light;
2. it never started; 3. we asked it to stop; 4. the guard refused to go on;
5. the signal it died of, with the kernel's counts and the crash report; 6. the exception the guard wrote down; 7. its own exit code.

Words in the output, exit codes like 137 and names never make a verdict. What follows from it is decided in ``restart``.
"""

from msgspec.structs import replace

from supervisor.core.evidence import Cycle, CycleKind, Evidence, Frame, Pace, Verdict
from supervisor.core.fingerprint import fingerprint
from supervisor.core.jobs import Expect, Limits
from supervisor.core.model import Outcome
from supervisor.core.prose import clean, counted
from supervisor.core.verdict.case import Case, Rule
from supervisor.core.verdict.ends import (
    by_exception,
    by_exit_code,
    end_unknown,
    memory_error,
    out_of_processes,
    recursion_error,
    worker_lost,
)
from supervisor.core.verdict.facts import all_facts, cycle_facts
from supervisor.core.verdict.kills import asked_to_stop, never_started, own_kill, refused
from supervisor.core.verdict.phrases import stacks_of
from supervisor.core.verdict.signals import by_signal

RULES: tuple[Rule, ...] = (
    own_kill,
    never_started,
    asked_to_stop,
    refused,
    by_signal,
    recursion_error,
    memory_error,
    worker_lost,
    out_of_processes,
    by_exception,
    by_exit_code,
    end_unknown,
)


def judge(job_limits: Limits, expect: Expect, evidence: Evidence) -> Verdict:
    """The verdict over one attempt, without its fingerprint (see ``fingerprint_of``)."""
    case = Case(job_limits, expect, evidence)
    finding = next(found for rule in RULES if (found := rule(case)) is not None)
    return Verdict(
        outcome=finding.outcome,
        summary=clean(finding.sentence),
        limit=finding.limit,
        evidence=tuple(clean(line) for line in [*all_facts(case), *(cycle_facts(case) if finding.outcome is Outcome.RECURSION else ())]),
        cycle=_measured(case, case.cycle or case.hidden_cycle) if finding.outcome is Outcome.RECURSION else None,
        exception=evidence.words.exception,
        stacks=stacks_of(evidence),
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
    if evidence.study is None or evidence.study.pace is not Pace.HANGING or evidence.study.looks < 2 or evidence.look is None:
        return ()
    return next((stack.frames for stack in evidence.look.stacks if stack.frames), ())
