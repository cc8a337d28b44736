"""How far beyond its memory limit a job may have come, where the limit is held by polling and a late rlimit."""

from collections.abc import Mapping
from typing import Any

MIB = 2**20
SHARE = 1.05  # of the limit: the promise
SOFT_SHARE = 0.75  # where the rlimit is armed
# What a job takes at 2 GB/s in the 30 ms for which a busy machine may keep us from looking, on its way from below the soft line over the limit. Once it
# was seen in between, the kernel refuses it more, and no pause of ours counts: then the promise is all that is allowed. bench/ measures it on a quiet machine.
UNSEEN_BYTES = 64 * MIB


def allowed(report: Mapping[str, Any], limit_bytes: int) -> float:
    """The most bytes that the job of this dossier may have had, for its ``memory_peak_bytes``, which is the kernel's own figure (maxrss).

    The dossier's curve has the looks, and of those that it leaves out the highest; a look between soft line and limit that is missing there makes
    this more patient, never less.
    """
    was_seen_between = any(SOFT_SHARE * limit_bytes < size <= limit_bytes for _, size in report["memory_curve"])
    return SHARE * limit_bytes + (0 if was_seen_between else UNSEEN_BYTES)
