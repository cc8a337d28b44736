"""Who sent a signal, by the kernel's own trace event (signal_generate in tracefs). Nothing else tells it of a signal that was not caught with siginfo.

A trace instance of our own, with a filter for signals that processes send to each other and that can end one, a small ring, and nobody who reads it
until something has died of a signal. Only root may; where anything is missing, or the self-check fails (a pid namespace, for one), there is no trace.
"""

import contextlib
import os
import re
import signal
from collections import OrderedDict
from typing import Final, Self

from supervisor.core.evidence import Sender

ROOT: Final = "/sys/kernel/tracing"
RING_KB: Final = 64  # of each processor: some 600 signals
MAX_KEPT: Final = 4096
MAX_DRAIN: Final = 1 << 20
PROBE: Final = signal.SIGWINCH  # ignored by default; sent to ourselves to see that the trace works
PREFIX: Final = "mainstay-"
# By a process, not by the kernel (code > 0 is the kernel's); without those that end nobody: CHLD, CONT, STOP, TSTP, URG.
_UNWANTED: Final = (signal.SIGCHLD, signal.SIGCONT, signal.SIGSTOP, signal.SIGTSTP, signal.SIGURG)
FILTER: Final = " && ".join(["code <= 0", "sig > 0", *(f"sig != {int(number)}" for number in _UNWANTED)])

_LINE = re.compile(
    r"^\s*(.+)-(\d+)\s+\[\d+\].*: signal_generate: sig=(\d+) errno=-?\d+ code=(-?\d+) comm=.{0,16} pid=(\d+) grp=\d res=\d+$"
)


class SignalTrace:
    """The trace while it is on. ``sender_of`` answers from what has been written since; closing takes the instance away."""

    def __init__(self, folder: str, pipe: int) -> None:
        self._folder = folder
        self._pipe = pipe
        self._left = b""
        self._sent: OrderedDict[int, dict[int, Sender]] = OrderedDict()

    @classmethod
    def open(cls, root: str = ROOT) -> Self | None:
        """Switch it on; None where that cannot be done or does not work."""
        folder = f"{root}/instances/{PREFIX}{os.getpid()}"
        try:
            _remove_stale(f"{root}/instances")
            os.mkdir(folder)
        except OSError:
            return None
        try:
            event = f"{folder}/events/signal/signal_generate"
            _write(f"{folder}/buffer_size_kb", str(RING_KB))
            _write(f"{event}/filter", FILTER)
            _write(f"{event}/enable", "1")
            trace = cls(folder, os.open(f"{folder}/trace_pipe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            _remove(folder)
            return None
        if trace.works():
            return trace
        trace.close()
        return None

    def works(self) -> bool:
        """Whether a signal that we send to ourselves is seen, with our own pid."""
        os.kill(os.getpid(), PROBE)
        found = self.sender_of(os.getpid(), int(PROBE))
        return found is not None and found.is_self

    def sender_of(self, pid: int, number: int | None = None) -> Sender | None:
        """Who last sent that signal to *pid*, or, without a number, the last one that asks for an end (TERM, INT, HUP, QUIT)."""
        self._drain()
        sent = self._sent.get(pid, {})
        if number is not None:
            return sent.get(number)
        asking = [sent[each] for each in sent if each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)]
        return asking[-1] if asking else None

    def forget(self, pid: int) -> None:
        """That process has been reaped; its pid may be another's soon."""
        self._sent.pop(pid, None)

    def close(self) -> None:
        os.close(self._pipe)
        _remove(self._folder)

    def _drain(self) -> None:
        read = 0
        while read < MAX_DRAIN:
            try:
                data = os.read(self._pipe, 65536)
            except OSError:  # EAGAIN: that was all
                break
            if not data:
                break
            read += len(data)
            *lines, self._left = (self._left + data).split(b"\n")
            for line in lines:
                self._take(line.decode(errors="replace"))

    def _take(self, line: str) -> None:
        found = parse_line(line)
        if found is None:
            return
        target, sender = found
        sent = self._sent.setdefault(target, {})
        sent.pop(sender.signal, None)
        sent[sender.signal] = sender
        self._sent.move_to_end(target)
        while len(self._sent) > MAX_KEPT:
            self._sent.popitem(last=False)


def parse_line(line: str) -> tuple[int, Sender] | None:
    """(who it was sent to, who sent what) of one line of the trace; None for another line."""
    found = _LINE.match(line)
    if found is None:
        return None
    name, sender, number, _, target = found.groups()
    return int(target), Sender(int(number), int(sender), name, is_self=sender == target)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _remove(folder: str) -> None:
    with contextlib.suppress(OSError):
        _write(f"{folder}/events/signal/signal_generate/enable", "0")
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def _remove_stale(instances: str) -> None:
    """What a brain left that was killed."""
    for name in os.listdir(instances):
        pid = name.removeprefix(PREFIX)
        if name.startswith(PREFIX) and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            _remove(f"{instances}/{name}")
