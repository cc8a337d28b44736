"""One bug, one name: what must not change it, and what must."""

import pytest
from msgspec.structs import replace

from supervisor.core.cycle import Level, find_cycle
from supervisor.core.evidence import Cycle, CycleKind, ExceptionFacts, Frame
from supervisor.core.fingerprint import NAMED_BY_OUTCOME, fingerprint
from supervisor.core.model import Outcome
from supervisor.core.prose import own_frames

A, B = Frame("walk", "/srv/app/tree.py", 14), Frame("visit", "/srv/app/tree.py", 20)
CYCLE = Cycle((A, B), 1001)
LIBRARY = Frame("get", "/usr/lib/python3.11/queue.py", 171)
ERROR = ExceptionFacts("KeyError", "'user-17'", (A, LIBRARY, B), 3)


def recursion(cycle):
    return fingerprint("job", Outcome.RECURSION, cycle=cycle)


def exception(error):
    return fingerprint("job", Outcome.EXCEPTION, exception=error, exit_code=1)


@pytest.mark.parametrize(
    "cycle",
    [
        replace(CYCLE, depth=52_560),  # another depth
        replace(CYCLE, frames=(B, A)),  # another place to begin the turn
        replace(CYCLE, notes=("n never changes",)),
        replace(CYCLE, kind=CycleKind.TASKS),
        replace(CYCLE, frames=(replace(A, line=15), replace(B, line=99))),  # an edit further up
        replace(CYCLE, frames=(replace(A, file="/opt/venv/app/tree.py"), B)),  # installed elsewhere
        replace(CYCLE, frames=(replace(A, function="Tree.walk"), B)),  # a qualified name
        replace(CYCLE, frames=(replace(A, function="make.<locals>.walk"), B)),
    ],
)
def test_a_recursion_keeps_its_name_however_it_is_seen(cycle):
    assert recursion(cycle) == recursion(CYCLE)


def test_exit_code_and_signal_do_not_rename_a_recursion():
    assert fingerprint("job", Outcome.RECURSION, cycle=CYCLE, exception=ERROR, exit_code=1, signal=11) == recursion(CYCLE)


@pytest.mark.parametrize(
    "error",
    [
        replace(ERROR, message="'user-18'"),  # another record
        replace(ERROR, frames=(replace(A, line=7), LIBRARY, B)),
        replace(ERROR, frames=(A, B)),  # another release of the library
        replace(ERROR, frames=(A, A, A, LIBRARY, B), depth=5),  # a healthy recursion, deeper this time
    ],
)
def test_an_exception_keeps_its_name_over_records_and_releases(error):
    assert exception(error) == exception(ERROR)


@pytest.mark.parametrize(
    "other",
    [
        recursion(CYCLE),
        exception(replace(ERROR, type="ValueError")),
        exception(replace(ERROR, frames=(A, LIBRARY))),
        fingerprint("other", Outcome.EXCEPTION, exception=ERROR, exit_code=1),
        fingerprint("job", Outcome.FAILED, exit_code=1),
    ],
)
def test_another_bug_has_another_name(other):
    assert exception(ERROR) != other


def test_a_traceback_that_is_all_library_is_named_by_the_library():
    of_library = [exception(replace(ERROR, frames=(replace(LIBRARY, function=name),))) for name in ("get", "put")]
    assert of_library[0] != of_library[1]


@pytest.mark.parametrize("kind", ["<listcomp>", "walk.<locals>.<dictcomp>", "<setcomp>"])
@pytest.mark.parametrize("outcome", [Outcome.EXCEPTION, Outcome.TIME, Outcome.RECURSION, Outcome.CRASHED])
def test_a_comprehension_is_a_part_of_its_function_as_from_python_3_12_on(outcome, kind):
    def name(*frames):
        error = replace(ERROR, frames=frames)
        return fingerprint("job", outcome, cycle=Cycle(frames, 900), exception=error, frames=frames[::-1], hangs_in=frames[::-1])

    assert name(A, Frame(kind, A.file, 14)) == name(A) != name(B)


PARSE = ExceptionFacts("KeyError", "", (Frame("parse", "/srv/app/job.py", 0),), 1, at="11")
SEND = ExceptionFacts("ConnectionError", "", (Frame("send", "/srv/app/job.py", 0),), 1, at="22")


def test_bugs_behind_one_wrapper_pool_or_group_have_names_of_their_own():
    of_causes = [
        exception(replace(ERROR, origins=origins)) for origins in ((), (PARSE,), (SEND,), (replace(PARSE, at="33"),), (PARSE, SEND))
    ]
    of_workers = [exception(replace(ERROR, root=replace(error, where="child"))) for error in (PARSE, SEND)]
    assert len({*of_causes, *of_workers}) == 7


