"""How close Mainstay holds its limits: memory overshoot, time overrun, output capture, and a runaway recursion that only the outside eye sees.

Without cgroups given to it (as on most developers' machines) Mainstay polls; the table says which containment was in force. Growth is 1 GiB/s,
paced by the clock, from a job under the guard (its late RLIMIT_DATA turns into a MemoryError) and from one that grows in shared memory, which
no rlimit sees. The overshoot is the kernel's own peak (ru_maxrss) over the limit.
"""

import argparse
import datetime as dt
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness import Mainstay, UnmeasuredError, compile_floor, cpu_s, goal, quantile, run, scratch, table, wait_until

MIB = 2**20
# The long one tells what looking costs: start, evidence, kill and report are the same for both.
GROWTHS = {"private": 300 * MIB, "shared": 300 * MIB, "private-long": 2048 * MIB}
GROW = """
import mmap, sys, time
kept, begin, piece, n = [], time.monotonic(), b"x" * (1 << 20), 0
shared = mmap.mmap(-1, 1 << 32) if sys.argv[1] == "shared" else None
while n < 3072:
    if shared is None:
        kept.append(bytearray(piece))
    else:
        shared.write(piece)
    n += 1
    ahead = n / 1024 - (time.monotonic() - begin)
    if ahead > 0:
        time.sleep(ahead)
"""
RUNAWAY = """
import ctypes, sys, time
ctypes.pythonapi.Py_SetRecursionLimit(10**9)
def down(n):
    down(n + 1)
with open(sys.argv[1], "w") as file:
    file.write(str(time.time()))
down(0)
"""


def job(name: str, command: list[str], limits: str) -> str:
    return (
        f"  {name}: {{command: {json.dumps(command)}, schedule: manual, restart: {{when: never}}, alerts: {{to: []}}, limits: {limits}}}\n"
    )


def rows_of(mainstay: Mainstay, name: str) -> list[dict[str, Any]]:
    """All ended attempts of a job, oldest first: times in Unix seconds, and the report."""
    with sqlite3.connect(f"file:{mainstay.state}/history.db?mode=ro", uri=True) as connection:
        rows = connection.execute(
            "SELECT run, started_at, ended_at, report FROM attempts WHERE job = ? AND phase = 'ended' ORDER BY run", (name,)
        ).fetchall()
    return [json.loads(report) | {"began": began / 1e6, "ended": ended / 1e6} for _, began, ended, report in rows]


def trigger(mainstay: Mainstay, name: str, count: int) -> dict[str, Any]:
    """Trigger a job and wait for the end; its report. *count* rows are there afterwards."""
    mainstay.post(f"/jobs/{name}/trigger")
    wait_until(f"the end of {name}", lambda: len(rows_of(mainstay, name)) >= count, every_s=0.05)
    return rows_of(mainstay, name)[-1]


def memory_overshoot(mainstay: Mainstay, times: int) -> None:
    rows, costs = [], {}
    for kind, limit in GROWTHS.items():
        over, outcomes, watched, lived = [], [], [], []
        for number in range(times):
            before = cpu_s((mainstay.brain,))
            report = trigger(mainstay, f"grow-{kind}", number + 1)
            watched.append(cpu_s((mainstay.brain,)) - before)
            lived.append(report["duration_seconds"])
            over.append((report["memory_peak_bytes"] - limit) / MIB)
            outcomes.append(report["outcome"])
        costs[kind] = (statistics.median(watched), statistics.median(lived))
        told = ", ".join(sorted(set(outcomes)))
        cells = (f"{value:+.1f}" for value in (min(over), quantile(over, 0.5), max(over)))
        rows.append(
            (f"{kind}, 1 GiB/s, limit {limit // MIB} MiB", times, *cells, f"{costs[kind][0] * 1e3:.1f}", f"{costs[kind][1]:.2f}", told)
        )
        print(f"goal: overshoot at most 5 MiB ({kind}): {goal(max(over), 5.0)} ({max(over):+.1f})")
    table(("memory", "runs", "min MiB", "p50", "max", "brain CPU ms", "lived s", "outcome"), rows)
    (short, for_s), (long, for_long_s) = costs["private"], costs["private-long"]
    share = (long - short) / (for_long_s - for_s) * 100
    print(f"goal: looks at a growing job at most 0.5 % of a core: {goal(share, 0.5)} ({share:.2f} %: by what the long growth costs more)\n")


def time_overrun(mainstay: Mainstay, jobs: int, rounds: int) -> None:
    late: list[float] = []
    for number in range(rounds):
        for one in range(jobs):
            mainstay.post(f"/jobs/late-{one}/trigger")
            time.sleep(0.043)
        wait_until("the ends", lambda n=number: all(len(rows_of(mainstay, f"late-{one}")) > n for one in range(jobs)), every_s=0.2)  # type: ignore[misc]
    for one in range(jobs):
        late += [(report["duration_seconds"] - 2.0) * 1e3 for report in rows_of(mainstay, f"late-{one}")]
    table(("time limit 2 s", "runs", "p50 ms", "p90", "p99", "max"),
          [("lived longer by", len(late), *(f"{quantile(late, share):.1f}" for share in (0.5, 0.9, 0.99, 1.0)))])  # fmt: skip
    p50, p99 = quantile(late, 0.5), quantile(late, 0.99)
    print(f"goal: p50 5 ms: {goal(p50, 5.0)}; p99 50 ms: {goal(p99, 50.0)}\n")


