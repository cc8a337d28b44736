"""Where an exception came from: by whose hand, out of which other one, out of which process."""

import ast
import subprocess
import sys

import pytest

from supervisor.adapters.guard import SITE
from supervisor.core import prose

BY_HAND = [
    ("raise MemoryError('no')", True),
    ("bytearray(1 << 62)", False),
    ("def f():\n    raise MemoryError\nf()", True),
    ("nested = []\nfor _ in range(300000):\n    nested = [nested]\nrepr(nested)", False),
    ("def f(): f()\nf()", False),
    ("def f():\n    try:\n        bytearray(1 << 62)\n    except MemoryError:\n        raise\nf()", False),
    ("error = None\ntry:\n    bytearray(1 << 62)\nexcept MemoryError as err:\n    error = err\nraise error", False),
    ("raise ValueError", True),
    ("int('x')", False),
]


@pytest.mark.parametrize(("program", "by_hand"), BY_HAND)
def test_it_is_told_whether_a_raise_statement_made_it(any_active, run, program, by_hand):
    assert run(any_active, "-c", program).words.exception.is_raised is by_hand


WALK = "def walk(n): return walk(n + 1)\n"
TURNED = WALK + "try:\n    walk(0)\nexcept RecursionError as err:\n    raise ValueError('bad tree')"


@pytest.mark.parametrize("more", ["", " from err", "\nelse:\n    pass"])
def test_the_recursion_that_it_came_from_is_told_with_its_stack_and_arguments(python, run, more):
    ended = run(python, "-c", TURNED + more, recursion=400)
    error = ended.words.exception
    assert (error.type, error.depth, error.is_raised) == ("ValueError", 1, True)
    assert (error.root.type, error.root.where, error.root.is_raised) == ("RecursionError", "main", False)
    assert 390 <= error.root.depth <= 400
    assert [frame.function for frame in ended.words.cycle.frames] == ["walk"]
    assert "walk(n): n steps by 1 each turn" in ended.words.cycle.notes


def test_one_that_was_to_be_forgotten_is_not_told(python, run):
    assert run(python, "-c", TURNED + " from None", recursion=400).words.exception.root is None


def test_a_recursion_of_its_own_needs_no_origin(python, run):
    program = WALK + "try:\n    walk(0)\nexcept RecursionError:\n    walk(0)"
    assert run(python, "-c", program, recursion=400).words.exception.root is None


GROUP = (
    WALK
    + """
import asyncio
async def work():
    walk(0)
async def main():
    async with asyncio.TaskGroup() as group:
        group.create_task(work())
asyncio.run(main())
"""
)


@pytest.mark.parametrize("tasks", [1, 100])
def test_a_member_of_a_group_is_told(python, run, tasks):
    text = GROUP.replace("        group.create_task(work())", f"        for _ in range({tasks}): group.create_task(work())")
    error = run(python, "-c", text, recursion=400).words.exception
    assert (error.type, error.root.type) == ("ExceptionGroup", "RecursionError")
    assert error.root.frames[-1].function == "walk"


POOL = """
def work(n):
    {work}
if __name__ == "__main__":
    import multiprocessing
    with multiprocessing.get_context("fork").Pool(1) as pool:
        pool.map(work, [1])
"""
EXECUTOR = """
def work(n):
    {work}
if __name__ == "__main__":
    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(1) as pool:
        pool.submit(work, 1).result()
"""


@pytest.mark.parametrize("program", [POOL, EXECUTOR], ids=["pool", "executor"])
def test_what_ended_a_worker_is_told_by_its_traceback(python, run, tmp_path, program):
    (tmp_path / "job.py").write_text(program.format(work="return work(n + 1)"))
    ended = run(python, str(tmp_path / "job.py"), recursion=400)
    root = ended.words.exception.root
    assert (root.type, root.message, root.where) == ("RecursionError", "maximum recursion depth exceeded", "child")
    assert root.frames[-1].function == "work"
    assert root.frames[-1].line == 3
    assert 380 <= root.depth <= 400
    assert [frame.function for frame in ended.words.cycle.frames] == ["work"]


def test_another_end_of_a_worker_has_its_place(python, run, tmp_path):
    (tmp_path / "job.py").write_text(POOL.format(work="raise MemoryError('tile too big')"))
    root = run(python, str(tmp_path / "job.py")).words.exception.root
    assert (root.type, root.message, root.frames[-1].function, root.is_raised) == ("MemoryError", "tile too big", "work", None)


CHAINED = """
def parse(): return {}['a']
def read(): return {}['b']
def send(): raise ConnectionError('refused')
def load(step):
    try:
        step()
    except (KeyError, ConnectionError) as err:
        raise OSError('cannot load') HOW
def main(step):
    try:
        load(step)
    except OSError as err:
        raise RuntimeError('import failed') HOW
main(STEP)
"""


