"""Finds, once per interpreter binary, the offsets that no table tells, by starting it with a known recursion limit and looking.

The result is kept on disk by path, inode and time of change. A binary that somebody other than root or ourselves could change is
never started: the supervisor may be root, the job's Python its user's own.
"""

import contextlib
import hashlib
import json
import os
import select
import struct
import subprocess
from collections.abc import Callable
from typing import Any

from msgspec.structs import asdict

from supervisor.cpython.layout import Calibration
from supervisor.cpython.memory import Memory
from supervisor.cpython.target import Binary, Target, locate
from supervisor.errors import LayoutError

# An odd limit that nobody else would set; the depth of the waiting script is a handful of frames.
_LIMIT = 7919
_DEEPEST = 64
_SCRIPT = f"import sys; sys.setrecursionlimit({_LIMIT}); sys.stdout.write('ready'); sys.stdout.flush(); sys.stdin.read()"
_SCAN_BYTES = 512
_START_S = 20.0

Heads = Callable[[Memory, int], int]
_known: dict[Binary, Calibration] = {}


def calibrate(binary: Binary, first_thread: Heads, cache_dir: str | None, proc: str = "/proc") -> Calibration:
    """The calibration of *binary*, from *cache_dir* if it is there. *first_thread* finds a thread state's address from (memory, runtime).

    Takes one start of the interpreter (20 to 200 ms), else microseconds. ``LayoutError`` if nothing unique is found.
    """
    path = _cache_path(binary, cache_dir)
    known = _known.get(binary) or _load(path)
    if known is not None:
        _known[binary] = known
        return known
    if not binary.may_be_run:
        raise LayoutError(f"{binary.program} could be changed by other users, so it is not started to learn its layout")
    found = measure(binary.program, first_thread, proc)
    _known[binary] = found
    _save(path, binary, found)
    return found


def measure(program: str, first_thread: Heads, proc: str = "/proc") -> Calibration:
    """Start *program* and find the offsets. It sees an empty environment and no site-packages, and ends with our end of its pipe."""
    pipe = subprocess.PIPE
    try:
        child = subprocess.Popen(
            [program, "-I", "-S", "-c", _SCRIPT], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env={}, start_new_session=True
        )
    except OSError as err:
        raise LayoutError(f"{program} cannot be started to learn its layout: {err.strerror}") from err
    with child:
        try:
            _await_ready(child, program)
            target = locate(child.pid, proc)
            try:
                return _scan(target, first_thread(target.memory, target.runtime))
            finally:
                target.memory.close()
        finally:
            child.kill()


def _await_ready(child: "subprocess.Popen[bytes]", program: str) -> None:
    assert child.stdout is not None  # noqa: S101  (we asked for a pipe)
    ready, _, _ = select.select([child.stdout], [], [], _START_S)
    if not ready or os.read(child.stdout.fileno(), 5) != b"ready":
        raise LayoutError(f"{program} did not get ready within {_START_S:g} s when it was started to learn its layout")


def _scan(target: Target, thread: int) -> Calibration:
    raw = target.memory.some(thread, _SCAN_BYTES)
    pairs = [at for at in range(0, len(raw) - 7, 4) if _is_pair(*struct.unpack_from("<ii", raw, at))]
    if len(pairs) != 1:
        raise LayoutError(f"{len(pairs)} places in the thread state of Python {target.version} look like its recursion counter")
    return Calibration(pairs[0], _exception_offset(raw, thread) if target.version >= (3, 12) else None)


def _is_pair(remaining: int, limit: int) -> bool:
    return limit == _LIMIT and _LIMIT - _DEEPEST <= remaining < _LIMIT


def _exception_offset(raw: bytes, thread: int) -> int | None:
    """``exc_info`` points back into the thread state (to ``exc_state``). Before it stand two profile functions, their two objects, and
    the exception in flight: five words, all NULL now. The first such place counts; None, and so no report of exceptions, if there is none.
    """
    words = struct.unpack(f"<{len(raw) // 8}Q", raw[: len(raw) // 8 * 8])
    places = (i for i in range(5, len(words)) if thread < words[i] < thread + 1024 and not any(words[i - 5 : i]))
    return next(((i - 1) * 8 for i in places), None)


def _cache_path(binary: Binary, cache_dir: str | None) -> str | None:
    if cache_dir is None:
        return None
    name = hashlib.sha256(f"{binary.path}\0{binary.inode}\0{binary.mtime_ns}".encode(errors="surrogateescape")).hexdigest()
    return os.path.join(cache_dir, f"layout-{name[:32]}.json")


def _load(path: str | None) -> Calibration | None:
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            return _parse(json.load(file))
    except (OSError, ValueError):
        return None  # absent or damaged: measured anew, and written over


def _parse(raw: Any) -> Calibration | None:
    if not isinstance(raw, dict):
        return None
    recursion, exception = raw.get("recursion"), raw.get("exception")
    if not isinstance(recursion, int) or not isinstance(exception, int | None) or not 0 <= recursion < _SCAN_BYTES:
        return None
    return Calibration(recursion, exception)


def _save(path: str | None, binary: Binary, found: Calibration) -> None:
    if path is None:
        return
    text = json.dumps({"path": binary.path, "inode": binary.inode, "mtime_ns": binary.mtime_ns, **asdict(found)})
    draft = f"{path}.{os.getpid()}"
    # A cache that cannot be written costs a start next time, nothing else.
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(draft, path)
