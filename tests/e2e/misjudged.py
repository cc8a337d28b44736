"""Programs that were once misjudged: each looks like a runaway recursion, or like a job out of memory, and is neither.

They are controls like those in ``controls``, under limits of their own.
"""

from collections.abc import Callable

from controls import Control
from deathbench import End

TIGHT = "--memory 100MiB --time 30s --recursion 400 --processes 40"
HANGS = "--memory 100MiB --time 3s --recursion 400 --processes 30 --output 10MiB"
COMPUTES = "--memory 100MiB --cpu 2s --recursion 400"

DOWN = """
import ctypes, mmap, os, tempfile, threading
def down(n):
    if n == 0:
        {end}
    return down(n - 1)
{start}
"""
SHARED_PAGE = "f = tempfile.TemporaryFile(); f.truncate(4096); page = mmap.mmap(f.fileno(), 4096); f.truncate(0)\n"
TREE = """
import ctypes
class Dir:
    def __init__(self, depth):
        self.kids = [Dir(depth - 1)] if depth else []
    def size(self):
        return sum(kid.size() for kid in self.kids) if self.kids else ctypes.string_at(0)
Dir(60).size()
"""
CAUGHT = """
import threading, time
def walk(n):
    return walk(n + 1)
def spin():
    while True:
        pass
for _ in range(20):
    try:
        walk(0)
    except RecursionError:
        pass
"""
MEMORY_CAUGHT = """
import time
def spin():
    while True:
        pass
for _ in range(30):
    try:
        bytearray(1 << 40)
    except MemoryError:
        pass
"""
REJECTS = """
import time
def walk(n):
    return walk(n + 1)
def wait():
    time.sleep(0.05)
while True:
    try:
        walk(0)
    except RecursionError:
        pass
    wait()
"""


def _says(*texts: str) -> Callable[[End], object]:
    return lambda end: end.report["cycle"] is None and all(text in end.report["summary"] for text in texts)


def _crash(end: str, start: str, where: str, name: str = "SIGSEGV", code: int = 139) -> Control:
    return Control(DOWN.format(end=end, start=start), "crashed", code, _says(name, where), everywhere=True, options=TIGHT)


def _after(program: str, end: str, limit: str, *texts: str, options: str = HANGS) -> Control:
    """*program* and then *end*, which meets *limit*."""
    outcome = {"stall": "stalled"}.get(limit, limit)
    return Control(program + end, outcome, 124, _says(*texts), everywhere=True, limit=limit, options=options)


MISJUDGED: dict[str, Control] = {
    # a crash amid a legal recursion
    **{f"a null pointer {depth} levels down": _crash("ctypes.string_at(0)", f"down({depth})", "string_at") for depth in (10, 30, 90, 150, 330)},
    "a null pointer 150 levels down, in a thread": _crash("ctypes.string_at(0)", "t = threading.Thread(target=down, args=(150,)); t.start(); t.join()", "string_at"),
    "a null pointer down a tree": Control(TREE, "crashed", 139, _says("SIGSEGV", "string_at"), everywhere=True, options=TIGHT),
    "an abort 150 levels down": _crash("os.abort()", "down(150)", "down", "SIGABRT", 134),
    "SIGBUS 150 levels down": _crash("return page[0]", SHARED_PAGE + "down(150)", "down", "SIGBUS", 135),
    "its own SIGSEGV 150 levels down": _crash("os.kill(os.getpid(), 11)", "down(150)", "down"),
    "a crash with faulthandler in its own hands": Control(
        "import ctypes, faulthandler, sys\nfaulthandler.enable(sys.stderr)\nctypes.string_at(0)", "crashed", 139, _says("SIGSEGV"), everywhere=True, options=TIGHT
    ),
    # errors that were caught long ago, or at ease
    "RecursionErrors caught, then a sleep": _after(CAUGHT, "time.sleep(20)", "time", "hanging: sleeping"),
    "RecursionErrors caught, then a lock": _after(CAUGHT, "lock = threading.Lock(); lock.acquire(); lock.acquire()", "time", "hanging: waiting for a lock"),
    "RecursionErrors caught, then a loop": _after(CAUGHT, "spin()", "cpu", "in spin", options=COMPUTES),
    "RecursionErrors caught, then too much output": _after(CAUGHT, "while True: print('x' * 1000, flush=True)", "output"),
    "RecursionErrors caught, then too many threads": _after(
        CAUGHT, "for i in range(40): threading.Thread(target=time.sleep, args=(9,), daemon=True).start(); time.sleep(0.01)\ntime.sleep(5)", "processes"
    ),
    "RecursionErrors caught now and then": _after(REJECTS, "", "time", "slow"),
    "MemoryErrors caught, then a sleep": _after(MEMORY_CAUGHT, "time.sleep(20)", "time", "hanging: sleeping"),
    "MemoryErrors caught, then a loop": _after(MEMORY_CAUGHT, "spin()", "cpu", "in spin", options=COMPUTES),
}  # fmt: skip