def origins(ended):
    return [(error.type, [frame.function for frame in error.frames]) for error in ended.words.exception.origins]


def chained(run, python, tmp_path, step, how="from err"):
    (tmp_path / "job.py").write_text(CHAINED.replace("STEP", step).replace("HOW", how))
    return run(python, "job.py")


@pytest.mark.parametrize("how", ["from err", ""])
def test_the_first_cause_is_told_with_its_line_and_functions(any_active, run, tmp_path, how):
    ended = [chained(run, any_active, tmp_path, step, how) for step in ("parse", "read", "send")]
    assert [origins(one) for one in ended] == [
        [("KeyError", ["load", "parse"])],
        [("KeyError", ["load", "read"])],
        [("ConnectionError", ["load", "send"])],
    ]
    lines = [one.words.exception.origins[0].at for one in ended]
    assert len(set(lines) - {""}) == 3


def test_a_cause_that_is_to_be_forgotten_tells_no_bug(any_active, run, tmp_path):
    assert origins(chained(run, any_active, tmp_path, "parse", "from None")) == []


def test_what_a_library_made_of_its_own_errors_is_its_business(any_active, run, tmp_path):
    library = tmp_path / "site-packages"
    library.mkdir()
    (library / "web.py").write_text(
        "def get():\n    try:\n        {}['a']\n    except KeyError as err:\n        raise OSError('no answer') from err\n"
    )
    wrapped = "try:\n    web.get()\nexcept OSError as err:\n    raise RuntimeError from err"
    for program, told in (("web.get()", []), (wrapped, [("OSError", ["<module>"])])):
        (tmp_path / "job.py").write_text("import web\n" + program)
        assert origins(run(any_active, "job.py", environment={"PYTHONPATH": str(library)})) == told


def test_in_which_line_a_recursion_met_its_limit_is_chance(any_active, run, tmp_path):
    (tmp_path / "job.py").write_text(TURNED + " from err")
    ended = run(any_active, "job.py", recursion=400)
    assert (origins(ended), ended.words.exception.origins[0].at) == ([("RecursionError", ["<module>", "walk"])], "")


MEMBERS = """
import asyncio
async def parse(): {}['a']
async def send(): raise ConnectionError('refused')
async def wrapped():
    try: await parse()
    except KeyError as err: raise OSError from err
async def main():
    async with asyncio.TaskGroup() as group:
        for step in STEPS: group.create_task(step())
asyncio.run(main())
"""
KEY, REFUSED = ("KeyError", ["parse"]), ("ConnectionError", ["send"])


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ("[parse]", [KEY]),
        ("[send]", [REFUSED]),
        ("[send, parse]", [REFUSED, KEY]),
        ("[parse, parse, send]", [REFUSED, KEY]),
        ("[wrapped]", [("KeyError", ["wrapped", "parse"])]),
    ],
)
def test_each_kind_of_member_of_a_group_is_told_once_in_any_order(python, run, tmp_path, steps, told):
    (tmp_path / "job.py").write_text(MEMBERS.replace("STEPS", steps))
    assert sorted(origins(run(python, "job.py"))) == sorted(told)


def test_how_deep_a_member_failed_makes_no_other_kind(python, run, tmp_path):
    program = "def walk(n): return walk(n - 1) if n else {}['a']\ndef met(n):\n    try: walk(n)\n    except KeyError as err: return err\nraise ExceptionGroup('many', [met(n) for n in range(30)])"
    (tmp_path / "job.py").write_text(program)
    assert origins(run(python, "job.py")) == [("KeyError", ["met", "walk"])]


def test_a_group_of_very_many_kinds_is_told_in_part_and_in_the_same_order(python, run):
    program = (
        "kinds = [type('E%d' % i, (Exception,), {}) for i in range(40)]\nraise ExceptionGroup('many', [kind() for kind in ORDER * 50])"
    )
    told = [origins(run(python, "-c", program.replace("ORDER", order))) for order in ("kinds", "kinds[::-1]")]
    assert told[0] == told[1]
    assert len(told[0]) == 8


def test_the_guard_and_the_verdict_take_the_same_frames_for_the_applications_own():
    """The guard can import nothing of ours, so it has the rule's words a second time."""
    names = ("FOREIGN", "PACKAGES", "PROGRAMS", "ENTRY_LINES")
    code = f"import sys; sys.path.insert(0, sys.argv[1]); from _mainstay_guard import report; print([getattr(report, name) for name in {names}])"
    done = subprocess.run([sys.executable, "-I", "-c", code, SITE], capture_output=True, text=True, timeout=60, check=True)
    theirs = dict(zip(names, ast.literal_eval(done.stdout), strict=True))
    ours = {name: getattr(prose, name) for name in names}
    assert {name: sorted(words) if isinstance(words, tuple) else words for name, words in theirs.items()} == {
        name: sorted(words) if isinstance(words, tuple) else words for name, words in ours.items()
    }