def output_rate(mainstay: Mainstay, binary: str, folder: str, size: int, times: int) -> None:
    """In turns: the floor copies a pipe to a file with turn-over in C, Mainstay's keeper does the same for a job."""
    rates: dict[str, list[float]] = {"floor": [], "mainstay": []}
    costs: dict[str, list[float]] = {"floor": [], "mainstay": []}
    for number in range(times):
        took, cpu = floor_capture(binary, os.path.join(folder, "floor.log"), size)
        rates["floor"].append(size / took / 1e6)
        costs["floor"].append(cpu * 1e9 / size)
        used = cpu_s((mainstay.keeper,))
        report = trigger(mainstay, "lines", number + 1)
        costs["mainstay"].append((cpu_s((mainstay.keeper,)) - used) * 1e9 / size)
        rates["mainstay"].append(size / report["duration_seconds"] / 1e6)
    lost = size * times - int(mainstay.metric('mainstay_job_output_bytes_total{job_name="lines"}'))
    rows = [
        (name, times, f"{quantile(found, 0.5):.0f}", f"{max(found):.0f}", f"{quantile(costs[name], 0.5):.2f}")
        for name, found in rates.items()
    ]
    table((f"{size // 10**6} MB of 100-byte lines", "runs", "MB/s p50", "best", "CPU s/GB"), rows)
    ratio = quantile(rates["mainstay"], 0.5) / quantile(rates["floor"], 0.5)
    print(f"goal: at least the floor's rate: {goal(1.0, ratio)} ({ratio:.2f} x)")
    print(f"goal: at most 0.3 CPU s/GB: {goal(quantile(costs['mainstay'], 0.5), 0.3)}")
    print(f"goal: 0 bytes unaccounted for: {goal(abs(lost), 0)} ({lost})\n")


def floor_capture(binary: str, path: str, size: int) -> tuple[float, float]:
    """(seconds, CPU seconds of the capturing process)."""
    begin = time.monotonic()
    with subprocess.Popen([binary, "lines", str(size)], stdout=subprocess.PIPE) as lines:
        capture = os.posix_spawn(
            binary, [binary, "capture", path, str(10 * MIB)], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, _fd(lines), 0)]
        )
        if lines.stdout is not None:
            lines.stdout.close()
        _, status, usage = os.wait4(capture, 0)
    if status:
        raise UnmeasuredError(f"the floor's capture ended with {status}")
    return time.monotonic() - begin, usage.ru_utime + usage.ru_stime


def _fd(process: subprocess.Popen[bytes]) -> int:
    if process.stdout is None:
        raise UnmeasuredError("no pipe")
    return process.stdout.fileno()


def recursion(mainstay: Mainstay, stamp: str, times: int) -> None:
    """The runaway's own start to its death, and the decision (the log line before the kill) to its death."""
    whole, killing, depths, outcomes = [], [], [], []
    for number in range(times):
        report = trigger(mainstay, "runaway", number + 1)
        whole.append((report["ended"] - float(Path(stamp).read_text(encoding="ascii"))) * 1e3)
        breach = [line for line in mainstay.log_lines("limit_breached") if line["job"] == "runaway"][-1]
        killing.append((report["ended"] - dt.datetime.fromisoformat(breach["timestamp"]).timestamp()) * 1e3)
        depths.append(float(breach["measured"]))
        outcomes.append(report["outcome"])
    rows = [
        (name, times, *(f"{quantile(values, share):.1f}" for share in (0.5, 0.9, 1.0)))
        for name, values in (
            ("first call to death, ms", whole),
            ("looked at and decided to death, ms", killing),
            ("depth at the kill, thousand frames", [d / 1e3 for d in depths]),
        )
    ]
    table((f"recursion at full speed, limit 400, {'/'.join(sorted(set(outcomes)))}", "runs", "p50", "p90", "max"), rows)


def measure(folder: str, parts: list[str], times: int) -> None:
    binary = compile_floor(folder)
    stamp = os.path.join(folder, "stamp")
    python = sys.executable
    size = 500 * 10**6
    jobs = "".join(
        job(f"grow-{kind}", [python, "-c", GROW, kind], f"{{memory: {limit // MIB}MiB, time: 1m}}") for kind, limit in GROWTHS.items()
    )
    jobs += "".join(job(f"late-{number}", ["sleep", "100"], "{time: 2s}") for number in range(20))
    jobs += job("lines", [binary or "true", "lines", str(size)], "{time: 5m, output: 4GiB}")
    jobs += job("runaway", [python, "-c", RUNAWAY, stamp], "{memory: 2GiB, recursion: 400, time: 30s}")
    with Mainstay(os.path.join(folder, "m"), jobs, listen=True) as mainstay:
        print(f"containment: {mainstay.get('/status')['daemon']['containment']}\n")
        if "memory" in parts:
            memory_overshoot(mainstay, times)
        if "time" in parts:
            time_overrun(mainstay, 20, max(1, times // 2))
        if "output" in parts and binary is not None:
            output_rate(mainstay, binary, folder, size, max(3, times // 3))
        if "recursion" in parts:
            recursion(mainstay, stamp, times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["memory", "time", "output", "recursion"])
    parser.add_argument("--times", type=int, default=10)
    options = parser.parse_args()
    unknown = set(options.parts) - {"memory", "time", "output", "recursion"}
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}")

    def work() -> None:
        with scratch() as folder:
            measure(folder, options.parts, options.times)

    signal.signal(signal.SIGINT, lambda *_: sys.exit(1))
    run("limits", work, within_s=420)


if __name__ == "__main__":
    main()
