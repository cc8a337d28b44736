"""Starts one child: session, cgroup, limits, identity and descriptors are in place before its first instruction.

``fork`` rather than ``posix_spawn``: only code of ours between fork and exec can join a cgroup, drop privileges in the right order, and
ask for a parent-death signal. The keeper is small and single-threaded, so a fork is cheap and safe here.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import signal
import socket
import struct
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from supervisor.keeper import held as held_child

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
PIPE_BYTES: Final = 256 * 1024  # fewer wake-ups for a job that floods; the default of 64 KiB stays where the kernel refuses

NO_PROCESS_LEFT: Final = "the host, this user or this unit has all the processes that it may have (pid_max, `ulimit -u`, TasksMax=)"

_CAUGHT: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PYTHONS: Final = (signal.SIGPIPE, signal.SIGXFSZ)  # ignored by Python itself, whatever it inherited
# What exec would hand on: those two, and whoever started us may have had us ignore more. Looking takes 0.3 ms: once.
_IGNORED: Final = tuple(number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN)

_libc = ctypes.CDLL(None, use_errno=True)
_PROGRAM: Final = held_child.make_program()
_ERROR = struct.Struct("ii")

# What went wrong in the child between fork and exec, in the order in which it is done.
STAGES: Final = ("session", "cgroup", "descriptors", "limits", "priority", "umask", "identity", "directory", "parent", "exec")


def prctl(option: int, value: int) -> None:
    """Set one attribute of this process. ``OSError`` as the kernel says."""
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def close_on_exec_all() -> None:
    """Mark every descriptor but 0, 1 and 2 close-on-exec: whatever we inherited, no child gets it."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):  # the descriptor of the listing itself
                os.set_inheritable(int(name), False)


class Plan(NamedTuple):
    """All that is needed to start a child; made by the brain, carried by the wire as a JSON object with these keys.

    ``limits`` maps names of ``resource`` without RLIMIT_ to [soft, hard] (-1 is unlimited). ``groups`` None keeps ours. ``cgroup`` maps
    file names to what is written there ("memory.max": "314572800") or is None where there are no cgroups. ``output`` is the path of the
    file that takes stdout and stderr, None to hand on our own. ``oom_score_adj`` None keeps ours. ``grace_s`` is how long a stop may take, and
    ``stop_signal`` (without SIG) what asks for it.
    """

    argv: list[str]
    environment: dict[str, str]
    directory: str
    uid: int | None = None
    gid: int | None = None
    groups: list[int] | None = None
    umask: int | None = None
    nice: int | None = None
    limits: Mapping[str, list[int]] = MappingProxyType({})
    cgroup: dict[str, str] | None = None
    oom_score_adj: int | None = None
    output: str | None = None
    output_max_bytes: int = 10 * 2**20
    output_limit_bytes: int | None = None
    output_drop: bool = False
    grace_s: float = 10.0
    stop_signal: str = "TERM"

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> "Plan":
        """The plan in a SPAWN message. ``TypeError`` when keys are missing or unknown, ``ValueError`` when there is no command."""
        plan = cls(**message)
        if not plan.argv:
            raise ValueError("argv is empty")
        return plan

    @property
    def carried_out(self) -> "Plan":
        """What is still asked for once the child runs, for a thousand whole ones are megabytes: its name and how it is stopped."""
        return Plan(self.argv[:1], {}, "", grace_s=self.grace_s, stop_signal=self.stop_signal)


class Child:
    """A child after the fork; ``errors`` (a pipe) reaches end of file when the exec has succeeded. One that is held waits for ``let_go``.

    ``started`` is its start time (clock ticks after boot), 0 if it had gone before it could be asked for.
    """

    __slots__ = ("_is_ready", "errors", "gate", "pid", "started")

    def __init__(self, pid: int, errors: int, gate: int = -1) -> None:
        self.pid = pid
        self.errors = errors
        self.gate = gate
        self.started = 0
        self._is_ready = False

    def is_ready(self) -> bool:
        """Whether a held child has all behind it that was to be on disk before it may begin."""
        if not self._is_ready:
            with contextlib.suppress(OSError):
                self._is_ready = os.read(self.gate, 1) == b"r"
        return self._is_ready

    def let_go(self) -> None:
        """Let a held child go on to its exec. One that has died meanwhile is met by whoever reaps it."""
        with contextlib.suppress(OSError):
            os.write(self.gate, b"x")
        self.close_gate()

    def close_gate(self) -> None:
        """Give up the means to let it go."""
        if self.gate >= 0:
            os.close(self.gate)
            self.gate = -1


