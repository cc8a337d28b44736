"""A live interpreter read from outside, in every CPython of this machine."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from pythons import Child, Python

from supervisor.cpython.reader import Depth, Interpreter, RawFrame
from supervisor.errors import GoneError, LayoutError, NotPythonError

Spawn = Callable[..., Child]
PATIENCE_S = 30.0


def attach(child: Child) -> Interpreter:
    return Interpreter.attach(child.pid)


def counted(depth: int, python: Python) -> set[int]:
    """What the interpreter may count: 3.11 counts a call through C in progress as a level of its own."""
    return {depth, depth + 1} if python.version < (3, 12) else {depth}


@pytest.mark.parametrize("levels", [0, 1, 37, 900])
def test_the_depth_is_what_the_job_counts_itself(python: Python, spawn: Spawn, levels: int) -> None:
    child = spawn(python.path, "eye_depth.py", levels)
    own = int(child.settled())
    interpreter = attach(child)
    depth = interpreter.depth()
    assert own == levels + 2
    assert depth.frames in counted(own, python)
    assert depth == Depth(depth.frames, limit=1000, recursion_error=False, thread=child.pid)
    assert interpreter.version == python.version[:2]
    interpreter.close()


def test_two_hundred_thousand_levels_under_a_raised_limit_are_counted_and_walked(python: Python, spawn: Spawn) -> None:
    child = spawn(python.path, "eye_cycle.py", "one", 200_000)
    assert child.settled() == "ready"
    interpreter = attach(child)
    assert interpreter.depth().frames >= 200_000
    (stack,) = interpreter.stacks(max_frames=400)
    assert len(stack.frames) == 400
    assert not stack.complete
    (stack,) = interpreter.stacks(max_frames=1_000_000)
    assert stack.complete
    assert len(stack.frames) in counted(stack.depth, python) | {stack.depth - 1}


def test_frames_have_function_file_and_line_innermost_first(python: Python, spawn: Spawn) -> None:
    child = spawn(python.path, "eye_depth.py", 5)
    child.settled()
    (stack,) = attach(child).stacks()
    assert [(frame.function, frame.line) for frame in stack.frames] == [
        ("dive", child.line_of("# here it waits")),
        *[("dive", child.line_of("# deeper"))] * 5,
        ("<module>", child.line_of("# outermost")),
    ]
    assert {frame.file for frame in stack.frames} == {child.path}
    assert len({frame.code for frame in stack.frames}) == 2
    assert stack.complete
    assert stack.exception is None


def arguments(frame: RawFrame) -> dict[str, tuple[str, float | None, int | None]]:
    return {name: (value.type, value.number, value.length) for name, value in frame.arguments}


def test_arguments_are_told_by_kind_number_and_size(python: Python, spawn: Spawn) -> None:
    child = spawn(python.path, "eye_depth.py", 3)
    child.settled()
    (stack,) = attach(child).stacks()
    assert arguments(stack.frames[1]) == {
        "n": ("int", 1, None),
        "user": ("User", None, None),
        "seen": ("list", None, 2),
        "ratio": ("float", 0.0, None),
        "rest": ("tuple", None, 2),
        "key": ("bytes", None, 7),
        "more": ("dict", None, 1),
    }
    assert len({dict(frame.arguments)["user"].identity for frame in stack.frames[:4]}) == 1
    assert "secret" not in repr(stack)


@pytest.mark.parametrize("number", [0, 1, -1, 255, -(2**30), 2**60 + 12345, -(2**100) + 7])
def test_integers_are_exact(python: Python, number: int) -> None:
    script = f"import os, signal; signal.alarm(60)\ndef f(n): print(1, flush=True); os.read(0, 1)\nf({number})"
    child = subprocess.Popen([python.path, "-I", "-S", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"1\n"
        (stack,) = Interpreter.attach(child.pid).stacks()
        assert dict(stack.frames[0].arguments)["n"].number == number
    finally:
        child.kill()
        child.communicate()


def test_a_recursion_error_in_flight_is_seen_in_a_loop_that_swallows_it(python: Python, spawn: Spawn) -> None:
    child = spawn(python.path, "eye_swallow.py")
    child.line()
    interpreter = attach(child)
    deadline = time.monotonic() + PATIENCE_S
    hits = samples = deepest = 0
    while hits < 5 and time.monotonic() < deadline:
        depth = interpreter.depth()
        samples += 1
        hits += depth.recursion_error
        deepest = max(deepest, depth.frames)
    assert hits == 5, f"{hits} of {samples} samples"
    names = set()
    while "RecursionError" not in names and time.monotonic() < deadline:
        names |= {stack.exception for stack in interpreter.stacks(max_frames=1)}
    assert "RecursionError" in names


@pytest.mark.parametrize("words", [(), ("cycle in the bill of materials",)])
def test_one_that_is_raised_by_hand_is_not_the_interpreters(python: Python, spawn: Spawn, words: tuple[str, ...]) -> None:
    child = spawn(python.path, "eye_by_hand.py", *words)
    child.line()
    interpreter = attach(child)
    deadline = time.monotonic() + PATIENCE_S
    names: set[str | None] = set()
    while "RecursionError" not in names and time.monotonic() < deadline:
        names |= {stack.exception for stack in interpreter.stacks(max_frames=1)}
    assert "RecursionError" in names
    hits = sum(interpreter.depth().recursion_error for _ in range(3000))
    assert hits < 30, "an error may be gone before it is read, but seldom is"


def test_no_recursion_error_is_seen_in_a_healthy_recursion(python: Python, spawn: Spawn) -> None:
    child = spawn(python.path, "eye_churn.py")
    child.line()
    interpreter = attach(child)
    assert not any(interpreter.depth().recursion_error for _ in range(2000))


def test_stacks_of_a_running_process_hold_together(python: Python, spawn: Spawn) -> None:
    child = spawn(python.path, "eye_churn.py")
    child.line()
    interpreter = attach(child)
    whole = 0
    for _ in range(200):
        (stack,) = interpreter.stacks()
        assert {frame.function for frame in stack.frames} <= {"up_and_down", "down_again", "<module>"}
        assert {frame.file for frame in stack.frames} <= {child.path}
        whole += stack.complete
    assert whole > 100


def test_each_thread_has_its_stack_and_the_deepest_counts(python: Python, spawn: Spawn) -> None:
    child = spawn(python.path, "eye_threads.py", 70)
    thread = int(child.settled())
    child.wait_asleep(thread)
    interpreter = attach(child)
    depth = interpreter.depth()
    assert depth.thread == thread != child.pid
    assert depth.frames in {71, 72, 73}
    stacks = {stack.thread: stack for stack in interpreter.stacks()}
    assert set(stacks) == {child.pid, thread}
    assert [frame.function for frame in stacks[thread].frames] == ["other"] * 71
    assert stacks[thread].frames[0].line == child.line_of("# the other thread waits")
    assert [frame.line for frame in stacks[child.pid].frames] == [child.line_of("# the main thread waits")]


def test_a_process_that_ends_while_it_is_read_gives_a_layout_error_and_nothing_else(python: Python, spawn: Spawn) -> None:
    child = spawn(python.path, "eye_churn.py")
    child.line()
    interpreter = attach(child)
    deadline = time.monotonic() + PATIENCE_S

    def read_on() -> None:
        looks = 0
        while time.monotonic() < deadline:
            looks += 1
            if looks == 20:
                child.process.kill()
            interpreter.depth()
            interpreter.stacks()

    with pytest.raises(LayoutError):
        read_on()
    child.process.wait()
    with pytest.raises(GoneError):
        interpreter.depth()
    with pytest.raises(GoneError):
        Interpreter.attach(child.pid)


def test_an_interpreter_that_is_only_starting_is_not_there_yet(python: Python, spawn: Spawn) -> None:
    child = spawn(python.path, "eye_churn.py")
    deadline = time.monotonic() + PATIENCE_S
    interpreter = None
    while interpreter is None and time.monotonic() < deadline:
        try:
            interpreter = attach(child)
        except (GoneError, NotPythonError):
            raise
        except LayoutError:  # NotYetError but for the instant in which the kernel maps the program
            continue
    assert interpreter is not None
    assert interpreter.depth().limit == 1000


def test_a_program_that_is_no_python_is_told_apart() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        with pytest.raises(NotPythonError, match="sleep is not a CPython"):
            Interpreter.attach(child.pid)
    finally:
        child.kill()
        child.wait()


def test_a_process_that_is_not_there_is_gone() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(GoneError):
        Interpreter.attach(child.pid)


def test_a_venv_of_any_version_is_read_like_its_base(python: Python, tmp_path: str, spawn: Spawn) -> None:
    venv = os.path.join(str(tmp_path), "venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=60)
    # The interpreter of a venv is a link to its base: any base will do.
    link = os.path.join(venv, "bin", "python")
    os.unlink(link)
    os.symlink(python.path, link)
    child = spawn(link, "eye_depth.py", 10)
    own = int(child.settled())
    assert attach(child).depth().frames in counted(own, python)


def test_a_forked_copy_is_read_as_a_process_of_its_own(python: Python) -> None:
    script = (
        "import os, signal; signal.alarm(60)\n"
        "if os.fork() == 0:\n    signal.alarm(60); print(os.getpid(), flush=True); os.read(0, 1); os._exit(0)\n"
        "os.wait()"
    )
    child = subprocess.Popen([python.path, "-I", "-S", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        pid = int(child.stdout.readline())
        assert Interpreter.attach(pid).depth().thread == pid
    finally:
        child.communicate(b"x", timeout=30)
