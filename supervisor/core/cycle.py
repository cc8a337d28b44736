"""Frames → the cycle: which functions call each other without end, and what does not change from turn to turn.

One search for every source of frames: stacks read from outside (with arguments), tracebacks and faulthandler dumps (without). So
the same bug has the same cycle, at whichever level and by whomever it was seen. Whether a cycle is the *cause* of a death is for ``outcome``.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from enum import StrEnum
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from supervisor.core.evidence import Cycle, CycleKind, Frame
from supervisor.core.prose import is_installed, is_own, is_packaged, own_frames

WINDOW = 400  # innermost frames that are looked at: 0.2 ms, and six turns of the longest period
LONGEST_PERIOD = 64
MOST_FOREIGN = 16  # frames on top of the cycle: what its last turn happened to be calling
FEWEST_LEVELS = 12
FEWEST_TURNS = 3
LEVELS_COMPARED = 8
MOST_NOTES = 16
_SECRET = re.compile(r"pass|pwd|secret|token|key|auth|cred|cookie|session|private|dsn|signature|pin\b", re.IGNORECASE)
_MOST_FREQUENT = 8  # functions in a recursion without a fixed turn
_SMALLEST_SHARE = 20  # one in so many levels at least


class Argument(Struct, frozen=True):
    """What is known of one argument: its type, which object it is, its length, and of plain numbers (int, float) the number, to see how it steps."""

    name: str
    type: str
    identity: int
    number: float | None = None
    length: int | None = None


class Level(Struct, frozen=True):
    """A frame with what a look from outside adds: ``code`` tells functions of the same name apart, 0 if it is not known."""

    frame: Frame
    code: int = 0
    arguments: tuple[Argument, ...] = ()


class Change(StrEnum):
    """How an argument differs from one level to the next."""

    SAME_OBJECT = "same_object"
    EQUAL = "equal"
    STEP = "step"
    LENGTH_STEP = "length_step"
    TYPE = "type"
    OTHER = "other"


class _Turn(Struct, frozen=True):
    """Where the cycle lies in the window: from ``start`` on, each frame equals the one ``period`` further out, ``levels`` frames long."""

    start: int
    period: int
    levels: int


def find_cycle_in_frames(frames: Sequence[Frame], depth: int | None = None, *, innermost_first: bool = True) -> Cycle | None:
    """``find_cycle`` for plain frames: a traceback (outermost first: say so), a faulthandler dump, a guard's report.

    *frames* may be cut in the middle or at its outer end; *depth* is then the true number.
    """
    ordered = frames if innermost_first else frames[::-1]
    return find_cycle([Level(frame) for frame in ordered[:WINDOW]], len(frames) if depth is None else depth)


def find_cycle(levels: Sequence[Level], depth: int | None = None, outer: Sequence[Frame] = ()) -> Cycle | None:
    """The cycle in a stack, innermost level first, or None if nothing repeats at least 3 times over at least
    12 levels and half of what is looked at.

    Frames of the result are one turn, outermost call first, starting at the smallest (file, function, line) so that it does not matter where in
    the turn the look fell. *depth* is how deep the stack really is, if longer than *levels*; *outer* are its outermost frames then, innermost first.
    """
    window = levels[:WINDOW]
    true_depth = len(levels) if depth is None else max(depth, len(levels))
    turn = _find_turn([(level.code, level.frame) for level in window]) or _find_turn([_function(level) for level in window])
    cycle = _regular(window, turn, true_depth) if turn is not None else _irregular(window, true_depth)
    if cycle is None or any(is_own(frame) for frame in cycle.frames):
        return cycle
    callers = [level.frame for level in levels[turn.start if turn is not None else 0 :]] + list(outer)
    return replace(cycle, origin=_origin(cycle, callers, is_whole=bool(outer) or true_depth <= len(levels)))


def _origin(cycle: Cycle, callers: Sequence[Frame], *, is_whole: bool) -> Frame | None:
    """The innermost of *callers* (innermost first) that is the application's own. Where it is installed itself and all of the stack *is_whole* seen, the
    innermost that is a package's, if none of the cycle is: a cycle of a package's own functions has its name from them."""
    own = own_frames(callers)[:1]
    if any(is_own(frame) for frame in own) or (is_whole and is_installed(callers) and not any(map(is_packaged, cycle.frames))):
        return own[0]
    return None


def is_runaway(cycle: Cycle | None, depth: int, limit: int | None) -> bool:
    """True if *cycle* looks like what a stack is full of, not like a healthy recursion: it stands at least at nine tenths of *limit*
    (Python's own or the job's), or has at least 100 turns where no limit is known."""
    if cycle is None:
        return False
    if limit is not None and limit > 0:
        return depth * 10 >= limit * 9
    return depth >= 100 * len(cycle.frames)


# ---------------------------------------------------------------- the search


def _function(level: Level) -> Hashable:
    return level.code, level.frame.file, level.frame.function


def _find_turn(keys: Sequence[Hashable]) -> _Turn | None:
    """The smallest period under the fewest foreign frames."""
    numbers: dict[Hashable, int] = {}
    window = [numbers.setdefault(key, len(numbers)) for key in keys]  # small integers compare fastest
    for start in range(min(MOST_FOREIGN, max(0, len(window) - FEWEST_LEVELS)) + 1):
        for period in range(1, min(LONGEST_PERIOD, (len(window) - start) // FEWEST_TURNS) + 1):
            if window[start] == window[start + period] and _holds(window, start, period):
                return _Turn(start, period, _run(window, start, period) + period)
    return None


def _run(window: Sequence[int], start: int, period: int) -> int:
    """How many frames from *start* on equal the frame one period further out."""
    run = 0
    for inner, outer in zip(window[start:], window[start + period :], strict=False):
        if inner != outer:
            break
        run += 1
    return run


def _holds(window: Sequence[int], start: int, period: int) -> bool:
    run = _run(window, start, period)
    if run < (FEWEST_TURNS - 1) * period or run + period < FEWEST_LEVELS:
        return False
    # Half the window in all, not in one piece: a report that was cut in its middle has a seam there.
    matches = sum(inner == outer for inner, outer in zip(window[start:], window[start + period :], strict=False))
    return 2 * (matches + period) >= len(window)


def _regular(window: Sequence[Level], turn: _Turn, depth: int) -> Cycle:
    columns = [_column(window, turn, i) for i in range(turn.period)]
    columns = _canonical(columns[::-1])
    notes = [note for column in columns for note in _notes(column)]
    values = [told for column in columns for told in _values(column[0])][:MOST_NOTES]
    return Cycle(tuple(_typical(column) for column in columns), depth, CycleKind.FRAMES, _conclude(columns, notes), values=tuple(values))


def _column(window: Sequence[Level], turn: _Turn, i: int) -> list[Level]:
    """The levels at position *i* of successive turns, innermost first."""
    return list(window[turn.start + i : turn.start + turn.levels : turn.period])


def _typical(column: Sequence[Level]) -> Frame:
    """The frame of a position; where only the functions repeat, the line it stands at most often."""
    counts = Counter(level.frame for level in column)
    return min(counts, key=lambda frame: (-counts[frame], _order(frame)))


def _order(frame: Frame) -> tuple[str, str, int]:
    return frame.file, frame.function, frame.line


def _canonical(columns: list[list[Level]]) -> list[list[Level]]:
    """The rotation that starts at the smallest frame; call order is kept."""
    keys = [_order(_typical(column)) for column in columns]
    first = min(range(len(keys)), key=lambda i: keys[i:] + keys[:i])
    return columns[first:] + columns[:first]


def _irregular(window: Sequence[Level], depth: int) -> Cycle | None:
    """Functions that call each other in no fixed order (a random walk, a visitor): the most frequent ones, if they fill half the window."""
    by_function: dict[Hashable, list[Level]] = defaultdict(list)
    for level in window:
        by_function[_function(level)].append(level)
    fewest = max(FEWEST_TURNS, len(window) // _SMALLEST_SHARE)
    often = sorted((found for found in by_function.values() if len(found) >= fewest), key=len, reverse=True)[:_MOST_FREQUENT]
    covered = sum(len(found) for found in often)
    if covered < FEWEST_LEVELS or 2 * covered < len(window):
        return None
    often.sort(key=lambda found: _order(_typical(found)))
    counts = ", ".join(f"{found[0].frame.function} {len(found)}" for found in often)
    notes = [f"no fixed order of calls: {counts} of {len(window)} levels"]
    notes += [note for found in often for note in _notes(found)]
    return Cycle(tuple(_typical(found) for found in often), depth, CycleKind.FRAMES, tuple(notes[:MOST_NOTES]))


# ---------------------------------------------------------------- the missing exit condition


def change_of(arguments: Sequence[Argument]) -> tuple[Change, float]:
    """How one argument differs over successive levels, outermost first, and by how much a turn where it is a step (else 0)."""
    if len({argument.identity for argument in arguments}) == 1:
        return Change.SAME_OBJECT, 0
    if len({argument.type for argument in arguments}) > 1:
        return Change.TYPE, 0
    step = _step([argument.number for argument in arguments])
    if step is not None:
        return (Change.STEP if step else Change.EQUAL), step
    step = _step([argument.length for argument in arguments])
    if step:
        return Change.LENGTH_STEP, step
    return Change.OTHER, 0


def _step(numbers: Sequence[float | None]) -> float | None:
    """The constant difference of successive numbers, None if there is none. Floats may be off by rounding."""
    known = [number for number in numbers if number is not None]
    if len(known) != len(numbers):
        return None
    steps = [after - before for before, after in pairwise(known)]
    slack = 0.0 if all(isinstance(step, int) for step in steps) else 1e-9 * max(abs(number) for number in known)
    if any(not abs(step - steps[0]) <= slack for step in steps):  # "not <=", so that a NaN is no step
        return None
    return steps[0]


def _notes(column: Sequence[Level]) -> list[str]:
    """A line per argument of the function at one position of the cycle; *column* is innermost first."""
    compared = column[: LEVELS_COMPARED + 1]
    inner = compared[0]
    if len(compared) < FEWEST_TURNS or not inner.arguments:
        return []
    head = f"{inner.frame.function}({', '.join(argument.name for argument in inner.arguments)})"
    return [f"{head}: {note}" for argument in inner.arguments if (note := _note(_history(compared, argument.name)))]


def _values(level: Level) -> list[str]:
    """The plain numbers among the arguments of the innermost level; kept back unless the job's config lets values out."""
    return [
        f"{level.frame.function}: {argument.name} = {'[redacted]' if _SECRET.search(argument.name) else argument.number}"
        for argument in level.arguments
        if argument.number is not None
    ]


