"""Starts the command of ``mainstay exec``, and loads what watches and judges it only then: the two start-ups overlap.

Most of the time that ``exec`` adds to a short command is Python's own for importing us. So what stands here is all that a start needs:
standard library, launch, page and the guard's environment.
"""

import os
import select
import signal
import stat
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from supervisor import procfs
from supervisor.arming import SITE, arm, rlimits
from supervisor.keeper import launch
from supervisor.page import create_page

OURS_FAILED: Final = 125
FORWARDED: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Stream:
    """One of the command's outputs, passed on to ours while it is counted. ``unsent`` is what our own reader has not taken yet."""

    def __init__(self, pipe: int, target: int) -> None:
        self.pipe = pipe
        self.target = target
        self.is_open = True
        self.unsent = memoryview(b"")


class Started:
    """A command that was started, or could not be: then ``failure`` has (stage, errno). Times: CLOCK_MONOTONIC and Unix seconds."""

    def __init__(
        self,
        plan: launch.Plan,
        run_dir: str,
        wake: int,
        child: launch.Child,
        started_mono: float,
        started_wall: float,
        streams: list[Stream],
    ) -> None:
        self.plan = plan
        self.run_dir = run_dir
        self.wake = wake
        self.child = child
        self.started_mono = started_mono
        self.started_wall = started_wall
        self.streams = streams
        self.failure: tuple[str, int] | None = None
        self.oom_kills: int | None = None  # the host's count before the start


def start(argv: Sequence[str], limits: Mapping[str, Any], *, use_guard: bool) -> Started:
    """Start *argv* with the kernel's share of *limits* (fields of ``Limits``). ``OSError`` when not even a process could be made."""
    run_dir = make_run_dir()
    try:
        return _start(argv, limits, run_dir, use_guard=use_guard)
    except OSError:
        remove_run_dir(run_dir)
        raise


def _start(argv: Sequence[str], limits: Mapping[str, Any], run_dir: str, *, use_guard: bool) -> Started:
    environment = dict(os.environ) | {
        "MAINSTAY_JOB": os.path.basename(argv[0]),
        "MAINSTAY_PAGE": run_dir + "/page",
        "MAINSTAY_PROGRESS": run_dir + "/progress",
    }
    if not environment.keys() >= set(procfs.ATTEMPT):  # else we are part of a job's attempt, and what we start is too
        environment |= dict.fromkeys(procfs.ATTEMPT, "1")
    if use_guard:
        environment = arm(environment, run_dir, limits.get("recursion_frames"), site=_site())
    plan = launch.Plan(list(argv), environment, _directory(), limits=rlimits(limits.get("cpu_s"), limits.get("files")))
    counts = limits.get("output_bytes") is not None or limits.get("stall_s") is not None
    return start_plan(plan, run_dir, (1, 2) if counts else ())


def _site() -> str:
    """The guard where Python can keep it compiled: a copy of our user's, where the installation is somebody else's.

    Not for root, and not where anybody but root and ourselves could put something else in its place: HOME may be that of the person behind sudo.
    """
    cache = cache_dir()
    if os.geteuid() == 0 or cache is None or os.access(SITE + "/_mainstay_guard", os.W_OK):
        return SITE
    from supervisor.guardsites import GuardSites

    folder = os.path.join(os.path.realpath(cache), "guard")
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        return GuardSites(folder, remove_run_dir).of(os.geteuid()) if is_ours_alone(folder) else SITE
    except OSError:  # it guards just as well from there, later in each start
        return SITE


def is_ours_alone(folder: str) -> bool:
    """Whether nobody but root and our user can change what lies at *folder*, an absolute path without links. ``OSError``."""
    me = os.geteuid()
    if os.lstat(folder).st_uid != me:
        return False
    while True:
        status = os.lstat(folder)
        is_open = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in (0, me) or is_open or not stat.S_ISDIR(status.st_mode):
            return False
        if folder == "/":
            return True
        folder = os.path.dirname(folder)


def cache_dir() -> str | None:
    """For what costs time to find out or make again: layouts of interpreters, the guard's copy. None where our user has no home."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "mainstay") if os.path.isabs(base) else None


def _directory() -> str:
    """Where we are, and the command with us; a folder that was removed under us has no name any more."""
    try:
        return os.getcwd()
    except OSError:
        return "."


def start_plan(plan: launch.Plan, run_dir: str, targets: tuple[int, ...]) -> Started:
    """Start *plan*, whose page and reports are in *run_dir*. *targets* are the descriptors to which its stdout and stderr are passed on while they are
    counted; none: it writes to ours itself. ``OSError``.
    """
    launch.prctl(launch.PR_SET_CHILD_SUBREAPER, 1)
    wake = _catch_signals()
    started_mono, started_wall = time.monotonic(), time.time()  # noqa: TID251 - `exec` is a program of its own, without the loop
    pipes = [launch.output_pipe() for _ in targets]
    oom_kills = procfs.oom_kills()
    try:
        _make_page(plan, run_dir)
        if plan.uid is not None or plan.gid is not None:
            os.chown(run_dir, -1 if plan.uid is None else plan.uid, -1 if plan.gid is None else plan.gid)
        child = launch.fork_child(plan, stdio=(None, pipes[0][1], pipes[1][1]) if pipes else (None, None, None), own_session=False)
    finally:
        for _, theirs in pipes:
            os.close(theirs)
    streams = [Stream(ours, target) for (ours, _), target in zip(pipes, targets, strict=True)]
    started = Started(plan, run_dir, wake, child, started_mono, started_wall, streams)
    started.oom_kills = oom_kills
    return started


def _make_page(plan: launch.Plan, run_dir: str) -> None:
    try:
        create_page(run_dir + "/page", uid=-1 if plan.uid is None else plan.uid, gid=-1 if plan.gid is None else plan.gid)
    except OSError as err:
        raise _no_room(run_dir, err) from err


def _no_room(folder: str, err: OSError) -> OSError:
    return OSError(
        err.errno, f"cannot write in {os.path.dirname(folder)}: {err.strerror}; set TMPDIR to a folder with room that we may write"
    )


def wait_for_exec(started: Started) -> None:
    """Until the command has begun or is known not to; then ``failure`` is known."""
    select.select([started.child.errors], [], [])
    started.failure = launch.read_error(started.child)


def make_run_dir() -> str:
    """A folder of our own for page and reports; ``tempfile`` would take 5 ms to import. ``OSError`` in words."""
    base = next((folder for name in ("TMPDIR", "TEMP", "TMP") if (folder := os.environ.get(name)) and os.path.isdir(folder)), "/tmp")  # noqa: S108 - 0700, made anew
    folder = os.path.join(os.path.abspath(base), f"mainstay-exec-{os.getpid()}-{os.urandom(8).hex()}")
    try:
        os.mkdir(folder, 0o700)
    except OSError as err:
        raise _no_room(folder, err) from err
    return folder


def remove_run_dir(folder: str) -> None:
    """Remove a folder of ours, of a command that is over: what the guard leaves lies flat in it; for anything else a real walk is loaded."""
    try:
        for entry in os.scandir(folder):
            os.unlink(entry.path)
        os.rmdir(folder)
    except OSError:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def _catch_signals() -> int:
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    for number in (signal.SIGCHLD, *FORWARDED):
        if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGCHLD:  # nohup stays nohup
            signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    return read
