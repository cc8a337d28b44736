"""Programs that are no runaways, crashes or kills: well-behaved ones, and ones that fail in ordinary ways or look as if something else had happened.

Each has exactly one right verdict. They run under tight-looking but ample limits, with the guard, like the deaths in ``deathbench``.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass

from deathbench import End

AMPLE = ("--memory", "300MiB", "--time", "60s", "--cpu", "50s", "--recursion", "400", "--processes", "60", "--output", "10MiB")


@dataclass(frozen=True)
class Control:
    """A program, the one right verdict on it, and how ``exec`` ends for our caller."""

    program: str  # Python, or a line of shell after "sh: "
    outcome: str = "succeeded"
    code: int = 0
    proof: Callable[[End], object] = lambda end: True
    everywhere: bool = False  # in every Python, not just one of them
    limit: str | None = None
    options: str = " ".join(AMPLE)

    def command(self, python: str) -> list[str]:
        if self.program.startswith("sh: "):
            return ["/bin/sh", "-c", self.program[4:].replace("PYTHON", python)]
        return [python, "-c", self.program]


def _exit(code: int) -> Control:
    return Control(f"import sys; sys.exit({code})", "failed" if code else "succeeded", code)


def _signal(name: str, outcome: str = "signalled") -> Control:
    number = int(getattr(signal, name))
    program = f"import os, signal; signal.signal({number}, signal.SIG_DFL) if {number} != 9 else None; os.kill(os.getpid(), {number}); import time; time.sleep(20)"
    return Control(program, outcome, 128 + number)


def _no_cycle(end: End) -> bool:
    return end.report["cycle"] is None and end.report["limit"] is None


HANDLED = """
def f(n):
    return f(n + 1)
for _ in range(3):
    try:
        f(0)
    except RecursionError:
        pass
print("went on")
"""
DEEP = """
def depth(n):
    return 0 if n == 0 else 1 + depth(n - 1)
for _ in range(200):
    assert depth(340) == 340
"""
TREE = """
class Node:
    def __init__(self, depth):
        self.child = Node(depth - 1) if depth else None
    def count(self):
        return 1 + (self.child.count() if self.child else 0)
for _ in range(50):
    assert Node(150).count() == 151
"""
POOL = """
import multiprocessing as m
def double(n):
    return 2 * n
if __name__ == "__main__":
    with m.get_context("fork").Pool(3) as pool:
        assert pool.map(double, range(100)) == [2 * n for n in range(100)]
"""
EXECUTOR = """
from concurrent.futures import ProcessPoolExecutor
import os
if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        assert sum(pool.map(abs, range(-50, 50))) == 2500
"""
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.close(0); os.close(1); os.close(2)
        time.sleep(0.2)
    os._exit(0)
os.wait()
"""
CLOSED = "import os, sys\nfor fd in (0, 1, 2):\n    os.close(fd)\nsum(range(1000))"
CLOSED_ALL = "import os\nos.closerange(0, 1024)\nsum(range(1000))"
RENAMED = "import ctypes\nctypes.CDLL(None).prctl(15, {name!r}, 0, 0, 0)\nimport sys\nsys.exit(4)"
ASYNCIO = """
import asyncio
async def one(n):
    await asyncio.sleep(0.001)
    return n
async def main():
    assert sum(await asyncio.gather(*(one(n) for n in range(200)))) == 19900
asyncio.run(main())
"""
THREADS = """
import threading
found = []
threads = [threading.Thread(target=found.append, args=(n,)) for n in range(40)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert sorted(found) == list(range(40))
"""
FREED = "x = [bytearray(2**20) for _ in range(220)]\ndel x\nx = [bytearray(2**20) for _ in range(220)]"
MEMORY_HANDLED = "try:\n    bytearray(1 << 50)\nexcept MemoryError:\n    print('too much; going on')"
FAKE_DUMP = "import sys\nsys.stderr.write('Fatal Python error: Segmentation fault\\n\\nCurrent thread 0x01 (most recent call first):\\n  File \"a.py\", line 1 in f\\n')\nsys.exit(139)"
FORGED = """
import os, sys
folder = os.environ["MAINSTAY_GUARD_DIR"]
open(folder + "/999999.rep", "wb").write(b"mainstay-guard 1 3.12.1 pid 999999 ppid 1 depth 0".ljust(127) + b"\\n")
sys.exit(5)
"""
SAYS_TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\nRecursionError: maximum recursion depth exceeded\n'


