"""One bug, one name: what must not change it, and what must."""

import pytest
from msgspec.structs import replace

from supervisor.core.evidence import Cycle, CycleKind, ExceptionFacts, Frame
from supervisor.core.fingerprint import NAMED_BY_OUTCOME, fingerprint
from supervisor.core.model import Outcome

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
