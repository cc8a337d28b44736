"""Whom the kernel's OOM killer ended and where a program crashed, by /dev/kmsg (format in Documentation/ABI/testing/dev-kmsg). Read after a death, never followed.

Who may not read it (CAP_SYSLOG, where dmesg is restricted), or comes after the ring has turned over, learns nothing: that is None, not "nobody".
"""

import errno
import os
import re
from collections.abc import Collection
from typing import Final

from supervisor.core.evidence import Fault, OomVictim

PATH: Final = "/dev/kmsg"
MAX_RECORDS: Final = 20_000  # a ring of 1 MiB holds about ten thousand
RECORD_BYTES: Final = 8192
SLACK_S: Final = 2.0  # the log's clock is not CLOCK_MONOTONIC, but runs beside it

_HEAD = re.compile(r"[0-7],\d+,(\d+),")  # facility 0: what programs write into the log has another
_KILLED = re.compile(
    r"(Out of memory|Out of memory \(oom_kill_allocating_task\)|Memory cgroup out of memory): Killed process (\d+) \((.{0,80}?)\)(?= total-vm:|,|$)"
    r"(?:.*? anon-rss:(\d+)kB)?(?:.*? file-rss:(\d+)kB)?(?:.*? shmem-rss:(\d+)kB)?"
)

_FAULT = re.compile(r"\[(\d{1,10})\]: segfault at ([0-9a-f]{1,16}) ip [0-9a-f]{1,16} sp ([0-9a-f]{1,16}) error ")


def oom_victims(main: int, others: Collection[int], since_mono_s: float, *, path: str = PATH) -> tuple[OomVictim, ...] | None:
    """Those of the process *main* and its tree's *others* that the OOM killer ended after *since_mono_s* (CLOCK_MONOTONIC). None: it cannot be known."""
    records = _read(path)
    if not records:
        return None
    first = _stamp(records[0])
    if first is not None and first > since_mono_s and len(records) >= MAX_RECORDS:
        return None  # what was written at the time is no longer there
    wanted = {main, *others}
    found = (_victim(record, main) for record in records if (at := _stamp(record)) is not None and at >= since_mono_s - SLACK_S)
    return tuple(victim for victim in found if victim is not None and victim.pid in wanted)


def parse_killed(text: str, main: int = 0) -> OomVictim | None:
    """The victim that a message names, None if it is another message."""
    found = _KILLED.search(text)
    if found is None:
        return None
    resident = sum(int(size) for size in found.groups()[3:] if size) * 1024
    return OomVictim(int(found[2]), found[3], resident, in_cgroup=found[1].startswith("Memory cgroup"), is_main=int(found[2]) == main)


def fault_of(pid: int, since_mono_s: float, *, path: str = PATH) -> Fault | None:
    """The SIGSEGV of that process, if it had no handler for it: the kernel tells of no other."""
    for record in reversed(_read(path)):
        at = _stamp(record)
        if at is None:
            continue
        if at < since_mono_s - SLACK_S:
            break
        found = _FAULT.search(record)
        if found is not None and int(found[1]) == pid:
            return Fault(int(found[2], 16), int(found[3], 16))
    return None


def _victim(record: str, main: int) -> OomVictim | None:
    return parse_killed(record.partition(";")[2], main)


def _stamp(record: str) -> float | None:
    head = _HEAD.match(record)
    return int(head[1]) / 1e6 if head is not None else None


def _read(path: str) -> list[str]:
    """All records of the ring, oldest first; none if it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    records: list[str] = []
    try:
        while len(records) < MAX_RECORDS:
            try:
                record = os.read(fd, RECORD_BYTES)
            except OSError as err:
                if err.errno == errno.EPIPE:  # overwritten under us: the next read goes on behind the gap
                    continue
                break  # EAGAIN: that was the last
            if not record:
                break
            records.append(record.decode(errors="replace"))
    finally:
        os.close(fd)
    return records
