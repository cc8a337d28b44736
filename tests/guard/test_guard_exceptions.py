"""What the guard writes down of uncaught exceptions, and that the job's own output stays as it was."""

import resource
import zipfile

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


HOOKS = {
    "silent": "sys.excepthook = lambda *a: None",
    "its own report": "sys.excepthook = lambda kind, value, trace: print('died of', kind.__name__, file=sys.stderr)",
    "one that fails": "sys.excepthook = lambda *a: 1 // 0",
    "one that exits": "sys.excepthook = lambda *a: sys.exit(3)",
    "none": "sys.excepthook = None",
    "gone": "del sys.excepthook",
}


@pytest.mark.parametrize("hook", HOOKS)
def test_an_exception_is_written_down_although_the_job_has_a_hook_of_its_own(python, both, hook):
    """As rich.traceback.install() puts there, and many a logging set-up."""
    program = f"import sys\n{HOOKS[hook]}\ndef fail(): raise ValueError('unheard')\nfail()"
    ended, _ = both(python, "-c", program)
    facts = ended.words.exception
    assert (facts.type, facts.message, facts.where) == ("ValueError", "unheard", "main")
    assert [frame.function for frame in facts.frames] == ["<module>", "fail"]


def test_a_recursion_is_known_as_such_although_the_job_has_a_hook_of_its_own(any_active, both):
    ended, _ = both(any_active, "-c", "import sys\nsys.excepthook = lambda *a: None\ndef f(): f()\nf()")
    assert (ended.words.exception.type, [frame.function for frame in ended.words.cycle.frames]) == ("RecursionError", ["f"])


@pytest.mark.parametrize("start", [["-m", "own"], ["own.py"], ["folder"], ["-m", "folder"], ["folder.zip"]])
def test_it_is_found_however_the_job_was_started(python, both, tmp_path, start):
    program = "import sys\nsys.excepthook = lambda *a: None\nraise ValueError('unheard')\n"
    (tmp_path / "own.py").write_text(program)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__main__.py").write_text(program)
    with zipfile.ZipFile(tmp_path / "folder.zip", "w") as archive:
        archive.writestr("__main__.py", program)
    assert both(python, *start)[0].words.exception.message == "unheard"


def test_a_hook_that_hands_it_on_is_told_once(python, both):
    program = "import sys\nfirst = sys.excepthook\ndef mine(*a): first(*a)\nsys.excepthook = mine\nraise ValueError('handed on')"
    ended, _ = both(python, "-c", program)
    assert (ended.words.exception.message, ended.err.count("Traceback")) == ("handed on", 1)


RUNS_ON = {
    "by the module code": "import code\ncode.InteractiveInterpreter(globals()).runsource('1/0')",
    "by the module code, for what it cannot compile": "import code\ncode.InteractiveInterpreter(globals()).runsource('def f(:')",
    "as the last one": "def inner():\n    try: 1/0\n    except Exception as err: sys.last_value, sys.last_traceback = err, err.__traceback__\ninner()",
    "nothing at all": "try: sys.excepthook(None, None, None)\nexcept Exception: pass",
}


@pytest.mark.parametrize("hook", ["", "sys.excepthook = lambda *a: None\n"])
@pytest.mark.parametrize("shown", RUNS_ON)
def test_an_error_that_was_only_shown_is_not_what_ended_the_job(python, both, shown, hook):
    ended, _ = both(python, "-c", f"import sys\n{hook}{RUNS_ON[shown]}\nsys.exit(1)")
    assert ended.words.exception is None


def test_an_error_that_a_thread_shows_is_the_threads(python, both):
    """A recipe that is as old as threads."""
    program = (
        "import sys, threading\ndef run():\n    try: 1/0\n    except Exception: sys.excepthook(*sys.exc_info())\n"
        "thread = threading.Thread(target=run); thread.start(); thread.join()\nsys.exit(1)"
    )
    ended, _ = both(python, "-c", program)
    assert (ended.words.exception.type, ended.words.exception.where) == ("ZeroDivisionError", "thread")


def test_an_error_that_the_main_program_shows_before_it_gives_up_is_its_own(python, both):
    program = "import sys\ndef f(): f()\ntry: f()\nexcept Exception:\n    sys.excepthook(*sys.exc_info())\n    sys.exit(1)"
    ended, _ = both(python, "-c", program)
    assert (ended.words.exception.where, [frame.function for frame in ended.words.cycle.frames]) == ("main", ["f"])


@pytest.mark.parametrize("hook", ["", "sys.excepthook = lambda *a: None\n"])
def test_what_ends_the_job_after_an_error_that_was_only_shown_is_told(python, run, hook):
    shown = "try: 1/0\nexcept Exception: sys.excepthook(*sys.exc_info())"
    ended = run(python, "-c", f"import sys\n{shown}\n{hook}raise KeyError('the end')")
    assert (ended.words.exception.type, ended.words.exception.where) == ("KeyError", "main")


@pytest.mark.parametrize("odd", ["__name__ = 'app'", "del __name__", "import sys; sys.modules['__main__'] = sys"])
def test_a_main_program_that_goes_by_another_name_is_one_all_the_same(any_active, both, odd):
    ended, _ = both(any_active, "-c", f"{odd}\ndef f(): f()\nf()")
    assert (ended.words.exception.where, [frame.function for frame in ended.words.cycle.frames]) == ("main", ["f"])


