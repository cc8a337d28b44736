"""The state directory: what lies where, who may enter it, and what is swept away when it is old.

    STATE/                 0711: jobs of other users reach their own folders, and can list nothing
      lock                 flock of the running keeper
      history.db           runs, attempts, incidents, outbox (see ``store``)
      mainstay.sock        API for the command line, 0600
      config.loaded.yaml   the config in force, for the next brain of this keeper
      exits/               exit records that no brain has taken over yet (see ``keeper.records``)
      logs/JOB/RUN.ATTEMPT.log
      runs/RUN.ATTEMPT/    the job's own: the guard's reports and the shared page, gone after the verdict
      jobs/JOB/            the job's own: metrics.prom, checkpoint.json
      guard/UID-CHECKSUM/  what jobs of that user have in PYTHONPATH (see ``guardsites``)
      multiproc/JOB/       sums.json, and the job's own RUN.ATTEMPT/ (see ``multiproc.tally``)
      trash/               what is being deleted, beside the loop (see ``trash``)

What a job may write is never followed or trusted; that is the business of who reads it.
"""

import contextlib
import os
import stat
from collections.abc import Collection, Sequence
from typing import Final

from supervisor import owners
from supervisor.errors import SupervisorError
from supervisor.guardsites import GuardSites
from supervisor.page import create_page
from supervisor.trash import Trash

ENTER: Final = 0o711
OURS: Final = 0o700
_LOOKED_AT: Final = 100  # files of a folder whose job is gone; it may hold a million


