"""Facts about processes from /proc: reading and, apart from it, parsing. Standard library only; keeper, brain and ``exec`` share it.

Every reader answers None (or nothing) for a process that is gone: that is not an error, processes end.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
LAST_ENTRY: Final = 256  # bytes; a piece of a list that leaves so much of its page was the last
CHILDREN_BYTES: Final = 1 << 20
ENVIRON_BYTES: Final = 1 << 20
STAT_TRIES: Final = 3
ATTEMPT: Final = ("MAINSTAY_RUN", "MAINSTAY_ATTEMPT")  # the variables that say of which attempt a process is part
MAX_TREE: Final = 20_000  # a walk ends there, whatever a fork bomb does meanwhile


class Stat(NamedTuple):
    """Fields of proc_pid_stat(5) that we use. ``started`` is field 22 (clock ticks after boot), ``cpu_s`` fields 14 + 15, ``system_s`` the latter,
    ``waited_cpu_s`` (children that were reaped) fields 16 + 17."""

    pid: int
    name: str
    state: str
    ppid: int
    pgrp: int
    session: int
    cpu_s: float
    waited_cpu_s: float
    threads: int
    started: int
    system_s: float = 0.0

    @property
    def is_dead(self) -> bool:
        """Nothing of it runs any more. A leader that has exited is a zombie too while other threads of it go on.

        So is, for an instant and then with no thread at all, one whose place another thread takes that executes a program.
        """
        return self.state in "ZX" and self.threads == 1

    @property
    def is_leaderless(self) -> bool:
        """Its first thread has exited, others go on: then its memory and its environment are to be read by one of those."""
        return self.state in "ZX" and self.threads > 1


def parse_stat(text: bytes) -> Stat:
    """The contents of /proc/PID/stat. ``ValueError`` if it is not one.

    The name may hold anything, ") R 1" included, so the fields are counted from the *last* closing parenthesis.
    """
    left = text.index(b"(")
    right = text.rindex(b")")
    rest = text[right + 2 :].split()
    return Stat(
        pid=int(text[:left]),
        name=text[left + 1 : right].decode(errors="replace"),
        state=rest[0].decode(),
        ppid=int(rest[1]),
        pgrp=int(rest[2]),
        session=int(rest[3]),
        cpu_s=(int(rest[11]) + int(rest[12])) / TICKS_PER_S,
        waited_cpu_s=(int(rest[13]) + int(rest[14])) / TICKS_PER_S,
        threads=int(rest[17]),
        started=int(rest[19]),
        system_s=int(rest[12]) / TICKS_PER_S,
    )


def read_file(path: str, limit: int = 65536) -> bytes | None:
    """The first *limit* bytes of a /proc file, None if the process is gone or the file forbidden."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _read(fd, limit)
    except OSError:
        return None
    finally:
        os.close(fd)


def _read(fd: int, limit: int) -> bytes:
    text = piece = os.read(fd, min(limit, PAGE_BYTES))
    while len(piece) > PAGE_BYTES - LAST_ENTRY and len(text) < limit:  # the kernel gives a list by the page, whatever is asked for
        piece = os.read(fd, min(limit - len(text), PAGE_BYTES))
        text += piece
    return text


def read_stat(pid: int) -> Stat | None:
    """/proc/PID/stat, None if there is no such process (a zombie has one)."""
    return told_stat(lambda: read_file(f"/proc/{pid}/stat", 1024) or b"")


def told_stat(read: Callable[[], bytes]) -> Stat | None:
    """What *read* gives of /proc/PID/stat. It is read again while it tells of no thread: that is half of an exec, or of an end."""
    stat = None
    for _ in range(STAT_TRIES):
        try:
            stat = parse_stat(read())
        except (ValueError, IndexError):
            return None
        if stat.threads:
            break
    return stat


def statm(pid: int, stat: Stat) -> bytes:
    """/proc/PID/statm, b"" if the process is gone; *stat* says by which of its threads it can be read."""
    for folder in _thread_folders(pid) if stat.is_leaderless else (f"/proc/{pid}",):
        text = read_file(f"{folder}/statm", 128) or b""
        if not text.startswith(b"0 "):  # all zero: this thread has no memory any more
            return text
    return b""


