"""Recursion and memory errors that the job catches itself: counted on 3.12 and later, each once, and live."""

import ast
import os
import subprocess
import time
from pathlib import Path

import pytest

from supervisor.adapters.guard import SITE, arm, read_last_words, swallowed
from supervisor.core.verdict.errors import OVERRUN_WORDS
from supervisor.cpython.reader import OVERRUN_WORDS as WORDS_OF_THE_EYE


def test_swallowed_errors_are_counted_exactly_and_the_turn_is_named(monitored, both):
    ended, _ = both(monitored, "guard_swallow.py", "70", "5")
    assert (ended.words.swallowed_recursion, ended.words.swallowed_memory) == (70, 5)
    assert ended.words.exception is None
    assert sorted(frame.function for frame in ended.words.cycle.frames) == ["follow", "visit"]
    assert 990 <= ended.words.cycle.depth <= 1001


@pytest.mark.parametrize(("happened", "seen"), [(1, 1), (63, 63), (130, 128)])
def test_the_count_survives_a_kill(monitored, children, bare_environment, tmp_path, happened, seen):
    command = [monitored, str(children / "guard_swallow.py"), str(happened), "3", "wait"]
    with subprocess.Popen(command, env=arm(bare_environment, str(tmp_path), None), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout.readline() == b"done\n"
            assert swallowed(str(tmp_path), child.pid) == (seen, 3)
        finally:
            child.kill()
    words = read_last_words(str(tmp_path), child.pid)
    assert (words.swallowed_recursion, words.swallowed_memory, words.finalized) == (seen, 3, False)
    assert words.cycle is not None


@pytest.mark.parametrize("happened", [3, 20, 5000])
def test_it_is_told_when_the_last_sixteen_were(monitored, run, happened):
    began = time.monotonic()
    ended = run(monitored, "guard_swallow.py", str(happened), "0")
    sixteenth, latest = ended.words.swallowed_recursion_at
    assert began - 0.001 <= latest <= time.monotonic()
    assert sixteenth == 0 if happened < 16 else began - 0.001 <= sixteenth <= latest
    assert ended.words.swallowed_memory_at is None


def test_counting_can_be_switched_off(monitored, run):
    assert run(monitored, "guard_swallow.py", "3", "3", environment={"MAINSTAY_COUNT_SWALLOWED": "no"}).words.swallowed_recursion == 0


def test_a_forked_child_counts_from_zero(monitored, run):
    ended = run(monitored, "-W", "error", "-c", _FORKS)  # a fork beside a thread of ours would be an error
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert ended.words.swallowed_recursion == 2
    child = next(
        int(name.removesuffix(".rep")) for name in os.listdir(ended.report_dir) if name.endswith(".rep") and name != f"{ended.pid}.rep"
    )
    assert swallowed(str(ended.report_dir), child) == (1, 0)


_FORKS = """
import os
def f(): f()
def once():
    try:
        f()
    except RecursionError:
        pass
once()
pid = os.fork()
once()
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
"""


def test_nobody_is_counted_where_there_is_no_file(tmp_path):
    assert swallowed(str(tmp_path), 1) == (0, 0)
    assert swallowed(str(tmp_path / "nowhere"), 1) == (0, 0)


_MANY_TYPES = """
class Odd(type):
    def __hash__(cls):
        raise SystemError("no hash of mine")
class OddError(Exception, metaclass=Odd):
    pass
class DeepError(RecursionError):
    pass
kinds = [type("Error%d" % number, (Exception,), {}) for number in range(400)]
class ArgumentlessError(RecursionError):
    args = property(lambda self: 1 / 0)
said = "maximum recursion depth exceeded"
deep = [DeepError(said), DeepError(said + " in comparison"), RecursionError("Stack overflow (used 9 kB)")]
by_hand = [DeepError, RecursionError, RecursionError("cyclic"), RecursionError(7), ArgumentlessError]
for kind in [OddError, *kinds, *kinds, *deep, *by_hand, OddError, MemoryError]:
    try:
        raise kind
    except Exception as error:
        assert error is kind or type(error) is kind
"""


def test_types_that_are_harmless_many_or_odd_do_not_hide_those_that_count(monitored, both):
    ended, _ = both(monitored, "-c", _MANY_TYPES)
    assert (ended.code, ended.err) == (0, "")
    assert (ended.words.swallowed_recursion, ended.words.swallowed_memory) == (3, 1)


def test_guard_eye_and_verdict_know_the_interpreters_own_words_by_the_same_beginnings() -> None:
    """None of the three may import another."""
    source = Path(SITE, "_mainstay_guard", "swallow.py").read_text()
    (assigned,) = (node.value for node in ast.parse(source).body if isinstance(node, ast.Assign) and node.targets[0].id == "OVERRUN")
    assert ast.literal_eval(assigned) == WORDS_OF_THE_EYE
    assert [words.startswith(beginning) for words, beginning in zip(OVERRUN_WORDS, WORDS_OF_THE_EYE, strict=True)] == [True, True]
