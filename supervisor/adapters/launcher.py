"""Makes the keeper's plan for one attempt: command, environment, identity, limits of the kernel, output. Starts nothing itself."""

import grp
import os
import pwd
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from msgspec import Struct

from supervisor.arming import SITE, arm, rlimits
from supervisor.core.jobs import Job, Launch, Limits, OutputAction
from supervisor.core.model import Wall
from supervisor.errors import LaunchError
from supervisor.ports import Places
from supervisor.wire import attempt_key

# Ours, or between systemd and us: no job may see them, or it could speak in our name.
_TAKEN_AWAY: Final = (
    "NOTIFY_SOCKET",
    "LISTEN_",
    "WATCHDOG_",
    "MAINSTAY_",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "STATE_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "CREDENTIALS_DIRECTORY",
    "PROMETHEUS_MULTIPROC_DIR",  # jobs that inherited one directory would count into each other's files
    "prometheus_multiproc_dir",
)


class Identity(Struct, frozen=True):
    """Who the child is to be; None keeps what we are."""

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None
    name: str | None = None
    home: str | None = None
    shell: str | None = None


def identity(launch: Launch) -> Identity:
    """Names to numbers. ``LaunchError`` for an unknown user or group, or when we are not root and it is not ourselves."""
    if launch.user is None and launch.group is None and not launch.groups:
        return Identity()
    user = _user(launch.user) if launch.user is not None else None
    gid = _group(launch.group) if launch.group is not None else (user.pw_gid if user else None)
    uid = user.pw_uid if user else None
    if os.geteuid() != 0:
        if (uid is None or uid == os.geteuid()) and (gid is None or gid == os.getegid()) and not launch.groups:
            return Identity()
        raise LaunchError(f"user {launch.user!r} is asked for, and only root can change users; run Mainstay as root or remove `user`")
    groups = [_group(name) for name in launch.groups]
    if not groups and user is not None and gid is not None:
        groups = os.getgrouplist(user.pw_name, gid)
    return Identity(uid, gid, tuple(groups), user.pw_name if user else None, user.pw_dir if user else None, user.pw_shell if user else None)


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError as err:
        raise LaunchError(f"there is no user {name!r} on this machine") from err


def _group(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError as err:
        raise LaunchError(f"there is no group {name!r} on this machine") from err


def cgroup_files(limits: Limits) -> dict[str, str]:
    """What is written into the attempt's cgroup: the kernel's own limits for the whole tree."""
    files = {"memory.oom.group": "1"}
    if limits.memory_bytes is not None:
        files |= {"memory.max": str(limits.memory_bytes), "memory.swap.max": "0"}
    if limits.memory_soft_bytes is not None:
        files["memory.high"] = str(limits.memory_soft_bytes)
    if limits.processes is not None:
        files["pids.max"] = str(limits.processes)
    return files


def environment(base: Mapping[str, str], job: Job, who: Identity) -> dict[str, str]:
    """What the job inherits and what its config adds, without anything that is ours.

    A job with a user of its own starts clean, as under cron: of our environment it gets the path, the language and the time zone, and none of
    our sockets, sessions and secrets.
    """
    found = {name: value for name, value in base.items() if not name.startswith(_TAKEN_AWAY)}
    if who.name is not None:
        found = {name: value for name, value in found.items() if name in _FOR_OTHERS or name.startswith("LC_")}
        found |= {"USER": who.name, "LOGNAME": who.name, "HOME": who.home or "/", "SHELL": who.shell or "/bin/sh"}
        found.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    return found | dict(job.launch.environment)


_FOR_OTHERS: Final = ("PATH", "LANG", "LANGUAGE", "TZ")

log = structlog.get_logger()


class Launcher:
    """Plans attempts for one state directory."""

    def __init__(self, state: Places, base_environment: Mapping[str, str]) -> None:
        self._state = state
        self._base = base_environment
        self._uncopied: set[int] = set()  # users for whom no copy of the guard could be made

    def plan(self, job: Job, run: int, attempt: int, slot: Wall | None, quarantine: Sequence[str] = ()) -> dict[str, Any]:
        """The SPAWN message's plan; makes the attempt's folders. *quarantine* are keys of records that the attempt leaves out.

        ``LaunchError`` with the reason when it cannot start.
        """
        who = identity(job.launch)
        key = attempt_key(run, attempt)
        try:
            uid, gid = -1 if who.uid is None else who.uid, -1 if who.gid is None else who.gid
            self._state.prepare(job.name, key, uid, gid, quarantine)
            if job.multiprocess_metrics:
                self._state.prepare_multiproc(job.name, key, uid, gid)
        except OSError as err:
            raise LaunchError(f"cannot make the folders of run {key} in {self._state.path}: {err.strerror}") from err
        env = environment(self._base, job, who)
        if job.multiprocess_metrics:
            env["PROMETHEUS_MULTIPROC_DIR"] = self._state.multiproc_dir(job.name, key)
        env |= {
            "MAINSTAY_JOB": job.name,
            "MAINSTAY_RUN": str(run),
            "MAINSTAY_ATTEMPT": str(attempt),
            "MAINSTAY_METRICS": self._state.metrics(job.name),
            "MAINSTAY_CHECKPOINT": self._state.checkpoint(job.name),
            "MAINSTAY_PAGE": self._state.page(key),
            "MAINSTAY_PROGRESS": self._state.progress(key),
            "MAINSTAY_QUARANTINE": self._state.quarantine(key),
            "MAINSTAY_SKIP": self._state.skip(key),
        }
        if slot is not None:
            env["MAINSTAY_SLOT"] = slot.isoformat().replace("+00:00", "Z")
        if job.launch.guard:
            env = arm(env, self._state.run(key), job.limits.recursion_frames, site=self._guard(uid))
        return {
            "argv": list(job.launch.argv),
            "environment": env,
            "directory": job.launch.directory,
            "uid": who.uid,
            "gid": who.gid,
            "groups": None if who.groups is None else list(who.groups),
            "umask": job.launch.umask,
            "nice": job.launch.nice,
            "limits": rlimits(job.limits.cpu_s, job.limits.files),
            "cgroup": cgroup_files(job.limits),
            "oom_score_adj": 0,  # systemd protects the supervisor; its jobs are to go first
            "output": self._state.log(job.name, key),
            "output_max_bytes": job.logs.max_bytes,
            "output_limit_bytes": job.limits.output_bytes,
            "output_drop": job.limits.output_action is OutputAction.DROP,
            "grace_s": job.stop.grace_s,
            "stop_signal": job.stop.signal,
        }

    def _guard(self, uid: int) -> str:
        """The copy that the user's Pythons can keep compiled; the installation's own guards just as well, later in each start."""
        if uid not in self._uncopied:
            try:
                return self._state.guard(uid)
            except OSError as err:
                self._uncopied.add(uid)
                log.warning(
                    "guard_not_copied", path=self._state.path, error=str(err), consequence="starts of Python jobs may take 10 ms longer"
                )
        return SITE
