"""The eye on real processes: it never raises, and says what it sees or why it sees nothing."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from pythons import Child, Python

from supervisor.adapters.eye import Eye, EyeState
from supervisor.core.evidence import Frame, Look

Spawn = Callable[..., Child]
PATIENCE_S = 30.0


def wait_for(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)  # the pace of the watch at its quickest


def frames(child: Child, *pairs: tuple[str, str]) -> tuple[Frame, ...]:
    return tuple(Frame(function, child.path, child.line_of(text)) for function, text in pairs)


@pytest.mark.parametrize(
    ("kind", "turn", "notes"),
    [
        ("one", [("one", "# one calls one")], ["one(user): user stays the same object"]),
        (
            "two",
            [("ping", "# ping calls pong"), ("pong", "# pong calls ping")],
            ["ping(n, node): n steps by -1 each turn", "ping(n, node): node stays the same object"],
        ),
        (
            "three",
            [("alpha", "# alpha calls beta"), ("beta", "# beta calls gamma"), ("gamma", "# gamma calls alpha")],
            ["alpha(seen): seen (list) gets 1 longer each turn, now "],
        ),
    ],
)
def test_the_cycle_is_named_with_file_and_line_and_what_does_not_change(
    python: Python, spawn: Spawn, kind: str, turn: list[tuple[str, str]], notes: list[str]
) -> None:
    child = spawn(python.path, "eye_cycle.py", kind, 600)
    child.settled()
    eye = Eye(child.pid)
    look = eye.look()
    assert look.cycle is not None
    assert look.cycle.frames == frames(child, *turn)
    assert look.cycle.depth == look.depth >= 600
    for note in notes:
        assert any(found.startswith(note) for found in look.cycle.notes), look.cycle.notes
    assert look.recursion_limit == 700
    assert look.waiting == "reading from a pipe (fd 0)"
    assert look.note == ""
    assert look.stacks[0].frames[0] == Frame("wait_at_the_bottom", child.path, child.line_of("os.read(0, 1)"))
    assert len(look.stacks[0].frames) == 400
    assert look.stacks[0].depth == look.depth
    eye.close()


def test_functions_that_call_each_other_at_random_are_named(python: Python, spawn: Spawn) -> None:
    child = spawn(python.path, "eye_cycle.py", "random", 600)
    child.settled()
    look = Eye(child.pid).look()
    assert look.cycle is not None
    assert {frame.function for frame in look.cycle.frames} >= {"walk", "visit"}


def test_a_stopped_process_is_seen_as_it_was(python: Python, spawn: Spawn) -> None:
    child = spawn(python.path, "eye_churn.py")
    child.line()
    eye = Eye(child.pid)
    wait_for(lambda: eye.depth() is not None)
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    look = eye.look()
    assert look == eye.look()
    assert look.note == ""
    assert {frame.function for frame in look.stacks[0].frames} <= {"up_and_down", "down_again", "<module>"}
    assert look.stacks[0].frames[-1].function == "<module>"
    assert look.stacks[0].depth == len(look.stacks[0].frames)
    assert 0 <= look.depth - look.stacks[0].depth <= (8 if python.version < (3, 12) else 0)  # 3.11 counts calls through C


def test_the_eye_attaches_by_itself_as_soon_as_there_is_something_to_see(python: Python, spawn: Spawn) -> None:
    child = spawn(python.path, "eye_churn.py")
    eye = Eye(child.pid)
    states = set()

    def sees() -> bool:
        depth = eye.depth()
        states.add(eye.state)
        return depth is not None

    wait_for(sees)
    assert states <= {EyeState.STARTING, EyeState.SEEING}
    assert eye.version == python.version[:2]


def test_a_shell_that_becomes_a_python_is_seen_from_then_on(python: Python) -> None:
    shell = shutil.which("sh")
    assert shell
    script = f"read go; exec {python.path} -I -S -c 'import os, signal; signal.alarm(60); os.read(0, 1)'"
    child = subprocess.Popen([shell, "-c", script], stdin=subprocess.PIPE)
    try:
        eye = Eye(child.pid)
        wait_for(lambda: eye.depth() is None and eye.state is EyeState.NOT_PYTHON)
        wait_for(lambda: "is not a CPython" in eye.look().note)
        assert eye.look().stacks == ()
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
        wait_for(lambda: eye.depth() is not None and eye.state is EyeState.SEEING)
    finally:
        child.kill()
        child.communicate()


def test_a_python_that_becomes_another_program_is_let_go(python: Python, spawn: Spawn) -> None:
    sleep = shutil.which("sleep")
    child = spawn(python.path, "eye_wait.py", "exec", sleep, "60")
    child.settled()
    eye = Eye(child.pid)
    assert eye.depth() is not None
    assert child.process.stdin is not None
    child.process.stdin.write("x")
    child.process.stdin.flush()
    wait_for(lambda: eye.depth() is None and eye.state is EyeState.NOT_PYTHON)
    wait_for(lambda: eye.look().waiting == "sleeping")


def test_a_process_that_has_ended_is_gone_and_nothing_is_raised(python: Python, spawn: Spawn) -> None:
    child = spawn(python.path, "eye_churn.py")
    child.line()
    eye = Eye(child.pid)
    wait_for(lambda: eye.depth() is not None)
    child.process.kill()
    wait_for(lambda: eye.depth() is None and eye.state is EyeState.GONE)
    child.process.wait()
    look = eye.look()
    assert look == Look(note=eye.note)
    assert "gone" in look.note


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("sleep", "sleeping"),
        ("lock", "waiting for a lock"),
        ("deadlock", "all 2 threads wait for locks: a deadlock, if nothing outside is to release them"),
        ("pipe", r"reading from a pipe \(fd 0\)"),
        ("child", r"waiting for a child process \(pid \d+, python[\d.]*\)"),
        ("socket", r"accepting a connection on tcp 127\.0\.0\.1:\d+, listening \(fd 3\)"),
        ("busy", "running"),
    ],
)
@pytest.mark.parametrize("stopped", [False, True], ids=["going", "stopped"])
def test_what_a_process_waits_for_is_said_in_words_also_while_it_is_stopped(spawn: Spawn, kind: str, words: str, stopped: bool) -> None:
    child = spawn(sys.executable, "eye_wait.py", kind)
    child.line()
    eye = Eye(child.pid)
    expected = rf"{words} \(stopped by a signal\)" if stopped and kind == "busy" else words

    def is_there() -> object:
        look = eye.look()
        return re.fullmatch(words, look.waiting) and any(stack.frames and stack.frames[0].function == "wait" for stack in look.stacks)

    wait_for(is_there)
    if stopped:
        os.kill(child.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    wait_for(lambda: re.fullmatch(expected, eye.look().waiting))


def test_a_python_that_is_too_old_is_said_to_be(spawn: Spawn) -> None:
    """A libpython without the symbols that 3.11 brought stands for an old one."""
    from supervisor.cpython import target
    from supervisor.cpython.elf import Image

    child = spawn(sys.executable, "eye_churn.py")
    child.line()
    kept = dict(target._images)
    try:
        real = target.locate(child.pid).binary
        key = (os.stat(real.path).st_dev, real.inode, real.mtime_ns)
        target._images[key] = Image(relocatable=True, first_address=0, symbols={"_PyRuntime": 0x1000})
        eye = Eye(child.pid)
        for _ in range(100):
            assert eye.depth() is None
        assert eye.state is EyeState.BLIND
        assert "is a Python older than 3.11" in eye.look().note
    finally:
        target._images.clear()
        target._images.update(kept)
