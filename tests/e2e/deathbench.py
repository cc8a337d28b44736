"""The bench of deaths: kinds of end, each in every Python of this machine, run through ``mainstay exec --report`` and judged.

``make deaths`` prints the table; ``test_deaths`` and ``test_deaths_controls`` assert it. Many short children take turns on a few workers.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import PROGRAM, environment

CHILDREN = Path(__file__).resolve().parent.parent / "children"
DIE = str(CHILDREN / "die.py")
BOUND_S = 300.0  # a machine with ten times more to do than it can is no reason to fail
WORKERS = 6  # most of them wait for something at any time

Report = Mapping[str, Any]


@dataclass(frozen=True)
class End:
    """How one command ended under ``mainstay exec``: its exit code as our caller sees it, and the report."""

    code: int
    report: Report
    out: str
    err: str

    @property
    def evidence(self) -> str:
        return "\n".join(self.report["evidence"])

    @property
    def cycle(self) -> set[str]:
        """The functions of the cycle."""
        return {frame["function"] for frame in self.report["cycle"]["frames"]} if self.report["cycle"] else set()

    def stands_in(self, function: str) -> bool:
        """Whether that function is on any thread's stack."""
        return any(frame["function"] == function for stack in self.report["stacks"] for frame in stack["frames"])

    def told(self) -> str:
        return (
            json.dumps({key: self.report[key] for key in self.report if key not in ("stacks", "output_tail")}, indent=1)[:6000]
            + self.err[-1500:]
        )


@dataclass(frozen=True)
class Death:
    """A kind of death: what ``die.py`` is asked for, under which options, what the verdict is and what else has to be known about it."""

    words: tuple[str, ...]
    options: str
    outcome: str
    limit: str | None = None
    proof: Callable[[End], object] = field(default=lambda end: end.report)  # anything that is true
    also: tuple[tuple[str, str | None], ...] = ()  # other right answers, (outcome, limit)


class Bench:
    """Runs commands under ``mainstay exec`` on a few workers; every command once, its end kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(WORKERS)
        self._ends: dict[object, Future[End]] = {}

    def start(self, key: object, options: Iterable[str], command: Iterable[str], *, before: str = "") -> None:
        """Queue a command; *before* is a line of shell in front of it all."""
        if key not in self._ends:
            self._ends[key] = self._pool.submit(self._run, len(self._ends), list(options), list(command), before)

    def end(self, key: object) -> End:
        return self._ends[key].result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _run(self, number: int, options: list[str], command: list[str], before: str) -> End:
        folder = self._folder / str(number)
        folder.mkdir()
        argv = [*PROGRAM, "exec", *options, "--report", "report.json", "--", *command]
        if before:
            argv = ["/bin/sh", "-c", before + '\nexec "$@"', "sh", *argv]
        surroundings = environment("death", {"XDG_CACHE_HOME": str(self._folder / "cache")})
        with open(folder / "out", "wb") as out, open(folder / "err", "wb") as err:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder, env=surroundings)
            try:
                code = process.wait(BOUND_S)
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait(30)
                raise
        said = (folder / "out").read_text(errors="replace")[-5000:], (folder / "err").read_text(errors="replace")[-5000:]
        return End(code, json.loads((folder / "report.json").read_text()), *said)


def _names(*functions: str) -> Callable[[End], object]:
    return lambda end: end.cycle == set(functions)


def _says(*texts: str) -> Callable[[End], object]:
    """Each text stands in the summary or in a line of evidence."""
    return lambda end: all(text in end.report["summary"] + "\n" + end.evidence for text in texts)


def _raised(kind: str, function: str) -> Callable[[End], object]:
    return lambda end: end.report["exception"]["type"] == kind and end.report["exception"]["frames"][-1]["function"] == function


def _in(function: str, *texts: str) -> Callable[[End], object]:
    return lambda end: end.stands_in(function) and _says(*texts)(end)


def _paced(function: str, pace: str, *texts: str) -> Callable[[End], object]:
    """It stood in *function*, and the looks before the end found it busy, slow or hanging."""
    return lambda end: (
        _in(function, *texts)(end) and any(re.match(rf"\d+ looks in the last .*: {pace}", line) for line in end.report["evidence"])
    )


def _busy(function: str, *, in_c: bool) -> Callable[[End], object]:
    """The line that it went round is named, and whether it was in C there."""

    def proof(end: End) -> bool:
        first = end.report["busy_lines"][0]
        named = first["function"] == function and 2 * first["samples"] >= first["of"] >= 3
        return bool(named and first["in_c"] is in_c and _paced(function, "busy")(end))

    return proof


def _grown(function: str, *types: str) -> Callable[[End], object]:
    """Where the memory went: the line that was seen while it grew, the curve, and the largest types."""

    def proof(end: End) -> bool:
        curve, named = end.report["memory_curve"], [each["type"] for each in end.report["memory_types"][:6]]
        rose = 3 <= len(curve) <= 61 and max(size for _, size in curve) >= 2 * curve[0][1]
        return bool(rose and set(types) <= set(named) and _says(function, f"growing: in {function}")(end))

    return proof


def _waits(*texts: str) -> Callable[[End], object]:
    """The kernel's side of a hang: a thread with its wait channel and system call."""
    return lambda end: any(
        all(text in each["what"] for text in texts) and each["wchan"] and each["call"] is not None for each in end.report["waiting"]
    )


