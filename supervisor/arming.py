"""What a child gets beside its own: the guard in its environment, and the limits that the kernel holds. Light, for ``exec`` starts with it."""

import math
import os
import resource
from collections.abc import Mapping
from typing import Final

SITE: Final = os.path.join(os.path.dirname(os.path.realpath(__file__)), "guard", "site")
CPU_MARGIN_S: Final = 2
GIVEN_FILES: Final = "MAINSTAY_GIVEN_FILES"  # from the keeper to its brains: the soft limit on descriptors that jobs are to have


def arm(environment: Mapping[str, str], report_dir: str, recursion: int | None, *, site: str = SITE) -> dict[str, str]:
    """The job's environment with the guard in it: PYTHONPATH keeps what it held, behind *site*, but for other guards (of the attempt that we are part of).

    *report_dir* must exist and be writable by the job's user; *recursion* None leaves Python's own limit, capped by the guard.
    """
    path = environment.get("PYTHONPATH")
    entries = path.split(os.pathsep) if path else []
    behind = [entry for entry in entries if not _is_site(entry)]  # an empty entry is the current directory: keep it
    armed = dict(environment) | {"PYTHONPATH": os.pathsep.join([site, *behind]), "MAINSTAY_GUARD_DIR": report_dir}
    armed.pop("MAINSTAY_RECURSION", None)
    if recursion is not None:
        armed["MAINSTAY_RECURSION"] = str(recursion)
    return armed


def _is_site(entry: str) -> bool:
    """By its name alone: what lies at a path of the job's is not ours to look at, and may be on a disk that does not answer."""
    folder, _, name = entry.rpartition("/guard/")
    uid, _, checksum = name.partition("-")
    is_copy = uid.isdecimal() and len(checksum) == 8 and checksum.isalnum()  # see ``guardsites``
    return os.path.isabs(entry) and (is_copy or (name == "site" and folder.endswith("/supervisor")))


def raise_files() -> None:
    """As many descriptors as we may have, for we hold some for each attempt. Jobs get what we were given: select(2) ends at 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.environ[GIVEN_FILES] = str(soft)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def rlimits(cpu_s: float | None, files: int | None) -> dict[str, list[int]]:
    """The limits that the kernel holds per process, set before the first instruction."""
    found: dict[str, list[int]] = {}
    if cpu_s is not None:
        soft = math.ceil(cpu_s)
        found["CPU"] = [soft + 1, soft + 1 + CPU_MARGIN_S]  # the watch is exact and comes first; this is the line behind it
    given = os.environ.get(GIVEN_FILES, "")
    if files is not None:
        found["NOFILE"] = [files, files]
    elif given.isdecimal():
        found["NOFILE"] = [int(given), resource.getrlimit(resource.RLIMIT_NOFILE)[1]]
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    found["CORE"] = [0, hard]
    return found
