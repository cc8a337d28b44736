"""What Mainstay costs while its jobs sleep: memory, CPU time per 30 s, and how long it takes until 1,000 children are up.

Every job is a service with Mainstay's usual limits (memory, time, recursion), so each is looked at all the time; HTTP and history are
on. The children are the same tiny binary that the floor starts. Memory is PSS (shared pages divided among those who share them) and USS
(private pages) of guardian, keeper and brain together; CPU time is that of all their threads, to the nanosecond.
"""

import argparse
import os
import subprocess
import time
from dataclasses import dataclass

from harness import Mainstay, UnmeasuredError, children, compile_floor, cpu_s, goal, memory, run, scratch, table, wait_until

SETTLE_S = 12.0  # looks begin every few milliseconds and settle at their longest pause
PSS_GOALS = {1: 40.0, 1000: 55.0}
CPU_GOAL = 0.15
UP_GOAL_S = 4.5


@dataclass(frozen=True, slots=True)
class Figures:
    """One size of installation."""

    jobs: int
    up_s: float
    pss: float
    uss: float
    cpu: tuple[float, float]  # keeper with guardian, brain: seconds per 30 s


def jobs_text(command: str, count: int) -> str:
    return "".join(f"  job-{number:04}: {{command: {command}, limits: {{memory: 256MiB, time: 1d}}}}\n" for number in range(count))


def sleeping(keeper: int) -> int:
    """How many children of the keeper have executed their program."""
    found = 0
    for pid in children(keeper):
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                found += file.read().startswith(("floor", "sleep"))
        except OSError:
            continue
    return found


def measure(folder: str, command: str, count: int, seconds: float) -> Figures:
    with Mainstay(os.path.join(folder, str(count)), jobs_text(command, count), listen=True, wait=False) as mainstay:
        keeper = mainstay.find_keeper()
        wait_until(f"{count} children", lambda: len(children(keeper)) > count and sleeping(keeper) >= count, every_s=0.02)
        up_s = time.monotonic() - mainstay.started_at
        mainstay.wait_for_answer()
        time.sleep(SETTLE_S)
        first, brain_first = cpu_s((mainstay.guardian, mainstay.keeper)), cpu_s((mainstay.brain,))
        time.sleep(seconds)
        share = 30.0 / seconds
        cpu = ((cpu_s((mainstay.guardian, mainstay.keeper)) - first) * share, (cpu_s((mainstay.brain,)) - brain_first) * share)
        for pid in mainstay.pids:
            print(f"  {count} jobs, pid {pid}: PSS {memory((pid,))[0]:.1f} USS {memory((pid,))[1]:.1f} MiB")
        pss, uss = memory(mainstay.pids)
        return Figures(count, up_s, pss, uss, cpu)


def floor_up_s(binary: str, count: int) -> float:
    """How long the smallest parent takes to start so many; each has executed its program when the vfork returns."""
    begin = time.monotonic()
    with subprocess.Popen([binary, "sleepers", str(count)], stdout=subprocess.PIPE) as process:
        if process.stdout is None or process.stdout.readline() != b"up\n":
            raise UnmeasuredError("the floor did not start its children")
        took = time.monotonic() - begin
        process.kill()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, nargs="*", default=[1, 100, 1000])
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each idle is watched")
    options = parser.parse_args()

    def work() -> None:
        with scratch() as folder:
            binary = compile_floor(folder)
            command = f"[{binary}, sleep]" if binary else "[sleep, 1000000]"
            found = [measure(folder, command, count, options.seconds) for count in options.jobs]
            floors = {count: floor_up_s(binary, count) for count in options.jobs} if binary else {}
            report(found, floors)

    run("idle cost", work, within_s=120 + len(options.jobs) * (60 + options.seconds))


def report(found: list[Figures], floors: dict[int, float]) -> None:
    rows = []
    for one in found:
        floor = f"{floors[one.jobs]:.2f}" if one.jobs in floors else "-"
        cells = (
            f"{one.pss:.1f}",
            f"{one.uss:.1f}",
            f"{one.cpu[0]:.3f}",
            f"{one.cpu[1]:.3f}",
            f"{sum(one.cpu):.3f}",
            f"{one.up_s:.2f}",
            floor,
        )
        rows.append((one.jobs, *cells))
    table(("jobs", "PSS MiB", "USS MiB", "keeper CPU s/30 s", "brain CPU s/30 s", "both", "all up, s", "floor, s"), rows)
    for one in found:
        if one.jobs in PSS_GOALS:
            print(f"goal: PSS with {one.jobs} at most {PSS_GOALS[one.jobs]:.0f} MiB: {goal(one.pss, PSS_GOALS[one.jobs])}")
        if one.jobs == max(PSS_GOALS):
            print(f"goal: CPU with {one.jobs} at most {CPU_GOAL} s per 30 s: {goal(sum(one.cpu), CPU_GOAL)}")
            print(f"goal: {one.jobs} up within {UP_GOAL_S} s: {goal(one.up_s, UP_GOAL_S)}")


if __name__ == "__main__":
    main()
