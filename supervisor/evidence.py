"""Gathers what bears on a verdict once an attempt has ended: exit record, the watch's figures, the guard's last words, the shared page."""

import contextlib
import itertools
import os
import signal
import stat
from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from supervisor import procfs
from supervisor.core import redact
from supervisor.core.evidence import Evidence, Exit, Fault, LastWords, OomVictim, Progress, Sender
from supervisor.core.jobs import Job, Launch
from supervisor.core.redact import Redactor
from supervisor.page import Page
from supervisor.ports import FaultReader, OomReader, SenderReader, WordsReader
from supervisor.progressfile import read_signs
from supervisor.watch import Subject

CHECKPOINT_BYTES: Final = 64 * 1024  # what supervisor.job keeps at most
FILES_READ: Final = 4096


def exit_of(record: Mapping[str, Any]) -> Exit:
    """The exit record of the keeper as a value; absent fields stay at their defaults."""
    return Exit(
        code=record.get("code"),
        signal=record.get("signal"),
        launch_error=record.get("launch_error"),
        killed_for=record.get("killed_for"),
        asked_to_stop=bool(record.get("asked_to_stop")),
        cpu_s=float(record.get("cpu_s") or 0.0),
        max_rss_bytes=int(record.get("max_rss_bytes") or 0),
        memory_peak_bytes=record.get("memory_peak_bytes"),
        oom_kills=record.get("oom_kills"),
        pids_max_hits=record.get("pids_max_hits"),
        output_bytes=int(record.get("output_bytes") or 0),
        output_dropped_bytes=int(record.get("output_dropped_bytes") or 0),
        leftovers=int(record.get("leftovers") or 0),
        unkillable=tuple(record.get("unkillable") or ()),
    )


class Hider:
    """Knows each job's secrets: what it is given, what it inherits from us, and what receivers are reached with."""

    def __init__(self, inherited: Mapping[str, str], receivers: object = ()) -> None:
        self._inherited = inherited
        self._made: dict[str, tuple[Job, Redactor]] = {}
        self._shared_by: dict[
            frozenset[str], Redactor
        ] = {}  # one is some 30 ms of work where there are many secrets, and most jobs know the same
        self.take(receivers)

    def take(self, receivers: object) -> None:
        """The receivers of a config that was taken."""
        self._shared = tuple(redact.secrets_in_settings(receivers))
        self.ours = Redactor((*self._shared, *redact.secrets_of(Job("", Launch((), "/")), self._inherited)))
        self._made.clear()
        self._shared_by.clear()

    def of(self, job: Job) -> Redactor:
        """What takes the secrets out of anything that comes from *job*."""
        made = self._made.get(job.name)
        if made is None or made[0] is not job:
            known = frozenset((*self._shared, *redact.secrets_of(job, self._inherited)))
            redactor = self._shared_by.get(known)
            if redactor is None:
                redactor = self._shared_by[known] = Redactor(known)
            made = self._made[job.name] = (job, redactor)
        return made[1]


def _curve(subject: Subject | None) -> tuple[tuple[float, int], ...]:
    """The memory of the attempt over time, its last sample included."""
    if subject is None or subject.watched.last is None:
        return ()
    points, last = subject.watched.curve.points, subject.watched.last
    end = (max(0.0, last.at - subject.started), last.memory_bytes)
    return points if points and points[-1][0] >= end[0] else (*points, end)


def _progress(page: Page, subject: Subject | None, ended: float, checkpoint: str | None) -> Progress:
    """Where the job stood. How long at its record is known from the last look at least."""
    record_s = None
    if subject is not None and subject.record_at is not None:
        record_s = max(0.0, ended - subject.record_at) if (page.record_in_work, page.seq) == subject.record else 0.0
    kept = None if checkpoint is None else _digest(checkpoint)
    return Progress(page.record_in_work, page.done, page.total, page.stage, page.keyed, page.records, kept, record_s)


def _digest(path: str) -> str | None:
    """A name for what the job's checkpoint holds. The file is the job's: it is not followed, and not read beyond what it may be."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        data = os.pread(fd, CHECKPOINT_BYTES, 0)
    except OSError:
        return None
    finally:
        os.close(fd)
    from hashlib import blake2b  # 2 ms that a job without checkpoints has no use for

    return blake2b(data, digest_size=8).hexdigest()


def _guarded(run_dir: str) -> set[int]:
    """The pids of the tree's Pythons, by the names of the files that their guards opened: one may live too short a time to be seen."""
    with contextlib.suppress(OSError), os.scandir(run_dir) as entries:
        names = (entry.name.partition(".")[0] for entry in itertools.islice(entries, FILES_READ))
        return {int(name) for name in names if name.isascii() and name.isdigit() and len(name) <= 10}
    return set()


