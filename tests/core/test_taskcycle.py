"""Tasks that start tasks: what is a recursion, what is only a crowd, and what both are called."""

import pytest

from supervisor.core.cycle import Argument
from supervisor.core.evidence import Cycle, CycleKind, Frame
from supervisor.core.taskcycle import Pair, Start, find_task_cycle

MAIN, VISIT, FOLLOW, STORE = (
    Frame(name, "/srv/job.py", line) for name, line in (("main", 1), ("visit", 10), ("follow", 20), ("store", 30))
)


def test_a_function_whose_tasks_start_its_own_kind_is_named_with_the_line_that_starts_them():
    found = find_task_cycle([VISIT, MAIN], [40_000, 1], [Start(0, 12, 0, 60), Start(0, 14, 0, 4), Start(1, 3, 0, 1)])
    assert found == Cycle(
        (Frame("visit", "/srv/job.py", 12),),
        40_000,
        CycleKind.TASKS,
        ("40,000 tasks of visit waited, started by tasks of the cycle itself",),
    )


def test_two_that_take_turns_are_one_cycle_that_begins_at_the_smaller_name():
    found = find_task_cycle([VISIT, FOLLOW], [900, 400], [Start(0, 12, 1, 5), Start(1, 22, 0, 9)])
    assert found is not None
    assert [frame.function for frame in found.frames] == ["follow", "visit"]
    assert [frame.line for frame in found.frames] == [22, 12]
    assert found.depth == 1300


@pytest.mark.parametrize(
    ("waiting", "starts"),
    [
        ([1, 50_000], [Start(0, 3, 1, 2000)]),  # a fan-out: somebody else starts them all
        ([1, 50_000, 50_000], [Start(0, 3, 1, 9), Start(1, 12, 2, 9)]),  # a pipeline: each stage starts the next, none itself
        ([1, 999], [Start(1, 12, 1, 64)]),  # a heartbeat that starts its successor: few of them wait
        ([1, 1500, 90_000], [Start(0, 3, 2, 64), Start(1, 12, 1, 9)]),  # a retry among very many that nobody repeats
        ([1, 50_000], []),  # nobody was seen to start anything
    ],
)
def test_a_crowd_that_does_not_start_itself_is_no_recursion(waiting, starts):
    assert find_task_cycle([MAIN, VISIT, STORE][: len(waiting)], waiting, starts) is None


def test_what_a_task_hands_on_unchanged_is_told_as_of_any_other_recursion():
    graph = Argument("graph", "dict", 7, length=3)
    pairs = [
        Pair(0, (Argument("user", "int", 100 + n, number=n), graph), 0, (Argument("user", "int", 101 + n, number=n + 1), graph))
        for n in range(5)
    ]
    found = find_task_cycle([VISIT], [5000], [Start(0, 12, 0, 64)], pairs)
    assert found is not None
    assert found.notes[1:] == ("visit → visit: user steps by 1 each task", "visit → visit: graph stays the same object")
