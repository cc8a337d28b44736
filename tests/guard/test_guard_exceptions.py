"""What the guard writes down of uncaught exceptions, and that the job's own output stays as it was."""

import resource

import pytest

from supervisor.core.evidence import CycleKind


def test_an_uncaught_exception_is_written_down_with_its_frames(any_active, both, children):
    ended, _ = both(any_active, "guard_raise.py")
    facts = ended.words.exception
    assert ended.words.spoke
    assert ended.words.finalized
    assert ended.code == 1
    assert (facts.type, facts.message, facts.where, facts.depth) == ("ZeroDivisionError", "plain", "main", 3)
    assert [frame.function for frame in facts.frames] == ["<module>", "outer", "inner"]
    assert {frame.file for frame in facts.frames} == {str(children / "guard_raise.py")}
    assert [frame.line for frame in facts.frames] == _lines(
        children / "guard_raise.py", "outer(sys.argv", "    inner(kind)", "raise ZeroDivisionError"
    )


def _lines(script, *beginnings):
    lines = script.read_text().splitlines()
    return [next(number for number, line in enumerate(lines, 1) if beginning in line) for beginning in beginnings]


def test_the_causes_of_an_exception_are_told_nearest_first(python, both):
    facts = both(python, "guard_raise.py", "chain")[0].words.exception
    assert (facts.type, facts.message, facts.chain) == ("RuntimeError", "could not look it up", ("KeyError: 'missing'",))


def test_a_message_keeps_its_letters_and_loses_what_a_terminal_would_obey(python, both):
    facts = both(python, "guard_raise.py", "unicode", environment={"PYTHONIOENCODING": "utf-8:backslashreplace"})[0].words.exception
    assert facts.message == 'quote " backslash \\ umlaut ü emoji 😀 half � bell � end'


def test_a_message_is_cut_at_2000_characters(python, run):
    assert run(python, "guard_raise.py", "long").words.exception.message == "x" * 2000


@pytest.mark.parametrize(
    ("kind", "type_", "message"),
    [("str", "HostileError", "<HostileError.__str__ raised ValueError>"), ("metaclass", "LyingError", "still told")],
)
def test_an_exception_that_lies_about_itself_is_still_told(python, run, kind, type_, message):
    facts = run(python, "guard_raise.py", kind).words.exception
    assert (facts.type, facts.message) == (type_, message)


def test_endless_recursion_is_written_down_with_its_turn_and_true_depth(any_active, both, children):
    ended, _ = both(any_active, "guard_recurse.py", "turn")
    facts, cycle = ended.words.exception, ended.words.cycle
    assert facts.type == "RecursionError"
    assert 990 <= facts.depth <= 1000
    assert [frame.function for frame in cycle.frames] == ["pang", "ping", "pong"]  # a turn begins at its smallest name
    assert cycle.frames[0].file == str(children / "guard_recurse.py")
    assert (cycle.depth, cycle.kind) == (facts.depth, CycleKind.FRAMES)
    assert facts.frames[0].function == "<module>"


def test_a_raised_recursion_limit_is_capped_and_the_wish_remembered(any_active, run):
    ended = run(any_active, "guard_recurse.py", "raised", recursion=1500)
    assert ended.out == "1500\n"
    assert ended.words.exception.type == "RecursionError"
    assert 1490 <= ended.words.exception.depth <= 1500
    assert ended.words.asked_limit == 10**9
    assert ended.words.recursion_limit == 1500


def test_without_a_limit_of_ours_the_cap_follows_the_version(python, run):
    ended = run(python, "guard_recurse.py", "limits")
    cap = 12_000 if ended.words.python.startswith("3.11.") else 50_000
    assert ended.out.split() == ["150", "500", str(cap)]
    assert ended.words.asked_limit == 10**6
    assert ended.words.recursion_limit == cap


def test_wrong_limits_are_refused_as_they_are_without_us(python, both):
    ended, _ = both(python, "guard_recurse.py", "refused")
    assert [line.split()[0] for line in ended.out.splitlines()] == ["ValueError", "ValueError", "TypeError", "OverflowError"]


