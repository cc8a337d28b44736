"""The words for what a thread does at this moment, from the texts of /proc/PID/task/TID/{stat,syscall,wchan}; reads nothing itself.

Formats as in proc_pid_stat(5), proc_pid_syscall(5) and proc_pid_wchan(5).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

_LOCK = "waiting for a lock"
_CHILD = "waiting for a child process"
_POLL = "polling descriptors"
_EPOLL = "waiting for events"

# Words for system calls → their numbers on (x86_64, aarch64), from asm/unistd.h. These work on the descriptor in their first argument:
_ON_DESCRIPTOR = {
    "reading from": ((0, 17, 19, 295, 327), (63, 65, 67, 69, 286)),
    "writing to": ((1, 18, 20, 40, 296, 328), (64, 66, 68, 70, 71, 287)),
    "receiving from": ((45, 47, 299), (207, 212, 243)),
    "sending to": ((44, 46, 307), (206, 211, 269)),
    "connecting": ((42,), (203,)),
    "accepting a connection on": ((43, 288), (202, 242)),
    "waiting for a file lock on": ((72, 73), (25, 32)),
    "flushing to disk": ((74, 75), (82, 83)),
}
_ON_NOTHING = {
    _POLL: ((7, 23, 270, 271), (72, 73)),
    _EPOLL: ((232, 281, 426, 441), (22, 426, 441)),
    "sleeping": ((35, 219, 230), (101, 115, 128)),  # with restart_syscall: a sleep or poll that was stopped and continued
    "waiting for a signal": ((34, 128, 130), (133, 137)),
    _CHILD: ((61, 247), (95, 260)),
    _LOCK: ((202,), (98,)),
    "opening a file": ((2, 257), (56,)),
    "asking for memory": ((9, 10, 12, 25, 28), (214, 216, 222, 226, 233)),
    "giving memory back": ((11,), (215,)),
    "starting a process or a thread": ((56, 57, 58, 435), (220, 435)),
}
_MACHINES = ("x86_64", "aarch64")


def _calls(column: int) -> dict[int, tuple[str, bool]]:
    """System call number → (words, does it work on a descriptor) for one machine."""
    tables = ((_ON_DESCRIPTOR, True), (_ON_NOTHING, False))
    return {number: (words, has_fd) for table, has_fd in tables for words, numbers in table.items() for number in numbers[column]}


_CALLS = {machine: _calls(column) for column, machine in enumerate(_MACHINES)}

_SELECTS = (23, 270, 72)  # select and pselect6: bit sets, not arrays
_WAITID = (247, 95)
_IO_URING = (426,)
_P_PID = 1

_IN_KERNEL = "D"
_ENDED = "ZX"
_STOPPED = "Tt"
_ASLEEP = "SI"


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that a thread is in: words for it and the descriptor it works on, None if it works on none. ``arguments`` as the kernel shows them."""

    words: str
    fd: int | None = None
    number: int = field(default=-1, compare=False)
    arguments: tuple[int, ...] = field(default=(), compare=False)

    @property
    def polled(self) -> tuple[int, int] | None:
        """Of poll(2) and ppoll(2): the address and the number of its struct pollfd."""
        is_poll = self.words == _POLL and self.number not in _SELECTS and len(self.arguments) > 1
        return (self.arguments[0], self.arguments[1]) if is_poll else None

    @property
    def epoll_fd(self) -> int | None:
        return self.arguments[0] if self.words == _EPOLL and self.arguments and self.number not in _IO_URING else None

    @property
    def is_lock(self) -> bool:
        return self.words == _LOCK

    @property
    def child(self) -> int | None:
        """The process that wait4(2) or waitid(2) waits for; 0 for any child. None for another call."""
        if self.words != _CHILD or len(self.arguments) < 2:
            return None
        by_kind = self.number in _WAITID
        pid = self.arguments[1 if by_kind else 0] & 0xFFFFFFFF
        is_one = self.arguments[0] == _P_PID if by_kind else 0 < pid < 1 << 31
        return pid if is_one else 0


