"""Runs a job's own command once more for one record of its quarantine: same limits, user and environment, and nothing of it that lasts.

It runs as ``exec`` runs a command, beside the daemon, which hears nothing of it: no run, no schedule, no incident. The job finds a checkpoint and a
metrics file of its own, which are thrown away, and ``MAINSTAY_ONLY``, by which ``supervisor.job.records`` hands on that record alone.
"""

import os
from collections.abc import Mapping

from msgspec import Struct

from supervisor import command, procfs
from supervisor.adapters.launcher import environment, identity
from supervisor.arming import arm, rlimits
from supervisor.core.jobs import Expect, Job
from supervisor.keeper import launch
from supervisor.oneshot import OneShot

ENVIRONMENT_BYTES = 2 * 2**20
ENTER = 0o711


class Replay(Struct, frozen=True):
    """How a replay ended. ``met``: the job was given the record; ``processed``: and finished it, and ended well."""

    report: dict[str, object]
    met: bool
    processed: bool


def replay(job: Job, key: str, base: Mapping[str, str]) -> Replay:
    """Run *job* for the record *key*, with *base* as the environment that it inherits; what it writes goes to our stderr.

    ``LaunchError`` when it cannot be planned, ``OSError`` when it cannot be started.
    """
    room = command.make_run_dir()
    os.chmod(room, ENTER)
    run_dir = os.path.join(room, "run")  # the job's own; in a folder of ours it cannot be exchanged for a link while we remove it
    try:
        os.mkdir(run_dir, 0o700)
        started = command.start_plan(_plan(job, key, base, run_dir), run_dir, (2, 2))
        shot = OneShot(started, job.limits, name=job.name, expect=Expect(success_exit_codes=job.expect.success_exit_codes))
        _, verdict, evidence = shot.run()
    finally:
        command.remove_run_dir(room)
    progress = evidence.progress
    finished = progress is not None and progress.records > 0
    met = finished or (progress is not None and progress.record is not None)
    return Replay(shot.report(evidence), met, finished and not verdict.outcome.is_bad)


def _plan(job: Job, key: str, base: Mapping[str, str], run_dir: str) -> launch.Plan:
    who = identity(job.launch)
    env = environment(base, job, who) | {
        "MAINSTAY_JOB": job.name,
        "MAINSTAY_RUN": "1",
        "MAINSTAY_ATTEMPT": "1",
        "MAINSTAY_ONLY": key,
        "MAINSTAY_PAGE": run_dir + "/page",
        "MAINSTAY_PROGRESS": run_dir + "/progress",
        "MAINSTAY_CHECKPOINT": run_dir + "/checkpoint.json",
        "MAINSTAY_METRICS": run_dir + "/metrics.prom",
        "MAINSTAY_QUARANTINE": run_dir + "/quarantine.json",
        "MAINSTAY_SKIP": run_dir + "/quarantine.txt",
    }
    if job.launch.guard:
        env = arm(env, run_dir, job.limits.recursion_frames)
    return launch.Plan(
        list(job.launch.argv),
        env,
        job.launch.directory,
        uid=who.uid,
        gid=who.gid,
        groups=None if who.groups is None else list(who.groups),
        umask=job.launch.umask,
        nice=job.launch.nice,
        limits=rlimits(job.limits.cpu_s, job.limits.files),
    )


def base_of(pid: int) -> dict[str, str] | None:
    """The environment of the daemon *pid*, which its jobs inherit; None when we may not read it."""
    raw = procfs.read_file(f"/proc/{pid}/environ", ENVIRONMENT_BYTES)
    if not raw:
        return None
    pairs = (entry.partition(b"=") for entry in raw.split(b"\0") if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


__all__ = ["Replay", "base_of", "replay"]