def _history(column: Sequence[Level], name: str) -> list[Argument]:
    """The argument *name* at successive levels, outermost first; levels that do not have it (deleted, not readable) are left out."""
    return [argument for level in reversed(column) for argument in level.arguments if argument.name == name]


def _note(history: Sequence[Argument]) -> str | None:
    if len(history) < FEWEST_TURNS:
        return None
    change, step = change_of(history)
    return change_in_words(history[-1], change, step)


def change_in_words(now: Argument, change: Change, step: float, turn: str = "turn") -> str:
    """A sentence about an argument that is *now* and differs from *turn* to turn like this."""
    match change:
        case Change.SAME_OBJECT:
            return f"{now.name} stays {_what(now)}"
        case Change.EQUAL:
            return f"{now.name} stays equal"
        case Change.STEP if _is_whole(now):
            return f"{now.name} steps by {step} each {turn}{_past_zero(now, step)}"
        case Change.STEP:
            return f"{now.name} ({now.type}) steps by {step:.6g} each {turn}"
        case Change.LENGTH_STEP:
            return f"{now.name} ({now.type}) gets {abs(step):.0f} {'longer' if step > 0 else 'shorter'} each {turn}, now {now.length}"
        case Change.TYPE:
            return f"{now.name} changes its type from {turn} to {turn}"
        case Change.OTHER:
            return f"{now.name} ({now.type}) changes from {turn} to {turn}"


def _is_whole(argument: Argument) -> bool:
    return argument.type == "int" and isinstance(argument.number, int)


def _what(argument: Argument) -> str:
    if argument.type == "NoneType":
        return "None"
    return f"the same {argument.type}" if _is_whole(argument) else "the same object"


def _past_zero(now: Argument, step: float) -> str:
    """A countdown that went through zero is the commonest missing exit condition of all: say so."""
    return ", already below 0" if step < 0 and (now.number or 0) < 0 else ""


def _conclude(columns: Sequence[Sequence[Level]], notes: Sequence[str]) -> tuple[str, ...]:
    """Put in front what follows from the notes together: if no argument changes, no condition on them can ever end it."""
    arguments = sum(len(column[0].arguments) for column in columns)
    if arguments and len(notes) == arguments and all(" stays " in note for note in notes):
        who = " and ".join(dict.fromkeys(column[0].frame.function for column in columns))
        return (f"no argument of {who} changes from turn to turn", *notes)[:MOST_NOTES]
    return tuple(notes[:MOST_NOTES])
