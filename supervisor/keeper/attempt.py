"""One child of the keeper, from fork to exit record."""

from typing import Any, NamedTuple

from supervisor.keeper.launch import Child, Plan
from supervisor.keeper.output import Capture


class Successor(NamedTuple):
    """The next attempt, as the brain has allowed it: forked ahead with all in place, it waits before its exec. ``not_after``: exit codes."""

    key: str
    plan: Plan
    child: Child
    output: int
    group: str | None
    not_after: frozenset[int]


class Attempt:
    """What the keeper knows of a live attempt. Times: ``*_mono`` CLOCK_MONOTONIC seconds, ``*_wall`` Unix seconds."""

    __slots__ = (
        "asked_to_stop", "capture", "cgroup", "child", "clear_hits", "clear_pace_s", "clear_waits", "clearing_since", "cpu_s", "ended_mono",
        "ended_wall", "key", "killed_for", "launch_error", "leftovers", "max_rss_bytes", "plan", "reported_bytes", "started",
        "started_mono", "started_wall", "status", "successor", "unkillable",
    )  # fmt: skip

    def __init__(self, key: str, plan: Plan, child: Child, started_mono: float, started_wall: float, cgroup: str | None = None) -> None:
        self.key = key
        self.plan = plan
        self.child = child
        self.started_mono = started_mono
        self.started_wall = started_wall
        self.cgroup = cgroup
        self.capture: Capture | None = None
        self.started = False
        self.launch_error: str | None = None
        self.killed_for: str | None = None
        self.asked_to_stop = False
        self.status: int | None = None  # the wait status once the main process was reaped
        self.cpu_s = 0.0
        self.max_rss_bytes = 0
        self.ended_mono = 0.0
        self.ended_wall = 0.0
        self.leftovers: set[int] = set()
        self.clearing_since: float | None = None
        self.clear_waits = False  # a timer for the next round is set
        self.clear_pace_s = 0.0
        self.clear_hits = 0
        self.reported_bytes = -1
        self.unkillable: list[int] = []
        self.successor: Successor | None = None

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def pid_started(self) -> int:
        """Clock ticks after boot."""
        return self.child.started

    @property
    def ends_by_itself(self) -> bool:
        """Nobody asked for its end, and it did run."""
        return self.started and self.launch_error is None and self.killed_for is None and not self.asked_to_stop

    def may_be_followed(self, by: Successor) -> bool:
        """Its end is one after which *by* may begin without asking."""
        if not self.ends_by_itself or self.status is None or self.unkillable:
            return False
        return bool(self.status & 0x7F) or self.status >> 8 not in by.not_after

    def public(self) -> dict[str, Any]:
        """What HELLO and STARTED say of it."""
        return {
            "key": self.key,
            "pid": self.pid,
            "pid_started": self.pid_started,
            "started_mono": self.started_mono,
            "started_wall": self.started_wall,
            "cgroup": self.cgroup,
            "killed_for": self.killed_for,
            "asked_to_stop": self.asked_to_stop,
            "output_bytes": self.capture.written if self.capture else 0,
            "output_dropped_bytes": self.capture.dropped if self.capture else 0,
        }

    def record(self, figures: dict[str, int]) -> dict[str, Any]:
        """The exit record; *figures* are the cgroup's last. What has nothing to tell is left out: the next attempt waits until it is written."""
        record: dict[str, Any] = {
            "key": self.key,
            "pid": self.pid,
            "pid_started": self.pid_started,
            "cpu_s": self.cpu_s,
            "max_rss_bytes": self.max_rss_bytes,
            "started_mono": self.started_mono,
            "started_wall": self.started_wall,
            "ended_mono": self.ended_mono,
            "ended_wall": self.ended_wall,
            **figures,
        }
        signal = (self.status or 0) & 0x7F
        if self.status is not None and not signal and not self.launch_error:
            record["code"] = self.status >> 8
        told = {
            "signal": signal,
            "launch_error": self.launch_error,
            "killed_for": self.killed_for,
            "asked_to_stop": self.asked_to_stop,
            "output_bytes": self.capture.written if self.capture else 0,
            "output_dropped_bytes": self.capture.dropped if self.capture else 0,
            "leftovers": len(self.leftovers),
            "unkillable": self.unkillable,
        }
        record.update((name, value) for name, value in told.items() if value)
        return record
