"""Restart latency: SIGKILL of a tiny child until the first instruction of the next one, Mainstay beside the smallest possible parent in C.

The two take turns, restart by restart, so that what the machine does meanwhile is done to both; the child is the same binary, writes CLOCK_MONOTONIC
as its first act to a FIFO and sleeps. Mainstay's job is a service with ``restart: always`` and no wait (``backoff.first: 0s``), so what is left is its own work: reap,
exit record on disk, verdict, history with the next intent, fork, exec. "Known" is when the keeper had reaped it.
"""

import argparse
import os
import select
import signal
import sqlite3
import subprocess
import time

from harness import Mainstay, UnmeasuredError, compile_floor, goal, quantile, run, scratch, table

PATIENCE_S = 20.0
SETTLE_S = 0.03  # between two kills; what the last restart left to be done is over by then
JOB = """
  victim:
    command: [{floor}, child, {fifo}]
    restart: {{when: always, backoff: {{first: 0s, factor: 1, jitter: 0%}}, budget: {{restarts: 1000, within: 1s}}}}
    limits: {{memory: 64MiB, time: 1h}}
    alerts: {{to: []}}
"""


class Births:
    """What the children of one parent say through their FIFO."""

    def __init__(self, path: str) -> None:
        os.mkfifo(path, 0o600)
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._rest = b""

    def next(self) -> tuple[int, int]:
        """(CLOCK_MONOTONIC in ns, pid) of the next child."""
        while b"\n" not in self._rest:
            if not select.select([self.fd], [], [], PATIENCE_S)[0]:
                raise UnmeasuredError("no child came back")
            self._rest += os.read(self.fd, 4096)
        line, _, self._rest = self._rest.partition(b"\n")
        born, pid = line.split()
        return int(born), int(pid)


def kill_and_wait(births: Births, pid: int) -> tuple[float, int, float]:
    """(ms until the next child's first instruction, its pid, Unix time of the kill)."""
    time.sleep(SETTLE_S)
    wall, begin = time.time(), time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    born, following = births.next()
    return (born - begin) / 1e6, following, wall


def known_ms(history: str, kills: dict[int, float]) -> list[float]:
    """Milliseconds from each kill to the moment that the exit record names."""
    with sqlite3.connect(f"file:{history}?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT pid, ended_at FROM attempts WHERE phase = 'ended' AND pid IS NOT NULL").fetchall()
    return [ended / 1e3 - kills[pid] * 1e3 for pid, ended in rows if pid in kills]


def measure(folder: str, restarts: int) -> None:
    binary = compile_floor(folder)
    if binary is None:
        raise UnmeasuredError("the child is a C program too")
    fifos = {name: Births(os.path.join(folder, name + ".fifo")) for name in ("floor", "mainstay")}
    found: dict[str, list[float]] = {"floor": [], "mainstay": []}
    kills: dict[int, float] = {}
    parent = subprocess.Popen([binary, "parent", os.path.join(folder, "floor.fifo")])
    try:
        job = JOB.format(floor=binary, fifo=os.path.join(folder, "mainstay.fifo"))
        with Mainstay(os.path.join(folder, "m"), job) as mainstay:
            pids = {name: births.next()[1] for name, births in fifos.items()}
            for _ in range(restarts):
                for name, births in fifos.items():
                    dying = pids[name]
                    took, pids[name], wall = kill_and_wait(births, dying)
                    found[name].append(took)
                    if name == "mainstay":
                        kills[dying] = wall
            time.sleep(1.0)
            known = known_ms(os.path.join(mainstay.state, "history.db"), kills)
    finally:
        parent.kill()
        parent.wait()
    report(found, known)


def report(found: dict[str, list[float]], known: list[float]) -> None:
    floor = quantile(found["floor"], 0.5)
    rows = []
    for name, values in (*found.items(), ("mainstay: death to known", known)):
        p50 = quantile(values, 0.5)
        rows.append((name, len(values), *(f"{quantile(values, share):.2f}" for share in (0.05, 0.5, 0.9, 0.99)), f"{p50 / floor:.2f}"))
    table(("SIGKILL to first instruction, ms", "restarts", "p5", "p50", "p90", "p99", "p50 / floor"), rows)
    ratio = quantile(found["mainstay"], 0.5) / floor
    print(f"goal: p50 at most 2 x floor: {goal(ratio, 2.0)} ({ratio:.2f} x)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restarts", type=int, default=250, help="of each side")
    options = parser.parse_args()

    def work() -> None:
        with scratch() as folder:
            measure(folder, options.restarts)

    run("restart latency", work, within_s=180)


if __name__ == "__main__":
    main()
