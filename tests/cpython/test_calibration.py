"""What a calibration finds has to be what the tables say, wherever we have both."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace
from pythons import Child, Python

from supervisor.cpython import calibration
from supervisor.cpython.calibration import calibrate, measure
from supervisor.cpython.layout import Calibration, Layout, assemble, layout_of, read_offsets
from supervisor.cpython.memory import Memory
from supervisor.cpython.target import locate
from supervisor.errors import LayoutError


def first_thread(layout: Layout) -> calibration.Heads:
    def find(memory: Memory, runtime: int) -> int:
        interpreter = memory.pointer(runtime + layout.interpreters_head)
        return memory.pointer(interpreter + layout.interpreter_threads)

    return find


def never() -> Calibration:
    raise AssertionError("a version with a table needs no calibration")


def test_a_calibration_finds_what_the_tables_say(python: Python, spawn: object) -> None:
    child: Child = spawn(python.path, "eye_depth.py", 3)  # type: ignore[operator]
    child.line()
    target = locate(child.pid)
    layout = layout_of(target.version, target.memory, target.runtime, never)
    found = measure(python.path, first_thread(layout))
    assert found.recursion == layout.thread_recursion
    if python.version >= (3, 12):
        assert found.exception == layout.thread_exception
    target.memory.close()


def test_the_own_table_of_313_gives_the_whole_layout(python: Python, spawn: object) -> None:
    child: Child = spawn(python.path, "eye_depth.py", 3)  # type: ignore[operator]
    child.line()
    target = locate(child.pid)
    if python.version >= (3, 13):
        offsets = read_offsets(target.version, target.memory, target.runtime)
        known = Calibration(44 if python.version < (3, 14) else 48, 112)
        assert assemble(target.version, offsets, known) == layout_of(target.version, target.memory, target.runtime, lambda: known)
    else:
        with pytest.raises(LayoutError, match="does not start with its table"):
            read_offsets((3, 13), target.memory, target.runtime)
    target.memory.close()


def test_a_calibration_is_kept_on_disk_until_the_binary_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spawn: object) -> None:
    child: Child = spawn(sys.executable, "eye_depth.py", 3)  # type: ignore[operator]
    child.line()
    binary = locate(child.pid).binary
    starts = []

    def counted(*arguments: object) -> Calibration:
        starts.append(arguments)
        return Calibration(32, 96)

    monkeypatch.setattr(calibration, "measure", counted)
    cache = str(tmp_path / "cache")
    for _ in range(2):
        calibration._known.clear()
        assert calibrate(binary, lambda *_: 0, cache) == Calibration(32, 96)
    assert len(starts) == 1
    (file,) = os.listdir(cache)
    assert json.loads((tmp_path / "cache" / file).read_text())["path"] == binary.path
    calibrate(replace(binary, mtime_ns=binary.mtime_ns + 1), lambda *_: 0, cache)
    assert len(starts) == 2
    calibration._known.clear()
    (tmp_path / "cache" / file).write_text("{damaged")
    assert calibrate(binary, lambda *_: 0, cache) == Calibration(32, 96)
    assert len(starts) == 3
    calibration._known.clear()


def test_a_binary_that_others_could_change_is_never_started(spawn: object) -> None:
    child: Child = spawn(sys.executable, "eye_depth.py", 3)  # type: ignore[operator]
    child.line()
    binary = replace(locate(child.pid).binary, may_be_run=False)
    calibration._known.clear()
    with pytest.raises(LayoutError, match="could be changed by other users"):
        calibrate(binary, lambda *_: 0, None)


def test_a_world_writable_interpreter_is_one_that_others_could_change(tmp_path: Path) -> None:
    from supervisor.cpython.target import _binary

    file = tmp_path / "python"
    file.write_bytes(b"")
    for mode, trusted in ((0o755, True), (0o775, False), (0o757, False)):
        file.chmod(mode)
        assert _binary("p", os.stat(file), "p", os.stat(file)).may_be_run is trusted
        assert stat.S_IMODE(os.stat(file).st_mode) == mode