def _thread_folders(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield from (f"/proc/{pid}/task/{tid}" for tid in os.listdir(f"/proc/{pid}/task") if tid != str(pid))


def resident_peak_bytes(pid: int) -> int | None:
    """The most memory that *pid* held since its last exec (VmHWM of proc_pid_status(5)), None if it is gone, or ends."""
    for line in (read_file(f"/proc/{pid}/status", 8192) or b"").splitlines():
        if line.startswith(b"VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def children(pid: int) -> list[int]:
    """The direct children of all threads of *pid*, by /proc/PID/task/TID/children (needs CONFIG_PROC_CHILDREN, as all distributions have)."""
    folder = f"/proc/{pid}/task"
    found = _children_of(folder, pid)
    try:
        if os.stat(folder).st_nlink <= 3:  # one for each thread and two of its own: most processes have one thread
            return found
        threads = os.listdir(folder)
    except OSError:
        return found
    for tid in threads:
        if tid != str(pid):
            found += _children_of(folder, tid)
    return found


class Kin:
    """The direct children of this process, read from files that stay open: opening them is four fifths of the time of a look.

    Not for a copy of this process: it would see ours.
    """

    def __init__(self) -> None:
        self._of = os.getpid()
        self._files: list[int] = []  # none where they cannot be opened: then each look opens what it can
        with contextlib.suppress(OSError):
            self._files.append(os.open(f"/proc/{self._of}/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            self._files.append(os.open(f"/proc/{self._of}/task/{self._of}/children", os.O_RDONLY | os.O_CLOEXEC))

    def children(self) -> list[int]:
        """Zombies included; of all our threads."""
        if len(self._files) < 2 or os.fstat(self._files[0]).st_nlink > 3:  # as in ``children``
            return children(self._of)
        os.lseek(self._files[1], 0, os.SEEK_SET)
        return list(map(int, _read(self._files[1], CHILDREN_BYTES).split()))

    def close(self) -> None:
        while self._files:
            os.close(self._files.pop())


def children_text(pid: int) -> bytes:
    """The children of the main thread of *pid* as the kernel writes them: to see whether they are the same as before. A thousand take a while to parse."""
    return _children_text(f"/proc/{pid}/task", pid)


def _children_of(folder: str, tid: object) -> list[int]:
    return list(map(int, _children_text(folder, tid).split()))


def _children_text(folder: str, tid: object) -> bytes:
    """Of one thread."""
    return read_file(f"{folder}/{tid}/children", CHILDREN_BYTES) or b""


def descendants(roots: Iterable[int]) -> Iterator[int]:
    """*roots* and everything below them that is alive now, parents before children; at most MAX_TREE."""
    seen: set[int] = set()
    todo = list(roots)
    while todo and len(seen) < MAX_TREE:
        pid = todo.pop()
        if pid in seen:
            continue
        seen.add(pid)
        yield pid
        todo += children(pid)


def environment_values(pid: int, *names: str) -> dict[str, str] | None:
    """What of *names* is in the environment with which *pid* was executed (its children without an exec share it).

    None if there is nothing to read: it has gone, is not ours to read, has an empty one, or is just about to execute another program.
    """
    text = read_file(f"/proc/{pid}/environ", ENVIRON_BYTES)
    if text is None:  # no such process, or a leader that has ended before its other threads
        text = next((text for folder in _thread_folders(pid) if (text := read_file(f"{folder}/environ", ENVIRON_BYTES))), None)
    if not text:
        return None
    found: dict[str, str] = {}
    for entry in text.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if (asked := name.decode(errors="replace")) in names:
            found.setdefault(asked, value.decode(errors="replace"))
    return found


def claimed_attempt(pid: int) -> str | None:
    """The key (RUN.ATTEMPT) of the attempt that the environment of *pid* names, "" if it names none, None if it cannot be told (now)."""
    told = environment_values(pid, *ATTEMPT)
    if told is None:
        return None
    return ".".join(told[name] for name in ATTEMPT) if len(told) == len(ATTEMPT) else ""


def oom_kills() -> int | None:
    """The kernel's count of OOM kills on this host, None where it does not tell (before Linux 4.13)."""
    text = read_file("/proc/vmstat", 1 << 17) or b""
    start = text.find(b"\noom_kill ")
    return int(text[start + 10 :].split(b"\n", 1)[0]) if start >= 0 else None


def boot_id() -> str:
    """What names this boot of the machine; $MAINSTAY_BOOT_ID_FILE stands in for the kernel's file in tests."""
    text = read_file(os.environ.get("MAINSTAY_BOOT_ID_FILE", "/proc/sys/kernel/random/boot_id"), 128)
    return text.decode().strip() if text else "unknown"
