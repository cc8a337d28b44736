"""Ends a whole tree of processes: freeze until nothing new appears, kill, reap, look again.

A plain "kill everything in the list" loses against a fork bomb, because it forks between the list and the kill. Stopped processes do
not fork: so first SIGSTOP to all, until a walk finds no new one, then SIGKILL to all. What was orphaned meanwhile has become our
own child (we are the subreaper) and is found by the next round.
"""

import contextlib
import errno
import os
import resource
import signal
from collections.abc import Callable, Iterable
from typing import Final

from supervisor import procfs

FREEZE_ROUNDS: Final = 50
FEW: Final = 4  # processes at once; more may be a fork bomb


def signal_process(pid: int, number: int) -> bool:
    """Send a signal to exactly this process; False when it is gone. A pidfd, so that a recycled pid is never hit.

    Where no descriptor is left it goes to the pid: a limit that cannot be enforced for want of one would be worse than a pid that was, in these
    microseconds, given to another.
    """
    try:
        fd = os.pidfd_open(pid)
    except OSError as err:
        return err.errno in (errno.EMFILE, errno.ENFILE) and _signal_pid(pid, number)
    try:
        signal.pidfd_send_signal(fd, number)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _signal_pid(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


def freeze(roots: Callable[[], Iterable[int]]) -> set[int]:
    """SIGSTOP everything below ``roots()`` (asked again in each round); the pids that were stopped."""
    try:
        return _freeze(roots)
    finally:
        as_usual()


def _freeze(roots: Callable[[], Iterable[int]]) -> set[int]:
    stopped: set[int] = set()
    for _ in range(FREEZE_ROUNDS):
        fresh = [pid for pid in procfs.descendants(roots()) if pid not in stopped]
        if not fresh:
            break
        if len(fresh) > FEW:
            go_first()
        for pid in fresh:
            signal_process(pid, signal.SIGSTOP)
            stopped.add(pid)
    return stopped


def kill_round(roots: Callable[[], Iterable[int]]) -> set[int]:
    """One round: freeze, then SIGKILL. What was hit, some of it perhaps again; nothing means that nothing alive is left below the roots."""
    try:
        victims = {pid for pid in _freeze(roots) if _is_alive(pid)}
        for pid in victims:
            signal_process(pid, signal.SIGKILL)
        return victims
    finally:
        as_usual()


_usual: list[tuple[int, os.sched_param]] = []  # how we ran before ``go_first``, while that holds


def go_first() -> None:
    """Run before all that is not of real time, until ``as_usual``: of the thousand processes of a fork bomb each has as much of the processor as we have
    otherwise, and forks with it. Only where we may: as root, outside a unit that restricts it (which has a cgroup)."""
    if _usual:
        return
    usual = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, os.sched_getparam(0)
    if usual[0] in (os.SCHED_RR, os.SCHED_FIFO):
        return
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        _usual.append(usual)


def as_usual() -> None:
    """Give up what ``go_first`` took. Nothing if it did not."""
    if _usual:
        os.sched_setscheduler(0, *_usual.pop())


def _is_alive(pid: int) -> bool:
    stat = procfs.read_stat(pid)
    if stat is None:  # it has gone, or there is no descriptor to read by
        return _signal_pid(pid, 0)
    return not stat.is_dead


def own_children() -> list[int]:
    """Our direct children, zombies included."""
    return procfs.children(os.getpid())


def reap(pid: int = -1) -> tuple[int, int, float, int] | None:
    """Collect the zombie *pid*, or any of ours: (pid, wait status, CPU seconds, peak resident bytes), None when there is none (yet).

    The kernel's peak begins with what the child had as a copy of us, before its exec; a peak that is no more than that says
    nothing about the child and is given as 0.
    """
    with contextlib.suppress(ChildProcessError):
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            peak = usage.ru_maxrss * 1024
            return found, status, usage.ru_utime + usage.ru_stime, peak if peak > _own_peak_bytes(peak) else 0
    return None


_own_peak = [0]  # bytes, as last read; it only grows


def _own_peak_bytes(beyond: int) -> int:
    """The most that we held ourselves, exact where it is more than *beyond*.

    getrusage(2) is cheap, but its figure begins with what our parent had before it became us: a large one would hide the peak of every child.
    """
    if beyond <= _own_peak[0]:
        return _own_peak[0]
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if most < beyond:
        return most
    _own_peak[0] = procfs.resident_peak_bytes(os.getpid()) or most
    return _own_peak[0]
