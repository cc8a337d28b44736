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
BY_HAND = """
import time
def check(n):
    if n % 2:
        raise RecursionError("a cycle in the bill of materials")
end = time.monotonic() + 3
while time.monotonic() < end:
    for n in range(1000):
        try:
            check(n)
        except RecursionError:
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

NESTING = """
def parse(n):
    if n > {line}:
        raise RecursionError("nesting deeper than {line}")
    return parse(n + 1)
parse(0)
"""
EXECUTOR = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
def work(n):
    {work}
if __name__ == "__main__":
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        pool.submit(work, 1).result()
"""
OWN_LIMIT = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (150 << 20, 150 << 20))
kept = []
while True:
    kept.append(bytearray(1 << 20))
"""
CACHE = """
kept = []
try:
    kept.append(bytearray(1 << 62))
except MemoryError as err:
    raise RuntimeError("cache full") from err
"""
NEAR = """
import ctypes, time
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
kept = []
while resident() < 98 << 20:
    kept.append(bytearray(1 << 17))
time.sleep(1)
ctypes.string_at(0)
"""


def _says(*texts: str) -> Callable[[End], object]:
    return lambda end: end.report["cycle"] is None and all(text in end.report["summary"] for text in texts)


def _no_limit(end: End) -> object:
    return end.report["cycle"] is None and end.report["limit"] is None


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
    # an error that somebody raised by hand
    **{
        f"RecursionError by hand, {name}": Control(program, "exception", 1, _says(said), everywhere=True, options=TIGHT)
        for name, program, said in (
            ("at the top", "raise RecursionError('maximum recursion depth exceeded')", "RecursionError: maximum recursion depth exceeded, in <module>"),
            ("in a function", "def load(config):\n    raise RecursionError('config includes itself')\nload({})", "config includes itself, in load"),
            ("60 levels down", NESTING.format(line=60), "nesting deeper than 60, in parse"),
            ("100 levels down", NESTING.format(line=100), "nesting deeper than 100, in parse"),
            ("in a worker", EXECUTOR.format(work="raise RecursionError('cyclic bill')"), "RecursionError: cyclic bill, in work"),
        )
    },
    "RecursionError made something else of": Control(
        "def walk(n):\n    return walk(n + 1)\ntry:\n    walk(0)\nexcept RecursionError as err:\n    raise ValueError('bad tree') from err",
        "exception", 1, _says("ValueError: bad tree", "it came from a runaway recursion: walk → walk", "at its recursion limit of 400"), everywhere=True, options=TIGHT,
    ),
    # a MemoryError that our line has no part in
    **{
        f"MemoryError, {name}": Control(program, "exception", 1, _says("MemoryError", *said), everywhere=True, options=TIGHT)
        for name, program, said in (
            ("by hand", "def load(config):\n    raise MemoryError('config too large')\nload({})", ["config too large, in load"]),
            ("by hand in a worker", EXECUTOR.format(work="raise MemoryError('tile too big')"), ["tile too big, in work"]),
            ("of a list of 2 ** 62", "def load(n):\n    return [0] * n\nload(1 << 62)", ["in load", "far below its memory limit of 100MiB"]),
            ("of 2 ** 62 bytes", "def read(n):\n    return bytearray(n)\nread(1 << 62)", ["in read", "far below its memory limit of 100MiB"]),
        )
    },
    # 3.14's parser has a stack for it, and another word.
    "an expression too deep for the parser": Control("def load(text):\n    return compile(text, 'rules', 'eval')\nload('-' * 100000 + '1')", "exception", 1, _says("MemoryError"), everywhere=True, options=TIGHT),
    "MemoryError at an RLIMIT_AS of its own": Control(OWN_LIMIT, "exception", 1, _says("MemoryError", "far below its memory limit of 1GiB"), everywhere=True, options="--memory 1GiB --time 30s"),
    "MemoryError made something else of": Control(CACHE, "exception", 1, _says("RuntimeError: cache full", "it came from MemoryError"), everywhere=True, options=TIGHT),
    "no thread, by hand": Control("raise RuntimeError(\"can't start new thread\")", "exception", 1, _says("can't start new thread"), everywhere=True, options=TIGHT),
    "a null pointer near the line": Control(NEAR, "crashed", 139, _says("SIGSEGV", "string_at", "of its memory limit of 100MiB, and may have been refused more"), everywhere=True, options=TIGHT),
    "a tolerated child that recursed": Control(
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'def f(): f()\\nf()'])", proof=_says("a process of it died of RecursionError"), everywhere=True, options=TIGHT
    ),
    "a closed output": Control("import os\nos.close(1)\nprint('hello')", "exception", 120, _says("OSError", "Bad file descriptor", "flushed"), everywhere=True, options=TIGHT),
    # errors that were caught long ago, or at ease
    "RecursionErrors caught, then a sleep": _after(CAUGHT, "time.sleep(20)", "time", "hanging: sleeping"),
    "RecursionErrors caught, then a lock": _after(CAUGHT, "lock = threading.Lock(); lock.acquire(); lock.acquire()", "time", "hanging: waiting for a lock"),
    "RecursionErrors caught, then a loop": _after(CAUGHT, "spin()", "cpu", "in spin", options=COMPUTES),
    "RecursionErrors caught, then too much output": _after(CAUGHT, "while True: print('x' * 1000, flush=True)", "output"),
    "RecursionErrors caught, then too many threads": _after(
        CAUGHT, "for i in range(40): threading.Thread(target=time.sleep, args=(9,), daemon=True).start(); time.sleep(0.01)\ntime.sleep(5)", "processes"
    ),
    "RecursionErrors by hand, caught all the time": Control(BY_HAND, everywhere=True, options=TIGHT, proof=_no_limit),
    "RecursionErrors by hand, caught until its time is up": _after(BY_HAND.replace("+ 3", "+ 30"), "", "time", "busy"),
    "RecursionErrors caught now and then": _after(REJECTS, "", "time", "slow"),
    "MemoryErrors caught, then a sleep": _after(MEMORY_CAUGHT, "time.sleep(20)", "time", "hanging: sleeping"),
    "MemoryErrors caught, then a loop": _after(MEMORY_CAUGHT, "spin()", "cpu", "in spin", options=COMPUTES),
}  # fmt: skip
