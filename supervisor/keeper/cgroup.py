"""cgroup v2: find the subtree that was delegated to us, make a group per attempt, kill it, read its last figures, remove it.

Used only where systemd (``Delegate=yes``) or an operator gave us a subtree; see cgroups(7) and "Delegation" in systemd.resource-control(5).
"""

import contextlib
import os
from typing import Final

ROOT: Final = "/sys/fs/cgroup"
DAEMON_GROUP: Final = "mainstay-daemon"  # where keeper and brain live; inner groups must not hold processes
JOBS_GROUP: Final = "mainstay-jobs"
WANTED: Final = ("memory", "pids", "cpu")


def delegated() -> str | None:
    """The directory of the cgroup that we own, None where there is none (cgroup v1, no delegation, no permission).

    $MAINSTAY_CGROUP names it outright; "none" switches cgroups off.
    """
    named = os.environ.get("MAINSTAY_CGROUP")
    if named:
        return None if named == "none" else named
    own = _own_group()
    if own is None or not _is_delegated(own):
        return None
    controllers = _read(own + "/cgroup.controllers").split()
    return own if "memory" in controllers and "pids" in controllers and os.access(own, os.W_OK) else None


def _own_group() -> str | None:
    for line in _read("/proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            path = ROOT + line[3:].rstrip("/")
            return path.removesuffix("/" + DAEMON_GROUP) if os.path.isfile(path + "/cgroup.controllers") else None
    return None


def _is_delegated(path: str) -> bool:
    for name in ("trusted.delegate", "user.delegate"):  # set by systemd on the unit's group
        with contextlib.suppress(OSError):
            return os.getxattr(path, name) == b"1"
    return False


def prepare(path: str) -> str:
    """Move ourselves into a group of our own below *path*, switch the controllers on, and make the jobs' group. Its path. ``OSError``."""
    daemon = f"{path}/{DAEMON_GROUP}"
    jobs = f"{path}/{JOBS_GROUP}"
    os.makedirs(daemon, exist_ok=True)
    for pid in _read(path + "/cgroup.procs").split():
        with contextlib.suppress(ProcessLookupError):
            _write(daemon + "/cgroup.procs", pid)
    available = _read(path + "/cgroup.controllers").split()
    switch = " ".join("+" + name for name in WANTED if name in available)
    _write(path + "/cgroup.subtree_control", switch)
    os.makedirs(jobs, exist_ok=True)
    _write(jobs + "/cgroup.subtree_control", switch)
    return jobs


def path_of(jobs: str, key: str) -> str:
    """The directory of an attempt's group."""
    return f"{jobs}/run-{key}"


def create(jobs: str, key: str, settings: dict[str, str]) -> str:
    """A fresh group for one attempt with *settings* written into it; its path. ``OSError`` (a file that this kernel lacks is passed over)."""
    path = path_of(jobs, key)
    os.makedirs(path, exist_ok=True)
    for name, value in settings.items():
        try:
            _write(f"{path}/{name}", value)
        except FileNotFoundError:
            if name in ("memory.max", "pids.max"):
                raise
    return path


def processes(path: str) -> list[int]:
    """The pids in the group and its sub-groups."""
    found: list[int] = []
    for folder, _, _ in os.walk(path):
        found += [int(pid) for pid in _read(folder + "/cgroup.procs").split() if pid != "0"]
    return found


def kill(path: str) -> None:
    """SIGKILL to everything in the group at once (cgroup.kill, Linux 5.14). ``OSError`` where the kernel does not."""
    _write(path + "/cgroup.kill", "1")


def figures(path: str) -> dict[str, int]:
    """Last figures of a group: ``oom_kills``, ``memory_peak_bytes``, ``pids_max_hits``; absent where the kernel does not tell."""
    found: dict[str, int] = {}
    events = dict(line.split() for line in _read(path + "/memory.events").splitlines())
    if "oom_kill" in events:
        found["oom_kills"] = int(events["oom_kill"])
    peak = _read(path + "/memory.peak").strip()
    if peak:
        found["memory_peak_bytes"] = int(peak)
    pids = dict(line.split() for line in _read(path + "/pids.events").splitlines())
    if "max" in pids:
        found["pids_max_hits"] = int(pids["max"])
    return found


def remove(path: str) -> bool:
    """Remove the group and what the job made below it; False while something still lives there."""
    for folder, _, _ in os.walk(path, topdown=False):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