def _all(*proofs: Callable[[End], object]) -> Callable[[End], object]:
    return lambda end: all(proof(end) for proof in proofs)


SMALL = "--memory 120MiB --time 60s"
FILE = "here"

DEATHS: dict[str, Death] = {
    "clean": Death(("clean",), SMALL, "succeeded"),
    "exception": Death(("exception",), SMALL, "exception", None, _raised("ValueError", "exception")),
    "exception, chained": Death(("chained",), SMALL, "exception", None, _raised("RuntimeError", "chained")),
    "exception in a thread": Death(("thread_exception",), SMALL, "succeeded", None, _says("a thread of it died of ValueError")),
    "recursion": Death(("recursion",), SMALL, "recursion", None, _names("visit", "follow")),
    "recursion, our limit": Death(("recursion",), "--recursion 200 " + SMALL, "recursion", "recursion", _names("visit", "follow")),
    "recursion, raised": Death(("recursion_raised",), "--recursion 3000 " + SMALL, "recursion", "recursion", _names("visit", "follow")),
    "recursion, raised from C": Death(
        ("recursion_raised_past_the_guard",), SMALL, "recursion", "recursion", _names("visit", "follow")
    ),
    "recursion of three": Death(("recursion_of_three",), SMALL, "recursion", None, _names("alpha", "beta", "gamma")),
    "recursion, __repr__": Death(("recursion_repr",), SMALL, "recursion", None, _names("Node.__repr__")),
    "recursion, __getattr__": Death(("recursion_getattr",), SMALL, "recursion", None, _names("Node.__getattr__")),
    "recursion, sorted": Death(("recursion_sorted",), SMALL, "recursion", None, _names("by_key")),
    "recursion, json": Death(("recursion_json",), SMALL, "recursion", None, lambda end: "encode" in end.cycle),
    "recursion, pickle": Death(("recursion_pickle",), SMALL, "recursion", None, _says("die.py")),
    "recursion, generator": Death(("recursion_generator",), SMALL, "recursion", None, _names("walk")),
    "recursion, swallowed": Death(("recursion_swallowed",), SMALL, "recursion", "recursion", _names("visit", "follow")),
    "recursion, doubled": Death(("recursion_doubled",), SMALL, "recursion", "recursion", _names("twice")),
    "recursion, default argument": Death(("recursion_default_argument",), SMALL, "recursion", None, _names("default")),
    "recursion, growing argument": Death(("recursion_growing_argument",), SMALL, "recursion", None, _names("gather")),
    "memory, list": Death(("memory_list",), SMALL, "memory", "memory", _says("memory_list")),
    "memory, bytes": Death(("memory_bytes",), SMALL, "memory", "memory", _says("memory_bytes")),
    "memory, objects": Death(("memory_objects",), SMALL, "memory", "memory", _grown("memory_objects", "User", "str")),
    "memory, dict": Death(("memory_dict",), SMALL, "memory", "memory", _grown("memory_dict", "str", "tuple")),
    "memory, linked": Death(("memory_linked",), SMALL, "memory", "memory", _grown("memory_linked", "tuple", "object")),
    # A thread that is refused memory before it has begun leaves who starts it waiting for ever (CPython's own): then it is the time limit that strikes,
    # and the summary says what the thread died of.
    "memory, threads": Death(
        ("memory_threads",),
        SMALL,
        "memory",
        "memory",
        lambda end: _in("memory_bytes")(end) or _says("memory_bytes")(end) or _says("died of MemoryError at its memory limit")(end),
        (("memory", "memory"), ("time", "time")),
    ),
    "memory, at once": Death(("memory_at_once",), SMALL, "memory", "memory", _says("memory_at_once")),
    # Up to 3.11 nothing counts MemoryErrors that are caught: that its CPU time ran out is true, and the evidence says what else may be.
    "memory, swallowed": Death(
        ("memory_swallowed",), "--memory 120MiB --cpu 2s", "memory", "cpu", _says("memory"), (("memory", "memory"), ("cpu", "cpu"))
    ),
    "memory, shared": Death(("memory_shared",), SMALL, "memory", "memory", _says("memory_shared")),
    "memory of a child": Death(("memory_of_a_child",), SMALL, "memory", "memory"),
    "cpu, Python": Death(("cpu_python",), "--cpu 1s", "cpu", "cpu", _busy("cpu_python", in_c=False)),
    "cpu, regex": Death(("cpu_regex",), "--cpu 1s", "cpu", "cpu", _busy("cpu_regex", in_c=True)),
    "cpu, big number": Death(("cpu_number",), "--cpu 1s", "cpu", "cpu", _busy("cpu_number", in_c=True)),
    "cpu of children": Death(("cpu_children",), "--cpu 1s", "cpu", "cpu"),
    "cpu, kernel's limit": Death(("cpu_rlimit",), "--time 60s", "signalled", None, _says("SIGXCPU", "RLIMIT_CPU")),
    "time, sleep": Death(("time_sleep",), "--time 3s", "time", "time", _all(_paced("time_sleep", "hanging", "sleeping"), _waits("sleeping"))),
    "time, busy": Death(("cpu_python",), "--time 3s", "time", "time", _busy("cpu_python", in_c=False)),
    "time, regex": Death(("cpu_regex",), "--time 3s", "time", "time", _busy("cpu_regex", in_c=True)),
    "time, slow": Death(("time_slowly",), "--time 3s", "time", "time", _paced("time_slowly", "slow")),
    "time, lock": Death(("time_lock",), "--time 3s", "time", "time", _all(_paced("time_lock", "hanging", "waiting for a lock"), _waits("waiting for a lock"))),
    "time, deadlock": Death(("time_deadlock",), "--time 3s", "time", "time", _all(_paced("time_deadlock.<locals>.take", "hanging", "all 3 threads wait for locks: a deadlock"), lambda end: len(end.report["stacks"]) == 3)),
    "time, queue": Death(("time_queue",), "--time 3s", "time", "time", _paced("time_queue", "hanging", "waiting for a lock")),
    "time, socket": Death(("time_socket",), "--time 3s", "time", "time", _all(_paced("time_socket", "hanging"), lambda end: _waits(f"receiving from tcp 127.0.0.1:{end.out.strip()}")(end))),
    "time, child": Death(("time_child",), "--time 3s", "time", "time", _all(_paced("time_child", "hanging"), _waits("waiting for a child process (pid ", ", sleep)"))),
    "time, pipe": Death(("time_pipe",), "--time 3s", "time", "time", _all(_paced("time_pipe", "hanging"), _waits("reading from a pipe (fd "))),
    "time, file lock": Death(("time_file_lock", FILE), "--time 3s", "time", "time", _all(_paced("time_file_lock", "hanging"), _waits("waiting for a file lock on /", f"/{FILE} (fd "))),
    "time, event loop": Death(("time_events",), "--time 3s", "time", "time", _all(_paced("time_events", "hanging"), _waits("waiting for events"))),
    "stall": Death(("stall",), "--stall 2s", "stalled", "stall", _paced("stall", "hanging", "sleeping")),
    "processes": Death(("processes",), "--processes 10 --time 60s", "processes", "processes"),
    "output": Death(("output",), "--output 1MiB --time 60s", "output", "output"),
    "null pointer": Death(("null",), SMALL, "crashed", None, _says("SIGSEGV", "string_at")),
    "null pointer in a thread": Death(("null_in_a_thread",), SMALL, "crashed", None, _says("SIGSEGV", "string_at")),
    "C stack, iterators": Death(("overflow_in_c",), "--time 60s", "crashed", None, _says("SIGSEGV", "overflow_in_c")),
    "C stack, thread": Death(("overflow_in_c_in_a_thread",), "--time 60s", "recursion", None, _says("SIGSEGV")),
    "abort": Death(("abort",), SMALL, "crashed", None, _says("SIGABRT", "abort")),
    "SIGSEGV by hand": Death(("killed_by_itself", "11"), SMALL, "crashed", None, _says("SIGSEGV")),
    "SIGTERM by another": Death(("killed_by_another", "TERM"), SMALL, "signalled", None, _says("SIGTERM")),
    "SIGKILL by another": Death(("killed_by_another", "KILL"), SMALL, "signalled", None, _says("SIGKILL")),
    "exit code": Death(("exit_code", "7"), SMALL, "failed", None, lambda end: end.code == 7),
    "exit message": Death(("exit_message",), SMALL, "failed", None, lambda end: end.code == 1),
    "os._exit": Death(("hard_exit", "5"), SMALL, "failed", None, lambda end: end.code == 5),
    "exec of another": Death(("exec_another",), SMALL, "failed", None, lambda end: end.code == 9),
    "file size": Death(("file_size", FILE), SMALL, "exception", None, _raised("OSError", "file_size")),
    "worker killed": Death(("worker_killed",), SMALL, "exception", None, _says("BrokenProcessPool")),
}  # fmt: skip