class Gatherer:
    """Puts the pieces together. Reads only; what cannot be read is absent."""

    def __init__(
        self,
        words: WordsReader,
        oom_victims: OomReader | None = None,
        senders: SenderReader | None = None,
        faults: FaultReader | None = None,
    ) -> None:
        self._words = words
        self._oom_victims = oom_victims
        self._senders = senders
        self._faults = faults

    def gather(
        self, record: Mapping[str, Any], subject: Subject | None, host_oom_at_start: int | None, run_dir: str, checkpoint: str | None = None
    ) -> Evidence:
        """The evidence for one ended attempt. *subject* is what the watch saw, None if it never watched. *checkpoint* is where the job keeps its own."""
        facts = exit_of(record)
        pid = record.get("pid")
        words = self._words(run_dir, pid) if pid else LastWords()
        seen = subject.watched if subject is not None else None
        if seen is None or not seen.soft_told:
            words = replace(words, memory_types=())  # asked for a stack, the guard tells of types as well
        page = read_signs(run_dir + "/page")
        oom_now = procfs.oom_kills()
        host_oom = None if oom_now is None or host_oom_at_start is None else max(0, oom_now - host_oom_at_start)
        return Evidence(
            exit=facts,
            words=words,
            breach=subject.breach if subject is not None else None,
            look=(subject.look or subject.soft_look) if subject is not None else None,
            memory_peak_bytes=max(seen.memory_peak_bytes if seen else 0, facts.memory_peak_bytes or facts.max_rss_bytes),
            depth_peak=seen.depth_peak if seen else 0,
            frames_per_s=seen.rates.frames if seen else 0.0,
            swallowed_seen=seen.swallowed_seen if seen else 0,
            host_oom_kills=host_oom,
            duration_s=max(0.0, float(record["ended_mono"]) - float(record["started_mono"])),
            records=page.records if page is not None and page.says_anything else None,
            memory_curve=_curve(subject),
            progress=_progress(page, subject, float(record["ended_mono"]), checkpoint) if page is not None and page.says_anything else None,
            processes_peak=seen.processes_peak if seen else 0,
            study=subject.study() if subject is not None else None,
            oom_victims=self._victims(record, subject, host_oom, run_dir),
            sender=self._sender(record, facts),
            soft_look=subject.soft_look if subject is not None else None,
            stack_share=seen.stack_share if seen else 0.0,
            armed=subject.armed if subject is not None else False,
            steady_s=max(0.0, float(record["ended_mono"]) - seen.deepened_at) if seen and seen.deepened_at is not None else 0.0,
            full_s=max(0.0, float(record["ended_mono"]) - seen.grew_at) if seen and seen.grew_at is not None else 0.0,
            fault=self._fault(record, facts),
            struck_mono=seen.last.at if seen is not None and seen.last is not None and facts.killed_for else float(record["ended_mono"]),
        )

    def _fault(self, record: Mapping[str, Any], facts: Exit) -> Fault | None:
        pid = record.get("pid")
        if self._faults is None or not pid or facts.signal != signal.SIGSEGV or facts.killed_for is not None:
            return None
        return self._faults(pid, float(record["started_mono"]))

    def _victims(
        self, record: Mapping[str, Any], subject: Subject | None, host_oom: int | None, run_dir: str
    ) -> tuple[OomVictim, ...] | None:
        """Read only where the kernel's count rose, or is not known: its log has thousands of lines."""
        if host_oom == 0:
            return ()
        pid = record.get("pid")
        if self._oom_victims is None or not pid:
            return None
        seen = subject.pids if subject is not None else set()
        return self._oom_victims(pid, seen | _guarded(run_dir), float(record["started_mono"]))

    def _sender(self, record: Mapping[str, Any], facts: Exit) -> Sender | None:
        """Who else than we sent what ended it, or what it took for a wish to end."""
        pid = record.get("pid")
        if self._senders is None or not pid:
            return None
        ours = facts.killed_for is not None or facts.asked_to_stop
        found = None if ours else self._senders.sender_of(pid, facts.signal)
        self._senders.forget(pid)
        return found
