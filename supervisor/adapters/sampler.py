"""Measures one attempt's whole tree: memory, processes, CPU time, Python depth. From its cgroup where it has one, else by walking /proc.

A look at a quiet tree costs two reads on open descriptors (``signature``); the full sample is taken only when something has moved.
The walk sees what hangs below the main process and the ``strays`` that were orphaned and came to the keeper.
"""

import contextlib
import errno
import os
import resource
import select
import sys
from collections.abc import Callable
from typing import Final

from supervisor import procfs, proctree
from supervisor.core.evidence import Cycle
from supervisor.core.limits import Sample
from supervisor.core.model import Mono
from supervisor.ports import DepthReader, GuardReader

MAX_EYES: Final = 8  # interpreters of one tree whose depth is watched
MAX_EYES_KEPT: Final = 64
CROWD: Final = 16  # processes of one tree that may be a fork bomb
MAX_SIGNED: Final = 9  # processes whose own figures are part of the signature
FULL_WALK_EVERY: Final = 16  # looks between two walks that also ask every thread for children
STATM_SHARED: Final = 2
STATM_DATA: Final = 5
WALL_ROOM_BYTES: Final = 2**20 + 2**16  # one arena of small objects, which CPython asks for at once (1 MiB from 3.10 on), and its map
CAUGHT_EVERY_S: Final = 0.2
CAUGHT_PER_S: Final = 100.0
MAX_ASKED: Final = 64
ROOM_SHARE: Final = 0.8
STACK_BYTES: Final = 64 * 2**20
GONE: Final = -1  # in the place of a descriptor: there is no such process
SHORT: Final = -2  # in the place of a descriptor: we have no more of them, which says nothing about the process


