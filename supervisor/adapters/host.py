"""What a job ran on, and how that was just now: host, kernel, load, memory, pressure. A few small reads of /proc; what cannot be read is left out."""

import os
import re
from collections.abc import Mapping
from typing import Final

from supervisor import procfs
from supervisor.core.jobs import Launch

PROC: Final = "/proc"
_KIB: Final = 1024


def surroundings(launch: Launch, more: Mapping[str, object], proc: str = PROC) -> dict[str, object]:
    """The facts for a dossier; *more* are known from elsewhere (the job's executable and Python)."""
    system = os.uname()
    facts: dict[str, object] = {
        "host": system.nodename,
        "kernel": f"{system.sysname} {system.release}",
        "machine": system.machine,
        **more,
        "user": launch.user or str(os.geteuid()),
        "directory": launch.directory,
        "processors": os.cpu_count(),
        **parse_load(_read(proc, "loadavg")),
        **parse_memory(_read(proc, "meminfo")),
    }
    for what in ("memory", "cpu", "io"):
        facts |= parse_pressure(what, _read(proc, f"pressure/{what}"))
    return {name: value for name, value in facts.items() if value is not None and value != ""}


def _read(proc: str, name: str) -> str:
    return (procfs.read_file(f"{proc}/{name}", 8192) or b"").decode("ascii", "replace")


def parse_load(text: str) -> dict[str, object]:
    """The load averages of proc_loadavg(5) over 1 and 15 minutes."""
    parts = text.split()
    try:
        return {"load_1m": float(parts[0]), "load_15m": float(parts[2])}
    except (IndexError, ValueError):
        return {}


def parse_memory(text: str) -> dict[str, object]:
    """Total, available and free swap memory in bytes, of proc_meminfo(5)."""
    found = {name: int(kib) * _KIB for name, kib in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
    names = {"memory_total_bytes": "MemTotal", "memory_available_bytes": "MemAvailable", "swap_free_bytes": "SwapFree"}
    return {name: found[source] for name, source in names.items() if source in found}


def parse_pressure(what: str, text: str) -> dict[str, object]:
    """The share of the last 10 s in which something waited for *what*, in percent (the kernel's PSI)."""
    match = re.match(r"some avg10=(\d+\.\d+)", text)
    return {f"pressure_{what}_percent": float(match[1])} if match else {}
