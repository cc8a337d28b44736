"""The keeper's parent: when the keeper dies, it ends everything that the keeper had started.

A parent-death signal reaches only direct children, and without a cgroup nobody else knows the rest of the trees. But orphans go to the nearest
living subreaper: with the keeper gone that is the guardian, whose children are then exactly what has to be ended, whatever called
``setsid`` or forked twice. The guardian does nothing else, so there is nothing it could die of; should it be killed, the keeper gets
SIGTERM and stops everything in order.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Final

from supervisor import proctree
from supervisor.keeper import launch

CLEAR_S: Final = 10.0
KEEPER_DIED: Final = 70
NO_KEEPER: Final = 1  # of `mainstay run`: it could not start
_FORWARDED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def guard(keeper: Callable[[], int]) -> int:
    """Run *keeper* in a child; its exit code, or KEEPER_DIED after everything that it left behind was ended. NO_KEEPER if there can be no child."""
    launch.prctl(launch.PR_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who ignores it (and may have started us so) can wait for nobody
    guardian = os.getpid()
    try:
        pid = launch.fork()
    except OSError as err:
        sys.stderr.write(f"mainstay: no process for the keeper: {err.strerror}\n")
        return NO_KEEPER
    if pid == 0:
        _become_keeper(guardian, keeper)
    hang_up = signal.SIGTERM if _on_terminal() else signal.SIGHUP

    def forward(number: int, _frame: object) -> None:
        proctree.signal_process(pid, hang_up if number == signal.SIGHUP else number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    status = _wait(pid)
    left = _end_children()
    if os.WIFEXITED(status):
        return os.WEXITSTATUS(status)
    text = f"mainstay: the keeper was killed by signal {os.WTERMSIG(status)}; {left} processes of its jobs were ended with it; start Mainstay again"
    sys.stderr.write(text + "\n")
    return KEEPER_DIED


def _become_keeper(guardian: int, keeper: Callable[[], int]) -> None:
    code = KEEPER_DIED
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
        os.setsid()  # Ctrl-C reaches the guardian alone, which passes it on once
        launch.prctl(launch.PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == guardian:
            code = keeper()
    except Exception:  # noqa: BLE001 - the last place that can say what happened; the guardian cleans up
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _on_terminal() -> bool:
    with contextlib.suppress(OSError):
        return os.isatty(0)
    return False


def _wait(keeper: int) -> int:
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == keeper:
            return status


def _end_children() -> int:
    """Kill and reap until we have no children; how many processes were killed."""
    ended: set[int] = set()
    deadline = time.monotonic() + CLEAR_S
    while time.monotonic() < deadline:
        ended |= proctree.kill_round(proctree.own_children)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0] and time.monotonic() < deadline:
                pass
        if not proctree.own_children():
            return len(ended)
        time.sleep(0.002)
    return len(ended)