def test_which_task_of_a_group_failed_first_and_how_many_did_makes_no_other_name():
    assert len({exception(replace(ERROR, origins=origins)) for origins in ((PARSE, SEND), (SEND, PARSE), (PARSE, SEND, PARSE))}) == 1


# ---------------------------------------------------------------- applications that are installed

WRAPPER = Frame("<module>", "/opt/acme/bin/acme", 8)
RUNPY = Frame("_run_module_as_main", "<frozen runpy>", 198)
MAIN = Frame("<module>", "/opt/acme/lib/python3.12/site-packages/acme/__main__.py", 3)
LOAD = Frame("load", "/opt/acme/lib/python3.12/site-packages/acme/orders.py", 2)
FETCH = Frame("fetch", "/opt/acme/lib/python3.12/site-packages/acme/users.py", 4)
HOOK = Frame("call", "/opt/acme/lib/python3.12/json/decoder.py", 9)


@pytest.mark.parametrize("start", [(WRAPPER,), (RUNPY, MAIN)], ids=["its script", "python -m"])
@pytest.mark.parametrize("outcome", [Outcome.EXCEPTION, Outcome.TIME, Outcome.RECURSION])
def test_an_installed_application_has_a_name_for_each_of_its_bugs(start, outcome):
    def name(*frames):
        if outcome is Outcome.RECURSION:
            cycle = find_cycle([Level(frame, 0) for frame in reversed((*start, *frames * 100))])
            return fingerprint("job", outcome, cycle=cycle)
        stack = (*start, *frames)
        return fingerprint("job", outcome, exception=ExceptionFacts("KeyError", "", stack, len(stack)), hangs_in=stack[::-1])

    assert len({name(LOAD), name(FETCH)}) == 2
    assert name(LOAD) == name(LOAD, replace(HOOK, line=7)) != name(FETCH, HOOK)  # another release of the standard library


def test_a_cycle_of_the_standard_library_has_the_name_of_the_package_that_called_into_it():
    def origin(caller):
        return find_cycle([Level(frame, 0) for frame in reversed((WRAPPER, caller, *(HOOK,) * 100))]).origin

    assert (origin(LOAD), origin(FETCH)) == (LOAD, FETCH)


ENTRIES = [
    ("/opt/acme/bin/acme", 8, FETCH.file, False),
    ("/opt/acme/bin/acme", 12, FETCH.file, False),  # uv's, with a long path to the interpreter
    ("/usr/local/bin/acme", 8, "/usr/local/lib/python3.11/dist-packages/acme/users.py", False),
    ("/home/me/.local/bin/acme", 8, "/home/me/.local/share/pipx/venvs/acme/lib/python3.12/site-packages/acme/users.py", False),
    ("/opt/acme/bin/acme.py", 8, FETCH.file, True),  # somebody's own
    ("/opt/acme/bin/acme", 40, FETCH.file, True),
    ("/srv/app/bin/acme", 8, FETCH.file, True),
    ("/opt/acme/acme", 8, FETCH.file, True),
    ("/opt/acme/bin/acme", 8, "/usr/lib/python3.12/json/decoder.py", True),
]


@pytest.mark.parametrize(("script", "line", "called", "is_own_script"), ENTRIES)
def test_only_a_script_that_starts_an_installed_application_is_passed_over(script, line, called, is_own_script):
    frames = (Frame("<module>", script, line), Frame("fetch", called, 4))
    for stack in (frames, frames[::-1]):  # as tracebacks and as looks have them
        assert own_frames(stack) == [frames[0 if is_own_script else 1]]
    assert own_frames((Frame("main", script, line), frames[1])) == [Frame("main", script, line)]  # it has a function of its own
    assert own_frames((*frames, A)) == [frames[0], A] if is_own_script else [A]


def test_failures_are_told_apart_by_code_and_crashes_by_signal_and_place():
    names = [fingerprint("job", Outcome.FAILED, exit_code=code) for code in (1, 2)]
    names += [fingerprint("job", Outcome.CRASHED, signal=number, frames=frames) for number in (6, 11) for frames in ((A,), (B,))]
    names += [fingerprint("job", Outcome.SIGNALLED, signal=number) for number in (9, 15)]
    assert len(set(names)) == len(names) == 8


@pytest.mark.parametrize("outcome", sorted(NAMED_BY_OUTCOME))
def test_a_limit_is_the_same_bug_however_the_end_came(outcome):
    assert fingerprint("job", outcome, signal=9) == fingerprint("job", outcome, exit_code=1, exception=ERROR)


def test_a_name_is_twelve_hexadecimal_digits_even_of_hostile_text():
    name = fingerprint("\udcff\0", Outcome.EXCEPTION, exception=ExceptionFacts("\udc80", "", (Frame("", "", 0),), 1))
    assert len(name) == 12
    int(name, 16)