def output_pipe() -> tuple[int, int]:
    """A pipe for what a child writes: (our end, non-blocking; the child's end). ``OSError``."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(ours, False)
    with contextlib.suppress(OSError):  # over the user's share of pipe pages: 64 KiB do as well
        fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return ours, theirs


def fork() -> int:
    """The syscall; its ``OSError`` says in words what there is too little of."""
    try:
        return os.fork()
    except OSError as err:
        lacking = {
            errno.EAGAIN: NO_PROCESS_LEFT,
            errno.ENOMEM: "the host has no memory left for another process",
        }.get(err.errno or 0)
        raise OSError(err.errno, f"{err.strerror}: {lacking}" if lacking else err.strerror) from err


def fork_child(
    plan: Plan,
    cgroup_dir: str | None = None,
    *,
    stdio: tuple[int | None, int | None, int | None] = (None, None, None),
    own_session: bool = True,
    held: tuple[int, ...] | None = None,
) -> Child:
    """Fork and exec *plan*. ``OSError`` when not even the fork worked (out of processes, memory or descriptors).

    *stdio* are the descriptors that become 0, 1 and 2; None hands on our own. A child with a session of its own starts with every signal at
    its default; one in ours keeps what our own starter had us ignore (nohup stays nohup). A child that is *held* (not None) has all in place,
    fsyncs those descriptors and waits before its exec until it is let go; it dies with us.
    """
    errors_read, errors_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        gate_read, gate_write = _gate() if held is not None else (-1, -1)
    except OSError:
        os.close(errors_read)
        os.close(errors_write)
        raise
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, _CAUGHT)  # or a signal to the child would speak through our own wake-up pipe
    try:
        pid = fork()
        if pid == 0:
            _become(plan, cgroup_dir, errors_write, stdio, parent, gate_read, held or (), own_session=own_session)
    except OSError:
        os.close(errors_read)
        if gate_write >= 0:
            os.close(gate_write)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _CAUGHT)
        os.close(errors_write)
        if gate_read >= 0:
            os.close(gate_read)
    return Child(pid, errors_read, gate_write)


def read_error(child: Child) -> tuple[str, int] | None:
    """(stage, errno) when the child failed before its exec, None when it was started. Call once ``errors`` is readable."""
    try:
        data = os.read(child.errors, _ERROR.size)
    finally:
        os.close(child.errors)
        child.errors = -1
    if len(data) != _ERROR.size:
        return None
    stage, code = _ERROR.unpack(data)
    return STAGES[stage], code


def launch_error_text(plan: Plan, stage: str, code: int) -> str:
    """One line that names what could not be done, and the mend."""
    why = os.strerror(code)
    if stage == "exec":
        return f"cannot execute {plan.argv[0]!r}: {why}"
    if stage == "directory":
        return f"cannot enter the directory {plan.directory!r}: {why}"
    if stage == "identity":
        return f"cannot become uid {plan.uid}, gid {plan.gid}: {why}; only root can change users"
    return f"cannot set up {stage} for {plan.argv[0]!r}: {why}"


def _gate() -> tuple[int, int]:
    """(the child's end, ours): it says when it is ready, and waits to be let go."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    return theirs.detach(), ours.detach()


def _become(
    plan: Plan,
    cgroup_dir: str | None,
    errors: int,
    stdio: tuple[int | None, int | None, int | None],
    parent: int,
    gate: int,
    to_sync: tuple[int, ...],
    *,
    own_session: bool,
) -> None:
    """In the child: everything up to exec. Never returns."""
    stage = 0
    try:
        if own_session:
            os.setsid()
        stage = 1
        if cgroup_dir is not None:
            _write(cgroup_dir + "/cgroup.procs", "0")
        stage = 2
        # All else is closed by the exec: Python opens with O_CLOEXEC, and inherited ones are marked so by the keeper at its start.
        for number, fd in enumerate(stdio):
            if fd is not None:
                os.dup2(fd, number)
        stage = 3
        for name, (soft, hard) in plan.limits.items():
            resource.setrlimit(getattr(resource, "RLIMIT_" + name), (soft, hard))
        if plan.oom_score_adj is not None:
            with contextlib.suppress(OSError):  # lower than ours needs a privilege; then it stays as protected as we are
                _write("/proc/self/oom_score_adj", str(plan.oom_score_adj))
        stage = 4
        if plan.nice is not None:
            os.setpriority(os.PRIO_PROCESS, 0, plan.nice)
        stage = 5
        if plan.umask is not None:
            os.umask(plan.umask)
        stage = 6
        _identity(plan)
        stage = 7
        os.chdir(plan.directory)
        stage = 8
        # After the identity: changing credentials clears it (prctl(2)). The second look closes the race with a parent that has just died.
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(127)
        stage = 9
        _signals((*_IGNORED, *_CAUGHT) if own_session else (*_PYTHONS, *_caught()))
        if gate >= 0:
            errors = held_child.wait(_PROGRAM, gate, errors, to_sync, plan.argv, plan.environment)
        os.execvpe(plan.argv[0], plan.argv, plan.environment)  # noqa: S606 - no shell is the point
    except OSError as err:
        os.write(errors, _ERROR.pack(stage, err.errno or 0))
    except BaseException:  # noqa: BLE001 - nothing of ours may run on in the child, whatever went wrong
        os.write(errors, _ERROR.pack(stage, 22))
    finally:
        os._exit(127)


def _identity(plan: Plan) -> None:
    if plan.uid is None and plan.gid is None and plan.groups is None:
        return
    if plan.groups is not None:
        os.setgroups(plan.groups)
    if plan.gid is not None:
        os.setresgid(plan.gid, plan.gid, plan.gid)
    if plan.uid is not None:
        os.setresuid(plan.uid, plan.uid, plan.uid)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if not _is_as_asked(plan):  # a security module or a user namespace may have had other ideas
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def _is_as_asked(plan: Plan) -> bool:
    return (
        (plan.groups is None or set(os.getgroups()) == set(plan.groups))
        and (plan.gid is None or os.getresgid() == (plan.gid,) * 3)
        and (plan.uid is None or os.getresuid() == (plan.uid,) * 3)
    )


def _caught() -> list[signal.Signals]:
    return [number for number in _CAUGHT if signal.getsignal(number) is not signal.SIG_IGN]


def _signals(to_default: Iterable[int]) -> None:
    """Default dispositions and an empty mask, for those that were sent meanwhile to meet. What else is caught, exec itself resets."""
    for number in to_default:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
