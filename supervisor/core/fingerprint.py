"""One name for one bug: what is left of the evidence when everything is taken away that differs from one occurrence to the next.

A runaway recursion is named by its cycle alone, so it has the same name as a RecursionError, a native crash and a full memory. Line
numbers, directories, addresses and library frames are left out: an edit further up, another host, record, depth or Python is not another bug. (Of a statement that
fills several lines, some Pythons blame the first and some the last: there the name may change with the Python.)

What names the other ends, and why no more than that:

- an exception: its type, the application's own functions on the way, and the text of the innermost of its lines. The text tells two lines of
  one function apart and moves with the line; a message would not do, for it holds the record's data and differs between Pythons. The same of what it
  came from: the first of its causes that the application's own code met, each member of a group, what ended the worker of a pool.
- a hang (limit on time or progress, and nothing moved): the innermost function of its own, for two locks are two bugs. A hanging stack stands still, so
  it is the same each time.
- memory, CPU time, a busy loop: the outcome alone. Where such a job is when a limit strikes is chance; a name that changes from night to night would
  open an incident each night.
"""

from collections.abc import Iterable, Sequence

from supervisor.core.evidence import Cycle, ExceptionFacts, Frame
from supervisor.core.model import Outcome
from supervisor.core.prose import base, is_installed, is_own, own_frames

# These are named by themselves: the code or signal they ended with is our doing or chance.
NAMED_BY_PLACE = frozenset({Outcome.TIME, Outcome.STALLED})  # if they hung
# Frames of their own up to Python 3.11, and a part of the function that called them from 3.12 on.
COMPREHENSIONS = frozenset({"<listcomp>", "<dictcomp>", "<setcomp>"})
NAMED_BY_OUTCOME = frozenset(Outcome) - {Outcome.FAILED, Outcome.EXCEPTION, Outcome.CRASHED, Outcome.SIGNALLED}


def fingerprint(
    job: str,
    outcome: Outcome,
    *,
    cycle: Cycle | None = None,
    exception: ExceptionFacts | None = None,
    frames: Iterable[Frame] = (),
    hangs_in: Sequence[Frame] = (),
    exit_code: int | None = None,
    signal: int | None = None,
) -> str:
    """Twelve hexadecimal digits. *frames* are those of a native crash, in any order that is the same each time; *hangs_in* is the stack of a
    thread that stood still, innermost first."""
    return _digest(job, *_parts(outcome, cycle, exception, tuple(frames), hangs_in, exit_code, signal))


def of_words(*words: str) -> str:
    """The name of a problem that is no end of a job and has no evidence but its own words."""
    return _digest(*words)


def _parts(
    outcome: Outcome,
    cycle: Cycle | None,
    exception: ExceptionFacts | None,
    frames: tuple[Frame, ...],
    hangs_in: Sequence[Frame],
    exit_code: int | None,
    signal: int | None,
) -> list[str]:
    if outcome is Outcome.RECURSION and cycle is not None and cycle.frames:
        return ["recursion", *_members(cycle)]
    if outcome in NAMED_BY_PLACE and (is_installed(hangs_in) or any(is_own(frame) for frame in hangs_in)):
        return [outcome.value, f"in {_names(own_frames(hangs_in))[0]}"]
    if outcome in NAMED_BY_OUTCOME:
        return [outcome.value]
    if outcome is Outcome.EXCEPTION and exception is not None:
        return [outcome.value, *_of_exception(exception), *_origins(exception)]
    return [outcome.value, f"code {exit_code}", f"signal {signal}", *_functions(frames)]


def _of_exception(error: ExceptionFacts) -> list[str]:
    return [error.type, *_functions(error.frames), *([f"at {error.at}"] if error.at else [])]


def _origins(error: ExceptionFacts) -> list[str]:
    """What an exception came from, if one wrapper, pool or group has several bugs behind it: in an order of its own, for which task failed first is chance."""
    found = {"\n".join(["from", *_of_exception(one)]) for one in error.origins}
    if error.root is not None and error.root.where == "child":
        found.add("\n".join(["from a child", *_of_exception(error.root)]))
    return sorted(found)


def _members(cycle: Cycle) -> list[str]:
    """The application's own functions of the cycle: what the library calls in between differs from release to release. A cycle within
    the library is told apart by who called into it, one within an installed application by its own functions."""
    own = [frame for frame in cycle.frames if is_own(frame)] or (cycle.origin and [cycle.origin]) or own_frames(cycle.frames)
    return sorted(_names(own))


def _functions(frames: tuple[Frame, ...]) -> list[str]:
    """The application's own functions, each once: how often a healthy recursion turned is no part of the bug."""
    return _names(own_frames(frames))


def _names(frames: Sequence[Frame]) -> list[str]:
    """The functions of *frames*, each once, by file and bare name: a traceback says "walk" where a look from outside says "Tree.walk"."""
    named = [(base(frame.file), frame.function.rpartition(".")[2]) for frame in frames]
    whole = [(file, name) for file, name in named if name not in COMPREHENSIONS] or named
    return list(dict.fromkeys(f"{file}:{name}" for file, name in whole))


def _digest(*parts: str) -> str:
    from hashlib import blake2b  # 2 ms that a clean end has no use for

    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