def parse_state(stat: str) -> str:
    """The state letter of proc_pid_stat(5); "" if the text is no such line. The name before it may hold spaces and brackets."""
    rest = stat.rpartition(")")[2].split()
    return rest[0] if rest else ""


def parse_ticks(stat: str) -> int:
    """User and system time in clock ticks (fields 14 and 15 of proc_pid_stat(5)), 0 if the text is no such line."""
    rest = stat.rpartition(")")[2].split()
    return int(rest[11]) + int(rest[12]) if len(rest) > 12 and rest[11].isdigit() and rest[12].isdigit() else 0


def parse_switches(status: str) -> int:
    """How often the thread gave the processor up by itself (voluntary_ctxt_switches of proc_pid_status(5)), 0 if it is not told."""
    _, found, rest = status.partition("\nvoluntary_ctxt_switches:")
    number = rest.split("\n", 1)[0].strip()
    return int(number) if found and number.isdigit() else 0


def parse_call(syscall: str, machine: str) -> Call | None:
    """The call in proc_pid_syscall(5), None for a thread that runs ("running") or stands in no call ("-1 ...")."""
    words = syscall.split()
    if not words or words[0] in ("running", "-1") or not words[0].isdigit():
        return None
    number = int(words[0])
    meaning, has_fd = _CALLS.get(machine, {}).get(number, (f"in system call {number}", False))
    try:
        arguments = tuple(int(word, 16) for word in words[1:7])
    except ValueError:
        arguments = ()
    return Call(meaning, arguments[0] & 0xFFFFFFFF if has_fd and arguments else None, number, arguments)


def thread_words(state: str, call: Call | None, described: str = "", wchan: str = "") -> str:
    """One thread in words: "running", "sleeping", "reading from a pipe (fd 0)". *described* says what the call's descriptor is."""
    if not state or state in _ENDED:
        return "ended"
    if call is None:
        stuck = f" ({wchan})" if wchan not in ("", "0") else ""
        if state == _IN_KERNEL:
            return f"stuck in the kernel{stuck}"
        if state in _ASLEEP:  # the call itself is told only to those who may trace the process
            return f"waiting{stuck}"
        return "running (stopped by a signal)" if state in _STOPPED else "running"
    if call.fd is None:
        return f"{call.words}{f' ({described})' if described else ''}"
    thing = f"{described} (fd {call.fd})" if described else f"fd {call.fd}"
    return f"{call.words} {thing}"


def describe_link(link: str) -> str:
    """What a link in /proc/PID/fd leads to, in words: "a pipe", "a socket", "a terminal", or the path."""
    for start, words in (("pipe:", "a pipe"), ("socket:", "a socket"), ("anon_inode:", "an event descriptor"), ("/dev/pts/", "a terminal")):
        if link.startswith(start):
            return words
    return link


def children_words(children: Sequence[tuple[int, str]]) -> str:
    """Which child is waited for: (pid, name) of each that may be meant."""
    shown = ", ".join(f"pid {pid}{f', {name}' if name else ''}" for pid, name in children[:4])
    more = f" and {len(children) - 4} more" if len(children) > 4 else ""
    return f"one of {shown}{more}" if len(children) > 1 else shown


def process_words(threads: Sequence[str]) -> str:
    """The whole process, main thread first: "sleeping; 2 other threads: waiting for a lock". Says so if all of several wait for locks."""
    if not threads:
        return ""
    if len(threads) > 1 and all(words == _LOCK for words in threads):
        return f"all {len(threads)} threads wait for locks: a deadlock, if nothing outside is to release them"
    others = Counter(threads[1:])
    parts = [f"{count} other thread{'s' if count > 1 else ''}: {words}" for words, count in sorted(others.items())]
    return "; ".join([threads[0], *parts])