class Sampler:
    """The tree below *pid*. Never raises: what is gone measures nothing."""

    __slots__ = (
        "_armed_bytes", "_caught", "_caught_at", "_children", "_eye_for", "_eyes", "_group", "_guards", "_is_alone", "_looks", "_members",
        "_pidfd", "_schedstat", "_started", "_stat", "_statm", "_turn", "deepest", "pid", "strays",
    )  # fmt: skip

    def __init__(self, pid: int, cgroup: str | None, eye_for: Callable[[int], DepthReader], guards: GuardReader | None = None) -> None:
        self.pid = pid
        self._guards = guards
        self._armed_bytes: int | None = None
        self._caught = 0
        self._caught_at = 0.0
        self.strays: tuple[int, ...] = ()
        self.deepest = pid
        self._turn = 0
        self._eye_for = eye_for
        self._started: int | None = None
        self._pidfd = self._stat = self._statm = self._children = self._schedstat = SHORT
        self._is_alone = False  # one process with one thread, when it was last looked at in full
        self._open()
        self._group = _Group(cgroup) if cgroup is not None else None
        self._eyes: dict[int, DepthReader] = {}
        self._members: tuple[int, ...] = (pid,)
        self._looks = 0
        self._raise_stack()

    @property
    def is_blind(self) -> bool:
        """Nothing can be seen for want of descriptors: the process may be as well as ever."""
        return self._stat == SHORT

    def confirm(self, started: int) -> None:
        """The main process began then (ticks after boot): another one that has its pid by now is nobody we know, and measures nothing."""
        self._started = started or None  # 0: it had ended before the keeper could ask
        self._check()

    def is_alive(self) -> bool:
        """Whether the main process, and no other under its pid, still lives."""
        if self._pidfd == SHORT:
            self._open()
        if self._pidfd < 0:
            return self._pidfd == SHORT
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return not poll.poll(0)

    def _open(self) -> None:
        """Open what is not open yet."""
        folder = f"/proc/{self.pid}"
        if self._pidfd == SHORT:
            self._pidfd = _fd(lambda: os.pidfd_open(self.pid))
        paths = {
            "_stat": f"{folder}/stat",
            "_statm": f"{folder}/statm",
            "_children": f"{folder}/task/{self.pid}/children",
            "_schedstat": f"{folder}/schedstat",
        }
        for name, path in paths.items():
            if getattr(self, name) == SHORT:
                setattr(self, name, _open(path))
        self._check()

    def _check(self) -> None:
        stat = procfs.told_stat(lambda: _pread(self._stat, 1024))
        if self._started is not None and stat is not None and stat.started != self._started:
            self.close()

    def signature(self, *, rested: bool = False) -> bytes:
        """Bytes that differ when a process of the tree has used memory or CPU time, or has other children.

        All of that shows in its stat: memory and time by themselves, and a fork by the pages that its parent has to fault in again. Empty
        when the main one is gone, and for a tree so large that a full sample costs hardly more. With *rested* the last look was many
        ticks of the scheduler ago: then a process with one thread is asked whether it ran at all, which costs a tenth of its stat.
        """
        if (
            rested and self._is_alone and (ran := _pread(self._schedstat, 64)) and not ran.startswith(b"0 ")
        ):  # 0: this kernel does not count
            return ran
        stat = _pread(self._stat, 512)
        if not stat or len(self._members) > MAX_SIGNED:
            return b""
        others = [_signed(pid) for pid in self._members[1:]]
        return b"".join([stat[stat.rfind(b")") :], *others])

    def members(self) -> tuple[int, ...]:
        """The pids of the tree as they were last found, main process first."""
        return self._members

    def refresh(self) -> tuple[int, ...]:
        """Walk the tree now."""
        if self._group is not None:
            found = self._group.processes()
            self._members = (self.pid, *(pid for pid in found if pid != self.pid)) if found else (self.pid,)
        else:
            self._members = (self.pid, *(pid for pid in procfs.descendants((self.pid, *self.strays)) if pid != self.pid))
        if len(self._members) >= CROWD:
            proctree.go_first()  # what is to be seen of them takes a while; whoever looks ends it
        return self._members

    def sample(self, at: Mono, output_bytes: int, progress_token: object) -> Sample | None:
        """One full sample, None when the main process is gone."""
        if SHORT in (self._stat, self._statm, self._children, self._pidfd, self._schedstat):
            self._open()
        stat = procfs.told_stat(lambda: _pread(self._stat, 1024))
        if stat is None or (stat.state in "ZX" and not self.is_alive()):
            return None
        self._looks += 1
        if self.strays or len(self._members) > 1 or self._looks % FULL_WALK_EVERY == 1 or _pread(self._children, 16):
            self.refresh()
        if self._group is not None:
            (memory, cpu, processes), shared = self._group.figures(), 0
        else:
            memory, shared, cpu, processes = self._walked(stat)
        self._is_alone = processes == 1 and not self.strays
        depth, limit, recursion_error = self._depth()
        if limit is None and not recursion_error:
            recursion_error = self._catches_them(at)
        at_wall = self._at_wall()
        return Sample(
            at=at,
            memory_bytes=memory,
            shared_bytes=shared,
            processes=processes,
            depth=depth,
            recursion_limit=limit,
            recursion_error=recursion_error,
            cpu_s=cpu,
            output_bytes=output_bytes,
            progress_token=progress_token,
            at_wall=at_wall,
            system_s=stat.system_s,
            memory_errors=self._guards.swallowed(self.pid)[1] if at_wall and self._guards is not None else 0,
        )

    def _at_wall(self) -> bool:
        """Whether the rlimit that we armed leaves the main process no room for more."""
        if self._armed_bytes is None:
            return False
        fields = _pread(self._statm, 128).split()
        return len(fields) > STATM_DATA and int(fields[STATM_DATA]) * procfs.PAGE_BYTES + WALL_ROOM_BYTES > self._armed_bytes

    def _walked(self, stat: procfs.Stat) -> tuple[int, int, float, int]:
        memory, shared = _resident(procfs.statm(self.pid, stat) if stat.is_leaderless else _pread(self._statm, 128))
        cpu = stat.cpu_s + stat.waited_cpu_s
        processes = stat.threads
        for pid in self._members[1:]:
            other = procfs.read_stat(pid)
            if other is None:
                continue
            # One that is dead and not waited for has no memory, but its pid and its CPU time are used up all the same.
            if not other.is_dead:
                resident, of_it_shared = _resident(procfs.statm(pid, other))
                memory, shared = memory + resident, shared + of_it_shared
            cpu += other.cpu_s + other.waited_cpu_s
            processes += other.threads
        return memory, shared, cpu, processes

    def _depth(self) -> tuple[int, int | None, bool]:
        deepest, limit, error = 0, None, False
        for pid in self._in_turn():
            seen = self.eye(pid).depth()
            if seen is None:
                continue
            error = error or seen.recursion_error
            if seen.frames >= deepest:
                deepest, limit, self.deepest = seen.frames, seen.limit, pid
        return deepest, limit, error

    def _in_turn(self) -> tuple[int, ...]:
        """Whose depth is looked at now: of a large tree the main process, the one that was deepest, and the others one after the other."""
        if len(self._members) <= MAX_EYES:
            return self._members
        lasting = tuple(dict.fromkeys((self.pid, self.deepest if self.deepest in self._members else self.pid)))
        others = [pid for pid in self._members if pid not in lasting]
        room = MAX_EYES - len(lasting)
        first, self._turn = self._turn % len(others), (self._turn + room) % len(others)
        return (*lasting, *(others + others)[first : first + room])

    def _catches_them(self, at: float) -> bool:
        """Where the interpreter cannot be seen from outside: the guard's own count of RecursionErrors that the job caught, rising fast.

        A loop that swallows them catches hundreds a second; a job that handles one now and then is nobody's business.
        """
        if self._guards is None or at - self._caught_at < CAUGHT_EVERY_S:
            return False
        caught, span_s = self._guards.swallowed(self.pid)[0], at - self._caught_at
        rate = (caught - self._caught) / span_s if self._caught_at else 0.0
        self._caught, self._caught_at = caught, at
        return rate >= CAUGHT_PER_S

    def eye(self, pid: int) -> DepthReader:
        """The eye on one process of the tree."""
        found = self._eyes.get(pid)
        if found is None:
            if len(self._eyes) >= MAX_EYES_KEPT:
                self._eyes.pop(next(iter(self._eyes))).close()
            found = self._eyes[pid] = self._eye_for(pid)
        return found

    def arm(self, limit_bytes: int) -> bool:
        """Let the next allocations beyond the limit fail with MemoryError: a late RLIMIT_DATA on the main process (guard study, section 3)."""
        fields = _pread(self._statm, 128).split()
        if len(fields) <= STATM_DATA or not self.is_alive():
            return False
        data = int(fields[STATM_DATA]) * procfs.PAGE_BYTES
        room = limit_bytes - int(fields[1]) * procfs.PAGE_BYTES
        with contextlib.suppress(OSError, ValueError):
            _, hard = resource.prlimit(self.pid, resource.RLIMIT_DATA)
            resource.prlimit(self.pid, resource.RLIMIT_DATA, (data + max(room, 0), hard))
            self._armed_bytes = data + max(room, 0)
            return True
        return False

    def ask_guard(self) -> bool:
        """Have the guard of the largest process write down what fills its memory; False if there is none to ask, or no room on its stack."""
        if self._guards is None:
            return False
        sizes = {pid: _resident(procfs.read_file(f"/proc/{pid}/statm", 128) or b"")[0] for pid in self._members[:MAX_ASKED]}
        for pid in sorted(sizes, key=lambda one: -sizes[one]):
            seen = self.eye(pid).depth()
            if seen is not None and seen.frames > ROOM_SHARE * seen.limit:
                continue  # the handler would meet the recursion limit, and the error would be the job's
            if self._guards.ask(pid):
                return True
        return False

    def tasks(self) -> Cycle | None:
        """The asyncio tasks that start each other, if a guard that was asked has found such."""
        if self._guards is None:
            return None
        found = (self._guards.tasks(pid) for pid in self._members[:MAX_EYES])
        return next((cycle for cycle in found if cycle is not None), None)

    def _raise_stack(self) -> None:
        """Room for the C stack of the main thread: up to Python 3.11 a deep recursion through C would end in SIGSEGV before any limit of ours.

        Done from outside and after the exec, so that the stacks of threads keep their size.
        """
        with contextlib.suppress(OSError, ValueError):
            soft, hard = resource.prlimit(self.pid, resource.RLIMIT_STACK)
            wanted = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
            if soft != resource.RLIM_INFINITY and soft < wanted:
                resource.prlimit(self.pid, resource.RLIMIT_STACK, (wanted, hard))

    def close(self) -> None:
        """Give all descriptors back."""
        for fd in (self._statm, self._stat, self._children, self._pidfd, self._schedstat):
            if fd >= 0:
                os.close(fd)
        self._statm = self._stat = self._children = self._pidfd = self._schedstat = GONE
        self._close_eyes()
        if self._group is not None:
            self._group.close()

    def _close_eyes(self) -> None:
        for eye in self._eyes.values():
            eye.close()
        self._eyes.clear()