class StateDir:
    """Paths below one state directory. Names of jobs are checked by the config, so they are safe as names of folders."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._trash = Trash(os.path.join(path, "trash"))
        self._guards = GuardSites(os.path.join(path, "guard"), self._trash.put)

    def create(self) -> None:
        """Make what is missing. ``SupervisorError`` when it cannot be made or is not ours."""
        try:
            os.makedirs(self.path, mode=ENTER, exist_ok=True)
            for name, mode in (("logs", OURS), ("runs", ENTER), ("jobs", ENTER), ("multiproc", ENTER), ("guard", ENTER), ("trash", OURS)):
                folder = os.path.join(self.path, name)
                os.makedirs(folder, mode=mode, exist_ok=True)
                found = os.lstat(folder)
                if not stat.S_ISDIR(found.st_mode):
                    raise SupervisorError(f"{folder} is not a directory; move it away or set supervisor.state_dir elsewhere")
                if found.st_uid != os.geteuid():
                    whose = owners.called(found.st_uid)
                    raise SupervisorError(
                        f"{folder} belongs to {whose}, and we are uid {os.geteuid()}; run as that user, who may have a Mainstay on it,"
                        " or give this config a supervisor.state_dir of its own"
                    )
                os.chmod(folder, mode)
        except OSError as err:
            raise SupervisorError(
                f"cannot make the state directory {self.path}: {err.strerror}; set supervisor.state_dir to a directory that we may write"
            ) from err

    @property
    def socket(self) -> str:
        return os.path.join(self.path, "mainstay.sock")

    @property
    def loaded_config(self) -> str:
        return os.path.join(self.path, "config.loaded.yaml")

    @property
    def lock(self) -> str:
        return os.path.join(self.path, "lock")

    @property
    def cache(self) -> str:
        """For what costs time to find out again (interpreter layouts)."""
        return os.path.join(self.path, "cache")

    def log(self, job: str, key: str) -> str:
        return os.path.join(self.path, "logs", job, key + ".log")

    def run(self, key: str) -> str:
        return os.path.join(self.path, "runs", key)

    def page(self, key: str) -> str:
        return os.path.join(self.run(key), "page")

    def progress(self, key: str) -> str:
        """Where a job that cannot use the page may say how far it is, in lines of text (see ``supervisor.progress``)."""
        return os.path.join(self.run(key), "progress")

    def quarantine(self, key: str) -> str:
        """The keys of the records that this attempt leaves out, as a JSON list."""
        return os.path.join(self.run(key), "quarantine.json")

    def skip(self, key: str) -> str:
        """The same, a key on each line."""
        return os.path.join(self.run(key), "quarantine.txt")

    def job(self, job: str) -> str:
        return os.path.join(self.path, "jobs", job)

    def checkpoint(self, job: str) -> str:
        return os.path.join(self.job(job), "checkpoint.json")

    def metrics(self, job: str) -> str:
        return f"{self.path}/jobs/{job}/metrics.prom"  # asked for a hundred times a second

    def guard(self, uid: int) -> str:
        """The guard for jobs of user *uid* (-1: ourselves): what goes into PYTHONPATH. ``OSError``."""
        return self._guards.of(os.geteuid() if uid == -1 else uid)

    @property
    def multiproc(self) -> str:
        return os.path.join(self.path, "multiproc")

    def multiproc_dir(self, job: str, key: str) -> str:
        """What ``$PROMETHEUS_MULTIPROC_DIR`` of an attempt names."""
        return os.path.join(self.multiproc, job, key)

    def prepare_multiproc(self, job: str, key: str, uid: int, gid: int) -> None:
        """That directory, owned by the job's user, in one of ours. ``OSError``."""
        folder = self.multiproc_dir(job, key)
        os.makedirs(os.path.dirname(folder), mode=ENTER, exist_ok=True)
        os.makedirs(folder, mode=OURS, exist_ok=True)
        if uid != -1 or gid != -1:
            os.chown(folder, uid, gid, follow_symlinks=False)

    def discard(self, path: str) -> None:
        """Delete *path*, something of ours or a job's below the state directory, beside the caller."""
        self._trash.put(path)

    def prepare(self, job: str, key: str, uid: int, gid: int, quarantine: Sequence[str] = ()) -> None:
        """Folders, page and quarantine of one attempt, owned by the job's user (-1: ourselves). ``OSError``."""
        os.makedirs(os.path.dirname(self.log(job, key)), mode=OURS, exist_ok=True)
        folder = self.run(key)
        self._trash.put(folder)
        os.mkdir(folder, OURS)
        create_page(self.page(key), uid=uid, gid=gid)
        if quarantine:
            write_quarantine(self.quarantine(key), self.skip(key), quarantine)
        own = self.job(job)
        os.makedirs(own, mode=OURS, exist_ok=True)
        if uid != -1 or gid != -1:
            os.chown(folder, uid, gid, follow_symlinks=False)
            os.chown(own, uid, gid, follow_symlinks=False)

    def forget_run(self, key: str) -> None:
        """The verdict is written; what it rested on may go. The job could write there, so it is deleted beside the loop."""
        self._trash.put(self.run(key))

    def sweep_runs(self, keep: Collection[str]) -> None:
        """At the start: what earlier lives left in ``runs/`` and ``trash/`` goes, but for the attempts to *keep*."""
        with contextlib.suppress(OSError):
            for name in os.listdir(os.path.join(self.path, "runs")):
                if name not in keep:
                    self._trash.put(self.run(name))
        if not keep:
            with contextlib.suppress(OSError):
                self._guards.sweep()
        self._trash.empty()

    def sweep_jobs(self, keep: Collection[str], before: float) -> list[str]:
        """Remove the output and the own folders of jobs that are not to *keep*, once nothing in them has changed since *before*
        (seconds since 1970); the folders that went."""
        gone = []
        for kind in ("logs", "jobs", "multiproc"):
            parent = os.path.join(self.path, kind)
            with contextlib.suppress(OSError):
                gone += [os.path.join(parent, name) for name in os.listdir(parent) if name not in keep]
        gone = [folder for folder in gone if _is_older(folder, before)]
        for folder in gone:
            self._trash.put(folder)
        return gone

    def prune_logs(self, job: str, keep_attempts: int) -> None:
        """Remove the output of all but the newest *keep_attempts*: all restarts of a service are one run, so runs are not what counts."""
        folder = os.path.join(self.path, "logs", job)
        old = {f"{run}.{attempt}.log" for run, attempt in self.attempts_with_output(job)[:-keep_attempts]}
        for name in old:
            for path in (name, name + ".1"):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(folder, path))

    def attempts_with_output(self, job: str) -> list[tuple[int, int]]:
        """(run, attempt) of every kept output file, oldest first."""
        folder = os.path.join(self.path, "logs", job)
        found = set()
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                parts = name.split(".")
                if len(parts) >= 3 and parts[0].isdecimal() and parts[1].isdecimal():
                    found.add((int(parts[0]), int(parts[1])))
        return sorted(found)

    def tail(self, job: str, key: str, limit: int) -> str:
        """The last *limit* bytes of an attempt's output, as text; bytes that are no UTF-8 as lone surrogates."""
        data = b""
        for path in (self.log(job, key), self.log(job, key) + ".1"):
            if len(data) >= limit:
                break
            with contextlib.suppress(OSError), open(path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - (limit - len(data))))
                data = file.read(limit - len(data)) + data
        return data.decode(errors="surrogateescape")


def write_quarantine(as_json: str, as_lines: str, keys: Sequence[str]) -> None:
    """The keys for the job to read, in both forms, into a folder that is still ours alone. ``OSError``.

    As lines each stands twice, the second time as the last field of a CRLF file looks to a shell: what the job said of it came without the carriage return.
    """
    import json

    for path, text in ((as_json, json.dumps(list(keys))), (as_lines, "".join(f"{key}\n{key}\r\n" for key in keys))):
        with open(path, "x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)  # who may enter the folder may read it
            file.write(text)


def _is_older(folder: str, before: float) -> bool:
    """Whether neither the folder nor one of the first files in it has changed since."""
    try:
        with os.scandir(folder) as entries:
            moments = [entry.stat(follow_symlinks=False).st_mtime for entry, _ in zip(entries, range(_LOOKED_AT), strict=False)]
        return max([*moments, os.lstat(folder).st_mtime]) < before
    except OSError:
        return False
