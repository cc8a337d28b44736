"""Which Mainstays run on this machine, by the command lines of their keepers. For a command that finds nobody where the config says: whom it may wait
for, and where the daemon is that was started before somebody edited or removed the file. What is asked of a daemon is ``client``'s business.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from supervisor import procfs

PROGRAM = b"supervisor.keeper"  # as ``start`` executes it


class RunningKeeper(NamedTuple):
    """A keeper, and what it was started with. ``is_stopped``: by SIGSTOP or a debugger, so it does nothing at all."""

    pid: int
    config: str
    state_dir: str
    is_stopped: bool


def running() -> list[RunningKeeper]:
    """One for each Mainstay of ours or of root. Anybody can give a process such a command line, so other users' are nobody."""
    found: dict[str, list[tuple[procfs.Stat, str]]] = {}
    for pid, config, state_dir in _named():
        stat = procfs.read_stat(pid)
        if stat is not None and not stat.is_dead:
            found.setdefault(state_dir, []).append((stat, config))
    return [_keeper(sorted(those, key=lambda one: (one[0].started, one[0].pid)), state_dir) for state_dir, those in found.items()]


def _keeper(those: list[tuple[procfs.Stat, str]], state_dir: str) -> RunningKeeper:
    """Of the processes with one command line: the first is the guardian, and the keeper its first child. What the keeper forks has that line too, until it
    executes something. Under systemd there is no guardian."""
    first, config = those[0]
    has_guardian = not (procfs.environment_values(first.pid, "NOTIFY_SOCKET") or {})
    keeper = next((stat for stat, _ in those if stat.ppid == first.pid), first) if has_guardian else first
    return RunningKeeper(keeper.pid, config, state_dir, keeper.state in "Tt")


def keeper_of(state_dir: str) -> RunningKeeper | None:
    """Who runs on that state directory."""
    wanted = os.path.realpath(state_dir)
    return next((one for one in running() if os.path.realpath(one.state_dir) == wanted), None)


def _named() -> Iterator[tuple[int, str, str]]:
    trusted = (0, os.geteuid())
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        words = (procfs.read_file(f"/proc/{name}/cmdline") or b"").split(b"\0")
        if PROGRAM not in words[:5]:
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            if os.stat(f"/proc/{name}").st_uid in trusted:
                yield int(name), os.fsdecode(words[words.index(b"--config") + 1]), os.fsdecode(words[words.index(b"--state-dir") + 1])