class _Group:
    """The figures of a cgroup v2 directory, on open descriptors."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._memory = self._cpu = self._pids = SHORT
        self._open()

    def _open(self) -> None:
        for name, file in (("_memory", "memory.current"), ("_cpu", "cpu.stat"), ("_pids", "pids.current")):
            if getattr(self, name) == SHORT:
                setattr(self, name, _open(f"{self._path}/{file}"))

    def figures(self) -> tuple[int, float, int]:
        self._open()
        cpu = _pread(self._cpu, 256).split()
        return _number(_pread(self._memory, 32)), _number(cpu[1]) / 1e6 if len(cpu) > 1 else 0.0, _number(_pread(self._pids, 32))

    def processes(self) -> list[int]:
        text = procfs.read_file(self._path + "/cgroup.procs", 1 << 20) or b""
        return [int(pid) for pid in text.split() if pid != b"0"]

    def close(self) -> None:
        for fd in (self._memory, self._cpu, self._pids):
            if fd >= 0:
                os.close(fd)


def _open(path: str) -> int:
    return _fd(lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC))


_told_of: set[str] = set()  # that descriptors are short is said once, whoever finds it


def _fd(opened: Callable[[], int]) -> int:
    """A descriptor, GONE or SHORT."""
    try:
        return opened()
    except OSError as err:
        if err.errno not in (errno.EMFILE, errno.ENFILE):
            return GONE
        if not _told_of:
            _told_of.add("short")
            structlog = sys.modules.get("structlog")  # `exec` has no time to load it, and without descriptors nobody could
            if structlog is not None:
                log = structlog.get_logger()
                mend = "raise LimitNOFILE, or the system's fs.file-max; looks go on as some come free"
                log.error("descriptors_short", error=str(err), mend=mend)  # noqa: TRY400 - the text says it all
        return SHORT


def _pread(fd: int, size: int) -> bytes:
    if fd < 0:
        return b""
    try:
        return os.pread(fd, size, 0)
    except OSError:
        return b""


def _signed(pid: int) -> bytes:
    """The part of one process below the main one: a shell that waits for the job proper shows nothing itself."""
    folder = f"/proc/{pid}"
    stat = procfs.read_file(f"{folder}/stat", 512) or b""
    children = procfs.read_file(f"{folder}/task/{pid}/children", 4096) or b""
    return (procfs.read_file(f"{folder}/statm", 128) or b"") + children + stat[stat.rfind(b")") :]


def _resident(statm: bytes) -> tuple[int, int]:
    """(resident bytes, those among them that are shared or of files), as in proc_pid_statm(5)."""
    fields = statm.split()
    return (int(fields[1]) * procfs.PAGE_BYTES, int(fields[2]) * procfs.PAGE_BYTES) if len(fields) > STATM_SHARED else (0, 0)


def _number(text: bytes) -> int:
    return int(text) if text.strip().isdigit() else 0
