"""Location tables, checked against the interpreter's own decoder on every function of some modules of the standard library."""

import argparse
import inspect
import types

import pytest

from supervisor.cpython.lines import line_at


def codes_of(module: types.ModuleType) -> list[types.CodeType]:
    todo = [compile(inspect.getsource(module), module.__file__ or "", "exec")]
    found = []
    while todo:
        code = todo.pop()
        found.append(code)
        todo += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return found


@pytest.mark.parametrize("module", [argparse, inspect, types])
def test_every_instruction_has_the_line_that_python_gives_it(module: types.ModuleType) -> None:
    checked = 0
    for code in codes_of(module):
        for start, _, line in code.co_lines():
            if line is not None:
                assert line_at(code.co_linetable, code.co_firstlineno, start) == line
                checked += 1
    assert checked > 100


def test_a_frame_that_has_not_begun_stands_at_its_first_line() -> None:
    code = codes_of(types)[0]
    assert line_at(code.co_linetable, code.co_firstlineno, -2) == code.co_firstlineno


@pytest.mark.parametrize("table", [b"", b"\xf0\x40\x40\x40", b"\x00\x00", bytes(range(256))])
def test_a_damaged_table_gives_some_line_and_no_error(table: bytes) -> None:
    assert isinstance(line_at(table, 7, 10), int)