def test_a_limit_of_the_job_is_set_before_its_first_line(python, run):
    ended = run(python, "-c", "import sys; print(sys.getrecursionlimit())", recursion=400)
    assert ended.out == "400\n"
    assert ended.words.recursion_limit == 400


@pytest.mark.parametrize(
    ("program", "elsewhere"),
    [
        ("import faulthandler; faulthandler.enable()", True),
        ("import faulthandler; faulthandler.disable()", True),
        ("import faulthandler; faulthandler.is_enabled()", False),
    ],
)
def test_it_is_told_that_faulthandler_is_in_other_hands(python, both, program, elsewhere):
    assert both(python, "-c", program)[0].words.dumps_elsewhere is elsewhere


def test_it_is_told_that_faulthandler_was_the_job_s_from_the_start(python, run):
    assert run(python, "-X", "faulthandler", "-c", "pass").words.dumps_elsewhere is True


def test_a_legal_depth_of_300_under_400_is_undisturbed(python, run):
    ended = run(python, "guard_recurse.py", "healthy", "300", recursion=400)
    assert (ended.code, ended.out, ended.err) == (0, "300\n", "")
    assert ended.words.exception is None
    assert ended.words.cycle is None
    assert ended.words.swallowed_recursion == 0


def test_a_recursion_error_that_the_job_handles_is_its_own_business(python, both):
    ended, _ = both(python, "guard_recurse.py", "handled")
    assert ended.code == 0
    assert ended.words.finalized
    assert ended.words.exception is None


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_running_out_of_memory_is_written_down(python, run, kind):
    ended = run(python, "guard_memory.py", kind)
    assert ended.code == 1
    assert ended.words.exception.type == "MemoryError"
    assert ended.words.exception.where == "main"


def test_running_out_of_memory_in_a_thread_is_written_down(python, run):
    facts = run(python, "guard_memory.py", "thread").words.exception
    assert (facts.type, facts.where) == ("MemoryError", "thread")


def test_a_thread_that_dies_is_written_down_although_the_job_ends_well(any_active, run):
    ended = run(any_active, "guard_thread.py")
    bare = run(any_active, "guard_thread.py", guarded=False)
    assert ended.err == bare.err
    assert ended.code == 0
    facts = ended.words.exception
    assert (facts.type, facts.message, facts.where) == ("LookupError", "in a thread", "thread")
    assert facts.frames[-1].function == "work"


def test_an_exception_in_a_finalizer_is_written_down(python, both):
    ended, _ = both(python, "guard_end.py", "unraisable")
    facts = ended.words.exception
    assert (ended.code, facts.type, facts.message, facts.where) == (0, "ValueError", "in __del__", "unraisable")


def test_an_exception_while_the_interpreter_goes_away_looks_as_it_does_without_us(python, both):
    both(python, "guard_end.py", "late")


def test_a_forked_child_writes_under_its_own_name(python, run):
    ended = run(python, "guard_end.py", "fork")
    child = int(ended.out)
    assert (ended.report_dir / f"{child}.rep").exists()
    assert ended.words.exception.where == "child"
    assert ended.words.exception.message == "in the forked child"
    assert ended.words.finalized


def test_a_report_is_written_although_the_job_closed_our_descriptors(python, run):
    ended = run(python, "guard_end.py", "closed")
    assert ended.words.exception.message == "after closing everything"


def test_a_report_is_written_although_no_descriptor_is_left(python, run):
    ended = run(python, "guard_end.py", "full", before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
    assert ended.words.exception.message == "no descriptors left"
    assert ended.words.exception.chain == ("OSError: [Errno 24] Too many open files: '/dev/null'",)


def test_a_job_whose_modules_hide_the_standard_library_is_still_heard(python, both, tmp_path):
    for name in ("json", "re", "traceback", "signal", "threading", "struct", "linecache", "report", "hooks", "files"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken over')\n")
    script = tmp_path / "main.py"
    script.write_text("def work():\n    raise ValueError('mine')\nwork()\n")
    ended, _ = both(python, str(script))
    assert ended.words.exception.message == "mine"
