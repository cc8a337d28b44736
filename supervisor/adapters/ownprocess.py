"""What the kernel says of this process: the ``process_*`` metrics of every Prometheus client library.

Reads /proc (its root is a parameter) and, apart from that, parses; who shows the figures is another's business.
"""

import os
from collections.abc import Mapping

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def figures(root: str = "/proc") -> Mapping[str, float]:
    """Metric name → value, without those that this /proc does not give (a hidden or foreign /proc gives none)."""
    found: dict[str, float] = {}
    try:
        found |= parse_stat(_text(f"{root}/self/stat"), parse_boot_time(_text(f"{root}/stat")))
        found["process_max_fds"] = parse_max_fds(_text(f"{root}/self/limits"))
        found["process_open_fds"] = float(len(os.listdir(f"{root}/self/fd")))
    except (OSError, ValueError, IndexError):
        return found  # an absent series says "not known"; a number in its place would be a lie
    return found


def parse_stat(text: str, booted_at: float) -> dict[str, float]:
    """Figures from proc_pid_stat(5). ``ValueError`` or ``IndexError`` if it is not one."""
    fields = text[text.rindex(")") + 2 :].split()  # from field 3 on: the name before it may hold anything
    return {
        "process_cpu_seconds_total": (int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
        "process_threads": float(fields[17]),
        "process_start_time_seconds": booted_at + int(fields[19]) / _TICKS_PER_S,
        "process_virtual_memory_bytes": float(fields[20]),
        "process_resident_memory_bytes": float(int(fields[21]) * _PAGE_BYTES),
    }


def parse_boot_time(text: str) -> float:
    """The line ``btime`` of proc_stat(5), Unix time. ``ValueError`` without one."""
    for line in text.splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    raise ValueError("no btime in /proc/stat")


def parse_max_fds(text: str) -> float:
    """The soft limit on open files from proc_pid_limits(5); infinite where unlimited. ``ValueError`` without one."""
    for line in text.splitlines():
        if line.startswith("Max open files"):
            word = line.split()[3]
            return float("inf") if word == "unlimited" else float(word)
    raise ValueError("no limit on open files in /proc/self/limits")


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
