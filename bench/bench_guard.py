"""What watching costs a Python job: the guard's share of its start and of its run time, and `mainstay exec` around it.

Bare and guarded runs take turns, pair by pair, so that both see the same machine. Start-up is the whole life of ``python -c pass`` (wall
time from the parent, CPU time from the kernel), with an empty report directory each time, as an attempt has it; run time is the CPU time of
the work alone, as lockstep.py measures it, and the column "bare twice" is what that measures where there is no difference. Handled exceptions are counted on
3.12 and later, where the guard has an event for them: that is switched off and on in turns within one guarded process, for the same loop takes some
30 ns more or less from process to process; several processes, the median. Interpreters: this one, and python3.12 to 3.14 where PATH, pyenv or
scripts/newer-python.sh has them.
"""

import argparse
import glob
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import lockstep
from harness import ROOT, RUNTIME, UnmeasuredError, goal, quantile, run, scratch, table

sys.path.insert(0, str(ROOT))
from supervisor.adapters import guard

START_GOAL_MS = 1.5
EXEC_GOAL_MS = 60.0
HANDLED_GOAL_NS = 80.0
RUN_TIME_GOAL = 1.01
EXCEPTIONS = 100_000
TURNS = 12  # with the event and without
PROCESSES = 5
WORKLOADS = {  # slices of 3 to 5 ms
    "fib": "def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\nf(18); B(); f(23); E()",
    "nbody": (
        "def step(b, dt):\n"
        "    for i in range(5):\n"
        "        x, y, z, u, v, w, m = b[i]\n"
        "        for j in range(i + 1, 5):\n"
        "            o = b[j]; dx = x - o[0]; dy = y - o[1]; dz = z - o[2]\n"
        "            g = dt / ((dx * dx + dy * dy + dz * dz) ** 1.5)\n"
        "            u -= dx * o[6] * g; v -= dy * o[6] * g; w -= dz * o[6] * g\n"
        "            o[3] += dx * m * g; o[4] += dy * m * g; o[5] += dz * m * g\n"
        "        b[i] = [x + dt * u, y + dt * v, z + dt * w, u, v, w, m]\n"
        "b = [[i * 1.1, i * .7 + .1, i * .3, .1, .2, .3, 1.0 + i] for i in range(5)]\n"
        "step(b, .001); B()\nfor _ in range(1000): step(b, .001)\nE()"
    ),
    "json": (
        "import json\nd = {'k%d' % i: [i, str(i), {'a': i * .5, 'b': None}] for i in range(300)}\n"
        "json.dumps(d); B()\nfor _ in range(12): json.loads(json.dumps(d))\nE()"
    ),
}
HANDLED = f"""
import sys, time
def g(n):
    for _ in range(n):
        try:
            raise ValueError
        except ValueError:
            pass
tools = [tool for tool in (4, 3) if sys.monitoring.get_tool(tool) == "mainstay"]
took = {{True: [], False: []}}
for _ in range({TURNS}):
    for on in took:
        sys.monitoring.set_events(tools[0], sys.monitoring.events.EXCEPTION_HANDLED if on else 0)
        g(1000)
        begin = time.process_time_ns()
        g({EXCEPTIONS})
        took[on].append((time.process_time_ns() - begin) / {EXCEPTIONS})
on, off = (sorted(values)[{TURNS} // 4] for values in took.values())
print(on - off)
"""


