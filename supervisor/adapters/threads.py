"""The threads of one process as the kernel shows them: what each does or waits for, its CPU time, how often it was woken.

Reads /proc/PID/task/TID/{stat,syscall,wchan,status} and, to say what a descriptor is, /proc/PID/fd, fdinfo and net. What cannot be read is left out;
the words are ``core.waiting``'s and ``core.sockets``'.
"""

import contextlib
import os
import struct
from typing import Final

from msgspec import Struct

from supervisor import procfs
from supervisor.core import sockets, waiting

MAX_THREADS: Final = 32
_MAX_TEXT: Final = 4096
_MAX_TABLE: Final = 1 << 20
_MAX_POLLED: Final = 4  # descriptors named; the rest is counted
_POLLFD: Final = struct.Struct("<ihh")
_TABLES: Final = (("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp"))


class ThreadNow(Struct, frozen=True):
    """One thread at one moment. ``call`` is the number of the system call it is in, None outside of one."""

    thread: int
    state: str
    what: str
    wchan: str
    call: int | None
    cpu_ticks: int
    switches: int


class Threads:
    """The threads of process *pid*. What a socket is connected to is looked up once and remembered."""

    def __init__(self, pid: int, proc: str = "/proc") -> None:
        self._pid = pid
        self._folder = f"{proc}/{pid}"
        self._machine = os.uname().machine
        self._sockets: dict[str, str] = {}

    def now(self) -> list[ThreadNow]:
        """Up to 32 of them, the main one first."""
        try:
            tasks = sorted(os.listdir(f"{self._folder}/task"), key=lambda name: (name != str(self._pid), int(name)))
        except (OSError, ValueError):
            return []
        return [self._thread(task) for task in tasks[:MAX_THREADS]]

    def _thread(self, task: str) -> ThreadNow:
        folder = f"{self._folder}/task/{task}"
        stat = _text(f"{folder}/stat")
        call = waiting.parse_call(_text(f"{folder}/syscall"), self._machine)
        wchan = _text(f"{folder}/wchan").strip()
        state = waiting.parse_state(stat)
        words = waiting.thread_words(state, call, self._described(call) if call is not None else "", wchan)
        return ThreadNow(
            thread=int(task),
            state=state,
            what=words,
            wchan="" if wchan == "0" else wchan,
            call=None if call is None else call.number,
            cpu_ticks=waiting.parse_ticks(stat),
            switches=waiting.parse_switches(_text(f"{folder}/status")),
        )

    # ---------------------------------------------------------------- what a call works on

    def _described(self, call: waiting.Call) -> str:
        if call.fd is not None:
            return self._descriptor(call.fd)
        if call.polled is not None:
            return self._listed(self._polled(*call.polled))
        if call.epoll_fd is not None:
            return self._listed(self._watched(call.epoll_fd))
        if call.child is not None:
            return waiting.children_words([(pid, _name(pid)) for pid in ([call.child] if call.child else procfs.children(self._pid))])
        return ""

    def _listed(self, fds: list[int]) -> str:
        """The descriptors that say something, by what they are."""
        named = [
            f"{described} (fd {fd})"
            for fd in fds[:_MAX_POLLED]
            if (described := self._descriptor(fd)) and not described.startswith("an event")
        ]
        more = len(fds) - _MAX_POLLED
        return ", ".join([*named, *([f"{more} more"] if more > 0 and named else [])])

    def _descriptor(self, fd: int) -> str:
        """What *fd* is, in words; "" for one that was closed meanwhile or is not ours to see."""
        try:
            link = os.readlink(f"{self._folder}/fd/{fd}")
        except OSError:
            return ""
        if not link.startswith("socket:["):
            return waiting.describe_link(link)
        if link not in self._sockets:
            self._sockets[link] = self._socket(link) or waiting.describe_link(link)
        return self._sockets[link]

    def _socket(self, link: str) -> str:
        inode = link[len("socket:[") : -1]
        if not inode.isdigit():
            return ""
        for name, protocol in _TABLES:
            found = sockets.parse_inet(_table(f"{self._folder}/net/{name}", inode), protocol).get(int(inode))
            if found:
                return found
        return sockets.parse_unix(_table(f"{self._folder}/net/unix", inode)).get(int(inode), "")

    def _polled(self, address: int, count: int) -> list[int]:
        """The descriptors in an array of struct pollfd of the process itself."""
        with contextlib.suppress(OSError):
            fd = os.open(f"{self._folder}/mem", os.O_RDONLY | os.O_CLOEXEC)
            try:
                raw = os.pread(fd, min(count, 64) * _POLLFD.size, address)
            finally:
                os.close(fd)
            return [number for number, _, _ in _POLLFD.iter_unpack(raw[: len(raw) - len(raw) % _POLLFD.size]) if number >= 0]
        return []

    def _watched(self, epoll: int) -> list[int]:
        """The descriptors of an epoll set, by its fdinfo: lines "tfd:        5 events: ..."."""
        lines = (line.split() for line in _text(f"{self._folder}/fdinfo/{epoll}").splitlines() if line.startswith("tfd:"))
        return [int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()]


def _name(pid: int) -> str:
    stat = procfs.read_stat(pid)
    return stat.name if stat is not None else ""


def _table(path: str, inode: str) -> str:
    """The heading and the lines of a table of sockets that hold *inode*: tables may be long."""
    text = _text(path, _MAX_TABLE)
    return "\n".join(["", *(line for line in text.splitlines()[1:] if inode in line)])


def _text(path: str, most: int = _MAX_TEXT) -> str:
    """The start of a file of /proc, "" if it cannot be read (the thread ended, or we may not)."""
    pieces, left = [], most
    try:
        with open(path, "rb", buffering=0) as file:
            while left > 0 and (piece := file.read(min(left, 65536))):
                pieces.append(piece)
                left -= len(piece)
                if most == _MAX_TEXT:
                    break
    except OSError:
        if not pieces:
            return ""
    return b"".join(pieces).decode(errors="replace")