def _writes(text: str, code: int) -> Control:
    return Control(
        f"import sys; sys.stderr.write({text!r}); print({text!r}); sys.exit({code})", "failed" if code else "succeeded", code, _no_cycle
    )


CONTROLS: dict[str, Control] = {
    **{f"exit code {code}": _exit(code) for code in (0, 1, 2, 3, 64, 77, 78, 79, 124, 125, 126, 127, 128, 130, 134, 135, 136, 137, 139, 143, 152, 158, 254, 255)},
    "exit code 256 is 0": Control("import sys; sys.exit(256)"),
    "exit code -1 is 255": Control("import sys; sys.exit(-1)", "failed", 255),
    "exit None": Control("import sys; sys.exit(None)"),
    "exit with a message": Control("import sys; sys.exit('MemoryError: Killed')", "failed", 1, _no_cycle),
    "os._exit(0)": Control("import os; os._exit(0)"),
    "os._exit(137)": Control("import os; os._exit(137)", "failed", 137),
    **{f"own {name}": _signal(name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGKILL", "SIGQUIT")},
    "own SIGURG is nothing": Control("import os, signal; os.kill(os.getpid(), signal.SIGURG)", everywhere=True),
    "os.abort": Control("import os; os.abort()", "crashed", 134),
    "handled SIGTERM": Control("import os, signal, sys; signal.signal(15, lambda *_: sys.exit(3)); os.kill(os.getpid(), 15); signal.pause()", "failed", 3),
    "alarm that is handled": Control("import signal; signal.signal(14, lambda *_: None); signal.setitimer(signal.ITIMER_REAL, 0.01); signal.pause()"),
    "text: Killed": _writes("Killed\n", 137),
    "text: Out of memory": _writes("Out of memory: Killed process 1 (python)\nMemoryError\n", 1),
    "text: a traceback of recursion": _writes(SAYS_TRACEBACK, 1),
    "text: a traceback and success": _writes(SAYS_TRACEBACK, 0),
    "text: a crash dump": Control(FAKE_DUMP, "failed", 139, _no_cycle),
    "text: Terminated": _writes("Terminated\n", 143),
    "a forged report of another process": Control(FORGED, "failed", 5, _no_cycle, everywhere=True),
    "RecursionError handled": Control(HANDLED, everywhere=True, proof=_no_cycle),
    "RecursionError handled, then exit 3": Control(HANDLED + "raise SystemExit(3)", "failed", 3, _no_cycle, everywhere=True),
    "RecursionError handled, then another exception": Control(
        HANDLED + "raise KeyError('user')", "exception", 1, lambda end: end.report["exception"]["type"] == "KeyError" and _no_cycle(end), everywhere=True
    ),
    "an exception that is called RecursionError": Control(
        "class RecursionErrorOfOurs(Exception): pass\nraise RecursionErrorOfOurs('maximum recursion depth exceeded')", "exception", 1, _no_cycle
    ),
    "an exception that is called MemoryError": Control("class NoMemoryErrorAtAll(Exception): pass\nraise NoMemoryErrorAtAll", "exception", 1, _no_cycle),
    "recursion that is deep and legal": Control(DEEP, everywhere=True, proof=_no_cycle),
    "a tree that is deep and legal": Control(TREE, everywhere=True, proof=_no_cycle),
    "MemoryError handled": Control(MEMORY_HANDLED, everywhere=True, proof=_no_cycle),
    "memory that goes up and down below its limit": Control(FREED, everywhere=True, proof=_no_cycle),
    "daemonizes": Control(DAEMON, everywhere=True),
    "closes its output": Control(CLOSED, everywhere=True),
    "closes every descriptor": Control(CLOSED_ALL, everywhere=True),
    "calls itself systemd": Control(RENAMED.format(name=b"systemd"), "failed", 4),
    "calls itself ') R 1": Control(RENAMED.format(name=b"') R 1"), "failed", 4),
    "multiprocessing": Control(POOL, everywhere=True),
    "process pool": Control(EXECUTOR, everywhere=True),
    "asyncio": Control(ASYNCIO, everywhere=True),
    "forty threads": Control(THREADS, everywhere=True),
    "SystemExit in a thread": Control("import threading, sys; t = threading.Thread(target=sys.exit, args=(9,)); t.start(); t.join()", everywhere=True),
    "exception in a thread": Control("import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()"),
    "exception in __del__": Control("class A:\n    def __del__(self): raise ValueError\na = A()\ndel a"),
    "a child that fails": Control("import subprocess, sys; subprocess.run([sys.executable, '-c', 'raise ValueError'])"),
    "a child that is killed": Control("import subprocess; p = subprocess.Popen(['sleep', '60']); p.kill(); p.wait()"),
    "a child that crashes": Control("import subprocess, sys; subprocess.run([sys.executable, '-c', 'import ctypes; ctypes.string_at(0)'])"),
    "a child of a child, through shells": Control("sh: (PYTHON -c 'import sys; sys.exit(3)' || true) | cat; exit 6", "failed", 6),
    "a shell whose Python fails": Control("sh: PYTHON -c 'import sys; sys.exit(137)'; exit 0"),
    "a shell that kills its sleep": Control("sh: sleep 60 & kill -9 $!; wait $!; exit 0"),
    "a shell that says 137 of its child": Control("sh: sh -c 'kill -9 $$'; exit $?", "failed", 137, _no_cycle),
    "no Python at all": Control("sh: exit 42", "failed", 42),
    "exec into another program": Control("import os; os.execv('/bin/true', ['true'])"),
    "starts itself twice": Control(
        "import os, subprocess, sys\nn = int(os.environ.get('LEVEL', '0'))\nos.environ['LEVEL'] = str(n + 1)\n"
        "if n < 2: subprocess.run([sys.executable, *sys.orig_argv[1:]], check=True)",
        everywhere=True,
    ),
    "a pipe that nobody reads": Control("import os; r, w = os.pipe(); os.close(r); os.write(w, b'x')", "exception", 1),
    "syntax error": Control("def f(:", "exception", 1),
    "no such module": Control("import nothing_of_that_name", "exception", 1),
    "KeyboardInterrupt": Control("raise KeyboardInterrupt", "signalled", 130),
    "exception group": Control("raise ExceptionGroup('both', [ValueError(1), TypeError(2)])", "exception", 1),
    "an exception that cannot be printed": Control("class E(Exception):\n    def __str__(self): raise RecursionError\nraise E", "exception", 1, _no_cycle),
    "an excepthook of its own": Control("import sys\nsys.excepthook = lambda *a: print('Killed')\nraise ValueError", "exception", 1, everywhere=True),
    "an excepthook of its own that ends it well": Control("import sys\nsys.excepthook = lambda *a: sys.exit(0)\nraise ValueError"),
    "an error that was only shown, then a failure": Control("import code, sys\ncode.InteractiveInterpreter(globals()).runsource('1/0')\nsys.exit(1)", "failed", 1),
    "a long line of output": Control("print('x' * 1_000_000)"),
    "bytes that are no text": Control("import sys; sys.stdout.buffer.write(bytes(range(256)) * 100)"),
    "busy within its limits": Control("sum(i * i for i in range(2_000_000))"),
    "sleeps within its limits": Control("import time; time.sleep(0.5)"),
    "profiled and traced": Control("import sys; sys.setprofile(lambda *a: None); sys.settrace(lambda *a: None); sum(range(100))", everywhere=True),
    "faulthandler of its own": Control("import faulthandler; faulthandler.enable(); faulthandler.dump_traceback()", everywhere=True),
    "a collector that is off": Control("import gc; gc.disable(); gc.freeze(); x = [[] for _ in range(10**5)]"),
    "sets and asks for its recursion limit": Control("import sys; sys.setrecursionlimit(300); assert sys.getrecursionlimit() == 300", everywhere=True),
}  # fmt: skip


def start(bench, python: str, name: str, control: Control) -> None:
    """Queue one control in one Python."""
    bench.start((python, name), control.options.split(), control.command(python))


def fault(control: Control, end: End) -> str:
    """What is wrong with the verdict, "" if nothing is."""
    got = (end.report["outcome"], end.report["limit"], end.code)
    wanted = (control.outcome, control.limit, control.code)
    if got != wanted:
        return f"wanted {wanted}; judged {got}"
    return "" if control.proof(end) else "right, but it says more than is known"
