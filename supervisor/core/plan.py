"""What a new config would do to the jobs of an old one: which appear, vanish or change, and which running ones would be restarted.

Nothing is done here; the engine applies a config, this tells a person beforehand. A run that is going on keeps the whole config that it began
with, over all of its attempts: its limits, its restart and stop policy, its alerts. Only its fire times, reminders and ``enabled`` change at once.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from supervisor.core.jobs import Job
from supervisor.core.settings import Config, Settings

# What a service is restarted for: where a person would wonder that the process is still the old one. Anything else waits for its next run.
_NEEDS_NEW_PROCESS = ("launch.", "limits.files", "limits.recursion_frames")


# The settings of the daemon itself, by the names that they have below `supervisor:`.
AT_ONCE: Final = {"history_days": "history", "external_url": "external_url", "heartbeat": "heartbeat"}
AT_NEXT_START: Final = {
    "state_dir": "state_dir",
    "listen": "listen",
    "log_level": "log.level",
    "log_format": "log.format",
    "hosts": "hosts",
    "web_config": "web_config",
    "actions": "actions",
    "trace_signals": "trace_signals",
}


class PlanKind(StrEnum):
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


class PlannedChange(Struct, frozen=True):
    """What becomes of one job. ``keys`` are the fields that differ, dotted, as in ``core.jobs.Job`` ("limits.memory_bytes").

    ``stops``: a running attempt is asked to end and does not come back. ``restarts``: it is asked to end and starts again as now
    configured; only a service is. Neither: a run that goes on ends as it began (of a service, `mainstay restart` makes a new one).
    """

    job: str
    kind: PlanKind
    keys: tuple[str, ...] = ()
    restarts: bool = False
    stops: bool = False


def plan(old: Config, new: Config) -> list[PlannedChange]:
    """The changes from *old* to *new*: removed jobs first, then changed, then added, by name. Unchanged jobs are not mentioned."""
    removed = [PlannedChange(name, PlanKind.REMOVED, stops=True) for name in sorted(old.jobs.keys() - new.jobs.keys())]
    added = [PlannedChange(name, PlanKind.ADDED) for name in sorted(new.jobs.keys() - old.jobs.keys())]
    both = sorted(old.jobs.keys() & new.jobs.keys())
    return removed + [_changed(old.jobs[name], new.jobs[name]) for name in both if old.jobs[name] != new.jobs[name]] + added


def settings_that_wait(running: Settings, new: Settings) -> list[str]:
    """The keys of ``supervisor:`` in which *new* differs from what this life runs with, and which hold from the next start on."""
    return [f"supervisor.{key}" for field, key in AT_NEXT_START.items() if getattr(running, field) != getattr(new, field)]


def settings_at_once(old: Settings, new: Settings) -> list[str]:
    """Those in which *new* differs from the config in force, and which a reload changes."""
    return [f"supervisor.{key}" for field, key in AT_ONCE.items() if getattr(old, field) != getattr(new, field)]


def _changed(old: Job, new: Job) -> PlannedChange:
    keys = tuple(_differences(old, new))
    needs_new = any(key.startswith(_NEEDS_NEW_PROCESS) for key in keys)
    stops = old.enabled and not new.enabled
    restarts = needs_new and not stops and old.enabled and old.schedule.is_service and new.schedule.is_service
    return PlannedChange(new.name, PlanKind.CHANGED, keys, restarts=restarts, stops=stops)


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of the fields that differ. Of maps the keys are named and never the values, which may be secret."""
    if isinstance(old, Struct) and type(old) is type(new):
        for name in old.__struct_fields__:
            yield from _differences(getattr(old, name), getattr(new, name), f"{prefix}.{name}".lstrip("."))
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                yield f"{prefix}.{name}"
    elif old != new:
        yield prefix


def restarts_running(old: Job, new: Job) -> bool:
    """Whether a running service has to start again to be as *new* says."""
    return _changed(old, new).restarts
