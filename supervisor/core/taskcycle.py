"""Tasks that start tasks → the cycle: which coroutine functions start each other without end.

Such a recursion has no stack: each task stands alone, and only memory ends it. It is known by three things together: a great many tasks wait, most of
them are of few functions, and it is tasks of these functions that start the next ones. Many tasks that somebody else starts (a fan-out) are no recursion.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from supervisor.core.cycle import MOST_NOTES, Argument, change_in_words, change_of
from supervisor.core.evidence import Cycle, CycleKind, Frame

FEWEST_TASKS = 1000
SMALLEST_SHARE = 0.5  # of all waiting tasks


class Start(Struct, frozen=True):
    """Tasks of function ``starter`` were seen to start tasks of function ``started`` at ``line`` so ``often``; functions by their place in a list."""

    starter: int
    line: int
    started: int
    often: int


class Pair(Struct, frozen=True):
    """The arguments of one task and of one that it started."""

    starter: int
    given: tuple[Argument, ...]
    started: int
    handed: tuple[Argument, ...]


def find_task_cycle(
    functions: Sequence[Frame], waiting: Sequence[int], starts: Sequence[Start], pairs: Sequence[Pair] = ()
) -> Cycle | None:
    """The functions whose tasks start each other, if they make up most of at least 1,000 waiting tasks; None if no such are there.

    *waiting* has the number of tasks for each function. ``depth`` of the cycle is how many tasks of it waited.
    """
    followers: dict[int, dict[int, int]] = {}
    for start in starts:
        found = followers.setdefault(start.starter, {})
        found[start.started] = found.get(start.started, 0) + start.often
    in_cycle = [i for i in range(len(functions)) if i in _reachable(followers, i)]
    circles = {
        frozenset(j for j in in_cycle if j == i or (j in _reachable(followers, i) and i in _reachable(followers, j))) for i in in_cycle
    }
    most = max(circles, key=lambda circle: (sum(waiting[i] for i in circle), sorted(circle)), default=None)
    if most is None:
        return None
    count = sum(waiting[i] for i in most)
    if count < FEWEST_TASKS or count < SMALLEST_SHARE * sum(waiting):
        return None
    order = sorted(most, key=lambda i: (functions[i].file, functions[i].function))
    turn = _turn(order, followers)
    frames = tuple(Frame(functions[i].function, functions[i].file, _line(i, starts, most) or functions[i].line) for i in turn)
    return Cycle(
        frames, count, CycleKind.TASKS, tuple([*_counts(functions, waiting, turn), *_arguments(functions, pairs, most)][:MOST_NOTES])
    )


def _reachable(followers: Mapping[int, Mapping[int, int]], start: int) -> set[int]:
    seen: set[int] = set()
    new = set(followers.get(start, ()))
    while new:
        seen |= new
        new = {after for one in new for after in followers.get(one, ())} - seen
    return seen


def _turn(order: Sequence[int], followers: Mapping[int, Mapping[int, int]]) -> list[int]:
    """The functions of the circle in the order in which they start each other, from the first by name; what no order reaches comes after."""
    turn = [order[0]]
    while True:
        after = followers.get(turn[-1], {})
        following = sorted((i for i in after if i in order and i not in turn), key=lambda i: -after[i])
        if not following:
            return [*turn, *(i for i in order if i not in turn)]
        turn.append(following[0])


def _line(function: int, starts: Sequence[Start], circle: frozenset[int]) -> int:
    """Where tasks of *function* start the next one most often, 0 if it is not known."""
    found = [start for start in starts if start.starter == function and start.started in circle and start.line]
    return max(found, key=lambda start: (start.often, -start.line)).line if found else 0


def _counts(functions: Sequence[Frame], waiting: Sequence[int], turn: Sequence[int]) -> list[str]:
    return [f"{waiting[i]:,} tasks of {functions[i].function} waited, started by tasks of the cycle itself" for i in turn]


def _arguments(functions: Sequence[Frame], pairs: Sequence[Pair], circle: frozenset[int]) -> list[str]:
    """What a task hands on to the one it starts, for arguments of the same name."""
    found: dict[tuple[int, int, str], list[tuple[Argument, Argument]]] = {}
    for pair in pairs:
        if pair.starter in circle and pair.started in circle:
            before = {argument.name: argument for argument in pair.given}
            for argument in pair.handed:
                if argument.name in before:
                    found.setdefault((pair.starter, pair.started, argument.name), []).append((before[argument.name], argument))
    return [
        f"{functions[starter].function} → {functions[started].function}: {words}"
        for (starter, started, _), steps in found.items()
        if (words := _change(steps))
    ]


def _change(steps: Sequence[tuple[Argument, Argument]]) -> str | None:
    changes = {change_of(step) for step in steps}
    if len(changes) != 1:
        now = steps[-1][1]
        return f"{now.name} ({now.type}) changes from task to task"
    change, step = changes.pop()
    return change_in_words(steps[-1][1], change, step, "task")
