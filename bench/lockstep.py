"""The run time of a Python with the guard over that without, told apart from where things lie in memory and from what else the machine does.

The same Python work takes some per cent more or less from process to process and from program to program, with the same instructions, by
the addresses of its code, its frames and its objects: one more import before it weighs as much as what is looked for here (T. Mytkowicz et
al., "Producing wrong data without doing anything obviously wrong!", ASPLOS 2009). So the work is cut into slices of some milliseconds, and
before each slice its process moves the work elsewhere in its memory: allocations of random sizes, the code compiled anew behind them, a
random depth of frames below it (C. Curtsinger and E. Berger, "Stabilizer", ASPLOS 2013). Three processes take turns slice by slice, so that
all see the same machine: two without the guard and one with it. What the two without differ by is what cannot be told.
"""

import itertools
import math
import statistics
import subprocess
from contextlib import ExitStack
from typing import Self

from harness import UnmeasuredError

BARE, GUARDED, CONTROL = range(3)
ORDERS = tuple(itertools.permutations((BARE, GUARDED, CONTROL)))
TRIOS = 20  # of processes: some addresses stay where they are for the life of a process
SLICES = 30  # of each process of a trio
END_S = 30.0
# B() and E() stand around what is timed: their own process's CPU time.
_PROGRAM = """
import sys, time
took = [0]
def B(): took[0] = time.process_time_ns()
def E(): took[0] = time.process_time_ns() - took[0]
def at(depth):
    if depth:
        return at(depth - 1)
    exec(compile({work!r}, "<work>", "exec"), {{"B": B, "E": E}})
state, pads = {seed}, []
for _ in sys.stdin:
    for _ in range(20):
        state = (state * 1103515245 + 12345) & 0x7fffffff
        pads.append(bytes((state >> 8) % 1500))
    del pads[:-400]
    at((state >> 8) % 40)
    print(took[0], flush=True)
"""


def ratios(python: str, work: str, plain: dict[str, str], armed: dict[str, str]) -> tuple[float, float]:
    """(guarded over the mean of both bare ones, bare over bare): medians over all slices.

    *work* is the text of one slice, with B() before and E() after what is timed; *plain* and *armed* are the environments.
    """
    found: list[tuple[float, float]] = []
    for trio in range(TRIOS):
        with ExitStack() as stack:
            workers = [
                stack.enter_context(_Worker(python, work, environment, seed=3 * trio + place + 1))
                for place, environment in enumerate((plain, armed, plain))
            ]
            for turn in range(-1, SLICES):
                took = {place: workers[place].slice_ns() for place in ORDERS[turn % len(ORDERS)]}
                if turn >= 0:  # not the first slice, which sees the interpreter cold
                    bare, guarded, control = (math.log(took[place]) for place in (BARE, GUARDED, CONTROL))
                    found.append((guarded - (bare + control) / 2, control - bare))
    over_bare, bare_twice = (math.exp(statistics.median(column)) for column in zip(*found, strict=True))
    return over_bare, bare_twice


class _Worker:
    """One Python that does a slice when it is told to; ended on leaving."""

    def __init__(self, python: str, work: str, environment: dict[str, str], seed: int) -> None:
        argv = [python, "-c", _PROGRAM.format(work=work, seed=seed)]
        self._process = subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def slice_ns(self) -> int:
        """CPU nanoseconds that the next slice took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline()
        if not said:
            raise UnmeasuredError(f"{self._process.args!r:.80} ended with {self._process.wait(END_S)}")
        return int(said)

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()