def pythons() -> dict[str, str]:
    """Version → path of one CPython of each minor version from 3.11 on that can be had here, the newest of it."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cpython"))
    from pythons import find_pythons

    newest = {python.version[:2]: python for python in sorted(find_pythons(), key=lambda one: one.version)}
    return {".".join(map(str, python.version)): python.path for python in newest.values()}


def start(bench: Bench, python: str, name: str) -> None:
    death = DEATHS[name]
    bench.start((python, name), death.options.split(), [python, DIE, *death.words])


def fault(death: Death, end: End) -> str:
    """What is wrong with the verdict, "" if nothing is."""
    got = (end.report["outcome"], end.report["limit"])
    right = {(death.outcome, death.limit), *death.also}
    if death.outcome == "recursion" and death.limit is None:
        # Which of our lines a runaway meets first depends on the version and on the machine; that it is one does not.
        right |= {("recursion", "recursion"), ("recursion", "memory")}
    if got not in right:
        return f"wanted {death.outcome}, {death.limit}; judged {got[0]}, {got[1]}"
    try:
        proven = death.proof(end)
    except (KeyError, TypeError, IndexError) as err:
        return f"right, but the evidence lacks {err!r}"
    return "" if proven else "right, but the evidence does not say so"


def main(wanted: list[str]) -> int:
    """Run all (or those whose name holds a word of *wanted*) and print the table; the exit code."""
    names = [name for name in DEATHS if not wanted or any(word in name for word in wanted)]
    interpreters = pythons()
    began = time.monotonic()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for name in names:
            for python in interpreters.values():
                start(bench, python, name)
        print(f"{'death':28}" + "".join(f"{version:>22}" for version in interpreters))
        for name in names:
            ends = [bench.end((python, name)) for python in interpreters.values()]
            faults = [fault(DEATHS[name], end) for end in ends]
            cells = [
                f"{end.report['outcome']} {end.report['limit'] or ''}{' !' if wrong else ''}"
                for end, wrong in zip(ends, faults, strict=True)
            ]
            print(f"{name:28}" + "".join(f"{cell:>22}" for cell in cells), flush=True)
            for end, wrong in zip(ends, faults, strict=True):
                if wrong:
                    bad += 1
                    print(
                        f"    ! {wrong}\n      {end.report['summary']}\n" + "".join(f"      - {line}\n" for line in end.report["evidence"])
                    )
                    if os.environ.get("VERBOSE"):
                        print(end.told())
        bench.close()
    count = len(names) * len(interpreters)
    print(f"{count - bad} of {count} deaths judged right, in {time.monotonic() - began:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
