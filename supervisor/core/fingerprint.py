"""One name for one bug: what is left of the evidence when everything is taken away that differs from one occurrence to the next.

A runaway recursion is named by its cycle alone, so it has the same name as a RecursionError, a native crash and a full memory. Lines
and numbers are left out: an edit further up, another record or another depth is not another bug.
"""

from collections.abc import Iterable

from supervisor.core.model import Cycle, ExceptionFacts, Frame, Outcome
from supervisor.core.prose import base, own_frames

# These are named by themselves: the code or signal they ended with is our doing or chance.
NAMED_BY_OUTCOME = frozenset(Outcome) - {Outcome.FAILED, Outcome.EXCEPTION, Outcome.CRASHED, Outcome.SIGNALLED}


def fingerprint(
    job: str,
    outcome: Outcome,
    *,
    cycle: Cycle | None = None,
    exception: ExceptionFacts | None = None,
    frames: Iterable[Frame] = (),
    exit_code: int | None = None,
    signal: int | None = None,
) -> str:
    """Twelve hexadecimal digits. *frames* are those of a native crash, in any order that is the same each time."""
    return _digest(job, *_parts(outcome, cycle, exception, tuple(frames), exit_code, signal))


def of_words(*words: str) -> str:
    """The name of a problem that is no end of a job and has no evidence but its own words."""
    return _digest(*words)


def _parts(
    outcome: Outcome,
    cycle: Cycle | None,
    exception: ExceptionFacts | None,
    frames: tuple[Frame, ...],
    exit_code: int | None,
    signal: int | None,
) -> list[str]:
    if outcome is Outcome.RECURSION and cycle is not None and cycle.frames:
        return ["recursion", *sorted({_function(frame) for frame in cycle.frames})]
    if outcome in NAMED_BY_OUTCOME:
        return [outcome.value]
    if outcome is Outcome.EXCEPTION and exception is not None:
        return [outcome.value, exception.type, *_functions(exception.frames)]
    return [outcome.value, f"code {exit_code}", f"signal {signal}", *_functions(frames)]


def _functions(frames: tuple[Frame, ...]) -> list[str]:
    """The application's own functions, each once: how often a healthy recursion turned is no part of the bug."""
    return list(dict.fromkeys(_function(frame) for frame in own_frames(frames)))


def _function(frame: Frame) -> str:
    """File and bare name: a traceback says "walk" where a look from outside says "Tree.walk"."""
    return f"{base(frame.file)}:{frame.function.rpartition('.')[2]}"


def _digest(*parts: str) -> str:
    from hashlib import blake2b  # 2 ms that a clean end has no use for

    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