@pytest.mark.parametrize("trace", ["t.tb_next", "None"])
def test_a_hook_that_hands_on_less_of_the_trace_loses_nothing(python, run, trace):
    program = f"import os, sys\nold = sys.excepthook\ndef mine(k, v, t): old(k, v, {trace}); os._exit(1)\nsys.excepthook = mine\ndef f(): f()\nf()"
    ended = run(python, "-c", program)
    assert (ended.words.exception.where, ended.words.exception.frames[0].function) == ("main", "<module>")
    assert [frame.function for frame in ended.words.cycle.frames] == ["f"]


@pytest.mark.parametrize("source", ["def f(:", "x = '\0'", "(" * 300 + ")" * 300])
def test_a_main_program_that_cannot_be_compiled_is_told(python, run, tmp_path, source):
    (tmp_path / "main.py").write_text(source)
    ended = run(python, "main.py")
    assert (ended.code, ended.words.exception.where) == (1, "main"), ended.err
    assert run(python, "-c", f"import sys; sys.excepthook = lambda *a: None; exec({source!r})").words.exception.where == "main"


@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), 9)"])
def test_a_hook_that_ends_the_process_at_once_leaves_no_word(python, run, end):
    ended = run(python, "-c", f"import os, sys\nsys.excepthook = lambda *a: {end}\nraise ValueError")
    assert ended.words.exception is None


@pytest.mark.parametrize("name", ["excepthook", "unraisablehook"])
def test_the_hooks_look_like_those_that_came_with_the_interpreter(any_active, both, name):
    """Libraries ask that before they put their own there (exceptiongroup, trio), and the module code before it prints."""
    both(any_active, "-c", f"import sys, threading; print(sys.{name} is sys.__{name}__)")


def test_a_job_that_goes_back_to_the_first_hook_is_told(python, both):
    program = "import sys\nsys.excepthook = lambda *a: None\nsys.excepthook = sys.__excepthook__\nraise ValueError('back')"
    assert both(python, "-c", program)[0].words.exception.message == "back"


def test_a_hook_that_was_there_before_us_is_called_as_before(python, both, tmp_path):
    """A .pth file of its environment may have put it there."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nold = sys.excepthook\nsys.excepthook = lambda *a: (print('seen'), old(*a))\n")
    ended, _ = both(python, "-c", "raise ValueError('told')", environment={"PYTHONPATH": str(tmp_path)})
    assert (ended.out, ended.words.exception.message) == ("seen\n", "told")


CONSOLE_SCRIPT = """import re
import sys
from acme.cli import main
if __name__ == "__main__":
    sys.argv[0] = re.sub(r"(-script\\.pyw|\\.exe)?$", "", sys.argv[0])
    sys.exit(main())
"""
CLI = "import sys\ndef main():\n    found = {}\n    if sys.argv[1:]:\n        return found['price']\n    return found['tax']\n"


@pytest.mark.parametrize("start", [["bin/acme"], ["-m", "acme"]])
def test_lines_of_an_installed_application_are_told_apart(any_active, run, tmp_path, start):
    package = tmp_path / "lib" / "python3" / "site-packages" / "acme"
    package.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "acme").write_text(CONSOLE_SCRIPT)
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(CLI)
    (package / "__main__.py").write_text("import sys\nfrom acme.cli import main\nsys.exit(main())\n")
    where = [str(tmp_path / word) if "/" in word else word for word in start]
    lines = [run(any_active, *where, *more, environment={"PYTHONPATH": str(package.parent)}).words.exception for more in ([], ["x"])]
    assert [error.message for error in lines] == ["'tax'", "'price'"]
    assert "" != lines[0].at != lines[1].at != ""


def test_a_line_is_told_by_the_same_hash_in_every_python(any_active, run, tmp_path):
    (tmp_path / "job.py").write_text("def work():\n    foobar\nwork()\n")
    assert run(any_active, "job.py").words.exception.at == "85944171f73967e8"  # as the authors of FNV-1a give it for that word


FUNCTION = "import functools, sys\n\ndef work():\n    sys.stdin.read()\n    return {}['a']\n"
METHOD = FUNCTION.replace("def work", "class Job:\n  @staticmethod\n  @functools.lru_cache(\n    maxsize=4,\n  )\n  def work").replace(
    "work()", "work(n=1)"
)
MOVED = [
    (FUNCTION, "# moved\n" * 9 + FUNCTION, True),  # as it was, further down
    (FUNCTION, FUNCTION.replace("import", "# a\n\n@functools.lru_cache(\n  4\n)\ndef before(): pass\nimport"), True),
    (FUNCTION, FUNCTION + "def other(): pass\n", True),  # nothing has moved
    (FUNCTION, "def workers(): pass\n# def work()\n" + FUNCTION, True),
    (FUNCTION, "class Other:\n    def work(self): pass\n" + FUNCTION, False),  # which of both?
    (FUNCTION, "def other(): pass\n", False),
    (METHOD, "# moved\n" + METHOD, True),
    (METHOD, METHOD, True),
]


@pytest.mark.parametrize(("before", "after", "is_same"), MOVED)
def test_a_line_keeps_its_name_although_its_file_was_replaced_while_it_ran(any_active, run, tmp_path, before, after, is_same):
    script, call = tmp_path / "job.py", "Job.work()\n" if before == METHOD else "work()\n"
    replace = f"import pathlib; pathlib.Path({str(script)!r}).write_text({after + call!r})"
    running = before.replace("sys.stdin.read()", replace)
    script.write_text(before + call)
    as_it_is = run(any_active, "job.py").words.exception.at
    script.write_text(running + call)
    at = run(any_active, "job.py").words.exception.at
    assert script.read_text() == after + call
    assert (at == as_it_is != "") is is_same