def interpreters() -> dict[tuple[int, int], str]:
    """Version → path of one interpreter each, this one's first."""
    found = {(sys.version_info[0], sys.version_info[1]): sys.executable}
    names = [shutil.which(f"python3.{minor}") for minor in (12, 13, 14)]
    newer = os.environ.get("MAINSTAY_TEST_PYTHONS") or os.path.expanduser("~/.cache/mainstay-pythons")
    folders = [os.path.expanduser("~/.pyenv/versions/*/bin/python3"), f"{newer}/*/usr/bin/python*-here"]
    for path in [*names, *(path for folder in folders for path in sorted(glob.glob(folder)))]:
        if not path:
            continue
        asked = subprocess.run(
            [path, "-I", "-S", "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, check=False
        )
        if asked.returncode == 0:
            major, minor = map(int, asked.stdout.split())
            if (major, minor) >= (3, 11):
                found.setdefault((major, minor), path)
    return found


def compile_guard(python: str) -> None:
    """As after a first start by somebody who may write there; else each start would compile it anew."""
    subprocess.run([python, "-I", "-S", "-m", "compileall", "-q", guard.SITE], capture_output=True, check=False, timeout=60)


def once(argv: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """(wall, CPU) milliseconds of one process from its start to its end."""
    begin = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, environment)
    _, status, usage = os.wait4(pid, 0)
    took = time.perf_counter() - begin
    if status:
        raise UnmeasuredError(f"{argv[0]} ended with {status}")
    return took * 1e3, (usage.ru_utime + usage.ru_stime) * 1e3


def guarded_once(argv: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """The same under the guard: it lists its directory, so that must not fill from start to start as no attempt's does."""
    folder = environment["MAINSTAY_GUARD_DIR"]
    for name in os.listdir(folder):
        os.unlink(os.path.join(folder, name))
    return once(argv, environment)


def pairs(times: int, bare: Callable[[], tuple[float, float]], other: Callable[[], tuple[float, float]]) -> list[list[float]]:
    """Medians [wall, CPU] of both, taken in turns, and of their differences within a pair; last, by how much their 5 % quantiles differ."""
    found = [(bare(), other()) for _ in range(times)]
    columns = [[pair[side][figure] for pair in found] for side in (0, 1) for figure in (0, 1)]
    differences = [[pair[1][figure] - pair[0][figure] for pair in found] for figure in (0, 1)]
    medians = [statistics.median(column) for column in columns]
    low = [quantile(columns[2 + figure], 0.05) - quantile(columns[figure], 0.05) for figure in (0, 1)]
    return [medians[:2], medians[2:], [statistics.median(column) for column in differences], low]


def said(python: str, text: str, environment: dict[str, str]) -> float:
    """The number that a script prints."""
    done = subprocess.run([python, "-c", text], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnmeasuredError(done.stderr.strip()[-300:])
    return float(done.stdout)


def measure(folder: str, times: int) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MAINSTAY"))}
    rows, verdicts = [], []
    for (major, minor), python in sorted(interpreters().items()):
        name = f"{major}.{minor}"
        compile_guard(python)
        report_dir = os.path.join(folder, name)
        os.mkdir(report_dir)
        armed = guard.arm(plain, report_dir, 400)
        argv = [python, "-c", "pass"]
        for _ in range(3):
            once(argv, plain), guarded_once(argv, armed)
        bare, guarded, added, low = pairs(times, lambda a=argv: once(a, plain), lambda a=argv, e=armed: guarded_once(a, e))  # type: ignore[misc]
        ratios = [lockstep.ratios(python, text, plain, armed) for text in WORKLOADS.values()]
        handled = statistics.median(said(python, HANDLED, armed) for _ in range(PROCESSES)) if minor >= 12 else None
        cells = [
            f"{bare[0]:.2f}",
            f"{guarded[0]:.2f}",
            f"{added[0]:+.2f}",
            f"{low[0]:+.2f}",
            f"{added[1]:+.2f}",
            *(f"{guarded_ratio:.3f}" for guarded_ratio, _ in ratios),
            f"{min(control for _, control in ratios):.3f}-{max(control for _, control in ratios):.3f}",
        ]
        rows.append((name, *cells, "-" if handled is None else f"{handled:+.0f}"))
        verdicts.append(f"goal on {name}: start at most +{START_GOAL_MS} ms: {goal(added[0], START_GOAL_MS)}")
        worst = max(guarded_ratio for guarded_ratio, _ in ratios)
        verdicts.append(f"goal on {name}: run time at most {RUN_TIME_GOAL} x: {goal(worst, RUN_TIME_GOAL)} ({worst:.3f})")
        if handled is not None:
            verdicts.append(f"goal on {name}: handled exception at most +{HANDLED_GOAL_NS:.0f} ns: {goal(handled, HANDLED_GOAL_NS)}")
    table(
        (
            "python",
            "bare ms",
            "guard ms",
            "added wall",
            "of p5",
            "added CPU",
            *(f"{load} x" for load in WORKLOADS),
            "bare twice",
            "ns/handled",
        ),
        rows,
    )
    once_rows(max(20, times // 3), plain, verdicts)
    print("\n".join(verdicts))


def once_rows(times: int, plain: dict[str, str], verdicts: list[str]) -> None:
    """`mainstay exec -- python -c pass` beside the bare command."""
    command = [sys.executable, "-c", "pass"]
    script = shutil.which("mainstay", path=os.path.dirname(sys.executable))
    wrapped = [script, "exec", "--", *command] if script else [*RUNTIME, "exec", "--", *command]
    for _ in range(3):
        once(wrapped, plain)
    bare, whole, added, _ = pairs(times, lambda: once(command, plain), lambda: once(wrapped, plain))
    table(("mainstay exec -- python -c pass", "bare ms", "exec ms", "added wall", "added CPU"),
          [("median", f"{bare[0]:.1f}", f"{whole[0]:.1f}", f"{added[0]:+.1f}", f"{added[1]:+.1f}")])  # fmt: skip
    verdicts.append(f"goal: exec at most +{EXEC_GOAL_MS:.0f} ms in all: {goal(added[0], EXEC_GOAL_MS)} ({added[0]:+.1f} ms)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=120, help="pairs of starts")
    options = parser.parse_args()

    def work() -> None:
        with scratch() as folder:
            measure(folder, options.times)

    run("the guard's cost", work, within_s=420)


if __name__ == "__main__":
    main()
