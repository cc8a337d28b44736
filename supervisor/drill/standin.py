"""The program that a drill runs in a job's place: it commits one fault and says when it began. Standard library only; bounded by itself.

    standin.py FAULT [BYTES]

It prints ``fault begins at SECONDS`` (CLOCK_MONOTONIC) and then does it. Should nobody end it, it ends by itself: memory is taken up to twice
the line and 256 MiB, no fault goes on for longer than ``LIFE_S``.
"""

import os
import signal
import sys
import time

LIFE_S = 600  # longer than any limit that a drill waits for
STEP_BYTES = 8 * 2**20
SPARE_BYTES = 256 * 2**20
PAUSE_S = 0.01  # between two steps: some 800 MiB/s, as a hungry job takes it


def recursion() -> None:
    """Call itself without an exit condition."""
    recursion()


def memory(limit: int) -> None:
    """Take ever more memory, and touch all of it."""
    held: list[bytes] = []
    while len(held) * STEP_BYTES < 2 * limit + SPARE_BYTES:
        held.append(b"\x01" * STEP_BYTES)
        time.sleep(PAUSE_S)


def hang() -> None:
    """Wait for what never comes, deaf to the polite signal."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()


def stall() -> None:
    """Go round in circles: busy, and getting nowhere."""
    turns = 0
    while True:
        turns += 1


def crash() -> None:
    """Die of a segmentation fault."""
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> None:
    """End with an exit code that is no success."""
    sys.exit(3)


def main(arguments: list[str]) -> int:
    """Commit the fault that is named."""
    faults = {"recursion": recursion, "hang": hang, "stall": stall, "crash": crash, "exit": leave}
    fault = arguments[0] if arguments else ""
    if fault != "memory" and fault not in faults:
        sys.stderr.write(f"standin: no such fault: {fault!r}\n")
        return 2
    signal.alarm(LIFE_S)
    sys.stdout.write(f"fault begins at {time.monotonic():.6f}\n")  # noqa: TID251 - a program of its own
    sys.stdout.flush()
    if fault == "memory":
        memory(int(arguments[1]))
    else:
        faults[fault]()
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
