"""The cycle in a stack: found under noise, the same whoever looks, and what does not change from turn to turn."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.cycle import (
    FEWEST_LEVELS,
    LONGEST_PERIOD,
    Argument,
    Change,
    Level,
    change_of,
    find_cycle,
    find_cycle_in_frames,
    is_runaway,
)
from supervisor.core.evidence import Cycle, CycleKind, Frame

MAIN = Frame("<module>", "job.py", 90)


def frame(name: str, line: int = 0) -> Frame:
    return Frame(name, "job.py", line or 10 * (ord(name[-1]) - 96))


def stack(turn: str, levels: int) -> list[Frame]:
    """Innermost first: *turn* names functions in call order, repeated over *levels* levels on top of the module."""
    outermost_first = [frame(name) for name, _ in zip(itertools.cycle(turn), range(levels), strict=False)]
    return [*reversed(outermost_first), MAIN]


def object_(name: str, identity: int = 1000, kind: str = "User") -> Argument:
    return Argument(name, kind, identity)


def int_(name: str, number: int) -> Argument:
    return Argument(name, "int", 5_000_000 + number, number=number)


def test_a_function_that_calls_itself_is_named_with_its_line() -> None:
    assert find_cycle_in_frames(stack("a", 400), depth=1000) == Cycle((frame("a"),), 1000, CycleKind.FRAMES)


def test_two_functions_are_named_in_call_order() -> None:
    cycle = find_cycle_in_frames(stack("ab", 401), 999)
    assert cycle == Cycle((frame("a"), frame("b")), 999)


def test_the_turn_keeps_the_order_of_calls_and_starts_at_the_smallest_frame() -> None:
    cycle = find_cycle_in_frames(stack("cba", 400), 400)
    assert cycle is not None
    assert [f.function for f in cycle.frames] == ["a", "c", "b"]


@pytest.mark.parametrize("foreign", [0, 1, 16])
def test_frames_on_top_that_the_last_turn_was_just_calling_do_not_hide_it(foreign: int) -> None:
    on_top = [Frame(f"helper{i}", "lib.py", i) for i in range(foreign)]
    cycle = find_cycle_in_frames(on_top + stack("ab", 300))
    assert cycle is not None
    assert cycle.frames == (frame("a"), frame("b"))
    assert cycle.depth == 301 + foreign


def test_a_healthy_stack_has_no_cycle() -> None:
    assert find_cycle_in_frames([Frame(f"f{i}", "app.py", i) for i in range(80)]) is None
    assert find_cycle_in_frames([]) is None
    assert find_cycle_in_frames(stack("a", FEWEST_LEVELS - 1)) is None  # too few levels
    assert find_cycle_in_frames(stack("abcdef", 13)) is None  # too few turns
    assert find_cycle_in_frames(stack("a", 20) + [Frame(f"f{i}", "app.py", i) for i in range(60)]) is None  # not half of it


def test_a_traceback_and_a_dump_of_the_same_stack_have_the_same_cycle() -> None:
    frames = stack("abc", 200)
    assert find_cycle_in_frames(frames) == find_cycle_in_frames(frames[::-1], innermost_first=False)


def test_a_report_that_was_cut_in_its_middle_still_shows_the_cycle() -> None:
    frames = stack("ab", 2000)[::-1]
    cut = frames[:75] + frames[-76:]  # the seam falls within a turn
    assert find_cycle_in_frames(cut, len(frames), innermost_first=False) == Cycle((frame("a"), frame("b")), 2001)


def test_a_function_that_calls_itself_from_several_lines_is_one_function() -> None:
    lines = random.Random(7).choices([5, 6, 7], weights=[6, 2, 2], k=300)
    cycle = find_cycle_in_frames([frame("a", line) for line in lines])
    assert cycle == Cycle((frame("a", 5),), 300)


def test_functions_that_call_each_other_in_no_order_are_counted() -> None:
    names = random.Random(3).choices("ab", weights=[6, 4], k=399)
    cycle = find_cycle_in_frames([*[frame(name) for name in names], MAIN], 1000)
    assert cycle is not None
    assert cycle.frames == (frame("a"), frame("b"))
    assert cycle.notes == (f"no fixed order of calls: a {names.count('a')}, b {names.count('b')} of 400 levels",)


def test_a_recursion_without_any_repetition_is_searched_in_bounded_time() -> None:
    rng = random.Random(1)
    frames = [Frame(rng.choice("abcdefghijklmnopqrstuvwxyz") * 2, "job.py", rng.randrange(100)) for _ in range(10_000)]
    assert find_cycle_in_frames(frames) is None


def test_functions_of_one_name_and_line_are_told_apart_by_their_code() -> None:
    same = frame("a")
    levels = [Level(same, code=1 + i % 2) for i in range(100)]
    cycle = find_cycle(levels)
    assert cycle is not None
    assert cycle.frames == (same, same)


# ---------------------------------------------------------------- what does not change


def level(name: str, *arguments: Argument) -> Level:
    return Level(frame(name), code=ord(name[-1]), arguments=arguments)


def test_an_argument_that_stays_the_same_object_is_named() -> None:
    cycle = find_cycle([level("depth_a", object_("user"))] * 100)
    assert cycle is not None
    assert cycle.notes == ("no argument of depth_a changes from turn to turn", "depth_a(user): user stays the same object")


def test_a_countdown_that_passed_zero_is_named_with_its_step() -> None:
    cycle = find_cycle([level("f", int_("n", i - 987), object_("acc", kind="list")) for i in range(100)])
    assert cycle is not None
    assert cycle.notes == (
        "f(n, acc): n steps by -1 each turn, already below 0",
        "f(n, acc): acc stays the same object",
    )


def test_a_list_that_grows_is_named_with_its_length_and_never_with_its_content() -> None:
    levels = [level("f", Argument("seen", "list", 100 + i, length=80 - i), Argument("key", "str", 7, length=12)) for i in range(60)]
    cycle = find_cycle(levels)
    assert cycle is not None
    assert cycle.notes == ("f(seen, key): seen (list) gets 1 longer each turn, now 80", "f(seen, key): key stays the same object")


def test_each_function_of_the_turn_has_its_own_notes_in_call_order() -> None:
    levels = [level("a", int_("n", 2 * i)) if i % 2 else level("b", object_("node")) for i in range(100)]
    cycle = find_cycle(levels)
    assert cycle is not None
    assert [f.function for f in cycle.frames] == ["a", "b"]
    assert cycle.notes == ("a(n): n steps by -4 each turn", "b(node): node stays the same object")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([object_("x")] * 3, (Change.SAME_OBJECT, 0)),
        ([object_("x", 1), object_("x", 2), object_("x", 1)], (Change.OTHER, 0)),
        ([Argument("x", "int", i, 1000) for i in range(3)], (Change.EQUAL, 0)),  # equal, but another object each time
        ([int_("x", n) for n in (3, 6, 9)], (Change.STEP, 3)),
        ([int_("x", n) for n in (3, 6, 10)], (Change.OTHER, 0)),
        ([Argument("x", "float", i, 0.1 * i) for i in range(9)], (Change.STEP, pytest.approx(0.1))),
        ([Argument("x", "float", i, float("nan")) for i in range(3)], (Change.OTHER, 0)),
        ([Argument("x", "float", i, float("inf")) for i in range(3)], (Change.OTHER, 0)),
        ([Argument("x", "list", i, length=9 - i) for i in range(3)], (Change.LENGTH_STEP, -1)),
        ([Argument("x", "str", i, length=5) for i in range(3)], (Change.OTHER, 0)),  # as long, but who knows
        ([Argument("x", "str", 1), Argument("x", "int", 2), Argument("x", "str", 3)], (Change.TYPE, 0)),
    ],
)
def test_how_an_argument_changes(arguments: list[Argument], expected: tuple[Change, float]) -> None:
    assert change_of(arguments) == expected


def test_a_runaway_stands_near_its_limit_or_has_very_many_turns() -> None:
    cycle = find_cycle_in_frames(stack("ab", 300), 960)
    assert is_runaway(cycle, 960, 1000)
    assert not is_runaway(cycle, 500, 1000)
    assert is_runaway(cycle, 960, None)
    assert not is_runaway(cycle, 150, None)
    assert not is_runaway(None, 10_000, 1000)


# ---------------------------------------------------------------- properties

turns = st.lists(st.integers(0, 30), min_size=1, max_size=LONGEST_PERIOD // 2, unique=True)


def frames_of(turn: list[int], levels: int, shift: int) -> list[Frame]:
    """*levels* frames innermost first, the innermost at position *shift* of the turn."""
    return [Frame(f"f{turn[(shift - i) % len(turn)]}", "job.py", 1) for i in range(levels)]


@given(turns, st.integers(0, 100), st.integers(0, 16), st.integers(6, 12))
def test_the_same_bug_has_the_same_cycle_at_whichever_level_it_is_seen(turn: list[int], shift: int, foreign: int, repeats: int) -> None:
    levels = max(repeats * len(turn), 40)
    here = find_cycle_in_frames(frames_of(turn, levels, 0))
    noise = [Frame(f"helper{i}", "lib.py", i) for i in range(foreign)]
    there = find_cycle_in_frames(noise + frames_of(turn, levels, shift))
    assert here is not None
    assert there is not None
    assert here.frames == there.frames
    assert sorted(f.function for f in here.frames) == sorted(f"f{i}" for i in turn)


@given(turns, st.integers(0, 100))
def test_the_order_of_calls_is_kept(turn: list[int], shift: int) -> None:
    cycle = find_cycle_in_frames(frames_of(turn, 6 * len(turn) + 12, shift))
    assert cycle is not None
    names = [f"f{i}" for i in turn]
    start = names.index(cycle.frames[0].function)
    assert [f.function for f in cycle.frames] == names[start:] + names[:start]
    assert cycle.frames[0] == min(cycle.frames, key=lambda f: (f.file, f.function, f.line))


@given(st.lists(st.builds(Frame, st.sampled_from("abcd"), st.just("x.py"), st.integers(0, 3)), max_size=120))
def test_any_stack_gives_a_cycle_made_of_its_own_frames_or_none(frames: list[Frame]) -> None:
    cycle = find_cycle_in_frames(frames)
    if cycle is not None:
        assert len(frames) >= FEWEST_LEVELS
        assert set(cycle.frames) <= set(frames)
        assert cycle.depth == len(frames)


@given(
    st.lists(
        st.builds(Argument, st.just("x"), st.sampled_from(["int", "float"]), st.integers(0, 5), st.floats() | st.integers()), min_size=1
    )
)
def test_any_history_of_an_argument_has_one_description(history: list[Argument]) -> None:
    change, step = change_of(history)
    assert (step != 0) == (change in (Change.STEP, Change.LENGTH_STEP))
