"""FakeClock, MemoryStore, FakeKeeper: small, real, complete. They keep their own truth, so that a test can hold it against ours."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from supervisor import wire
from supervisor.core.evidence import Progress
from supervisor.core.model import Incident, Mono, Now, Wall
from supervisor.core.records import (
    AttemptPhase,
    AttemptRow,
    GoodRow,
    JobMemo,
    Notification,
    QuarantinedRecord,
    Row,
    RunRow,
    SlotResult,
    SlotRow,
)
from supervisor.errors import StoreError

T0 = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday, far from any change of clocks
MONO0 = 10_000.0


class FakeClock:
    """Both clocks, set by hand. ``advance`` is time going by; ``set_wall`` is somebody setting the clock."""

    def __init__(self, wall: Wall = T0, mono: float = MONO0) -> None:
        self.wall = wall
        self._mono = mono
        self.passed = 0.0  # true time, over all boots

    def now(self) -> Now:
        return Now(Mono(self._mono), self.wall)

    def mono(self) -> Mono:
        return Mono(self._mono)

    def advance(self, seconds: float) -> None:
        self._mono += seconds
        self.passed += seconds
        self.wall += timedelta(seconds=seconds)

    def set_wall(self, wall: Wall) -> None:
        self.wall = wall

    def reboot(self) -> None:
        """A new boot: the monotonic clock begins afresh."""
        self._mono = 5.0


class MemoryStore:
    """The history in memory, with the rules of the real one: upserts, a slot that ran stays so, a notification is kept once.

    ``lose_power`` forgets everything after the last durable record. ``broken`` makes every write fail.
    """

    def __init__(self) -> None:
        self.runs: dict[int, RunRow] = {}
        self.attempts: dict[tuple[int, int], AttemptRow] = {}
        self.slots: dict[tuple[str, Wall], SlotRow] = {}
        self.incidents: dict[int, Incident] = {}
        self.good: dict[str, GoodRow] = {}
        self.outbox: dict[str, Notification] = {}
        self.texts: dict[str, str] = {}
        self.aside: dict[tuple[str, str], QuarantinedRecord] = {}
        self.saved: dict[tuple[str, str], float] = {}
        self.broken = False
        self.writes = 0
        self.ends: Counter[tuple[int, int]] = Counter()  # how often each attempt's end was written
        self.run_ends: Counter[int] = Counter()
        self.closings: Counter[int] = Counter()
        self.runs_of_slot: dict[tuple[str, Wall], set[int]] = defaultdict(set)
        self._durable: tuple[dict[Any, Any], ...] | None = None

    def apply(self, rows: Sequence[Row], *, durable: bool = False, counters: Mapping[tuple[str, str], float] | None = None) -> None:
        if self.broken:
            raise StoreError("the disk is full; make room")
        self.writes += bool(rows)
        for row in rows:
            self._put(row)
        self.saved |= counters or {}
        if durable:
            self._durable = tuple(dict(table) for table in self._tables())

    def _tables(self) -> tuple[dict[Any, Any], ...]:
        return (self.runs, self.attempts, self.slots, self.incidents, self.outbox, self.texts, self.aside)

    def lose_power(self) -> None:
        kept = self._durable or tuple({} for _ in self._tables())
        for table, copy in zip(self._tables(), kept, strict=True):
            table.clear()
            table.update(copy)

    def _put(self, row: Row) -> None:
        match row:
            case RunRow():
                self.runs[row.id] = row
                self.run_ends[row.id] += row.ended_at is not None
            case AttemptRow():
                self.attempts[row.run, row.attempt] = row
                self.ends[row.run, row.attempt] += row.phase is AttemptPhase.ENDED
            case SlotRow():
                self._put_slot(row)
            case JobMemo():
                self.texts[row.job] = row.text
            case GoodRow():
                self.good[row.job] = row
            case QuarantinedRecord():
                self.aside[row.job, row.key] = row
            case Notification():
                self.outbox.setdefault(row.key, row)
            case Incident():
                was = self.incidents.get(row.id)
                self.closings[row.id] += row.closed_at is not None and (was is None or was.closed_at is None)
                self.incidents[row.id] = row

    def _put_slot(self, row: SlotRow) -> None:
        key = (row.job, row.slot)
        if row.run is not None:
            self.runs_of_slot[key].add(row.run)
        was = self.slots.get(key)
        if was is None or was.result is SlotResult.SKIPPED or (was.result is SlotResult.LATE and row.result is not SlotResult.SKIPPED):
            self.slots[key] = row

    def forget_counters(self, keys: Sequence[tuple[str, str]]) -> None:
        for key in keys:
            self.saved.pop(key, None)

    def memos(self) -> dict[str, str]:
        return dict(self.texts)

    def open_incidents(self) -> list[Incident]:
        return [one for one in self.incidents.values() if one.closed_at is None]

    def records_aside(self) -> list[QuarantinedRecord]:
        return [one for one in self.aside.values() if one.released_at is None]

    def next_ids(self) -> tuple[int, int]:
        return max(self.runs, default=0) + 1, max(self.incidents, default=0) + 1


class Life(Struct, frozen=True):
    """How a child behaves: ends by itself after ``lives_s`` (None: never) with ``code`` or ``signal``; heeds the stop signal after
    ``heeds_s`` (None: never). ``launch_error``: it never starts. ``position``: where in its input it says that it stands."""

    lives_s: float | None = None
    code: int | None = 0
    signal: int | None = None
    heeds_s: float | None = 0.0
    launch_error: str | None = None
    position: Progress | None = None


@dataclass(slots=True)
class Child:
    """A child that the keeper holds."""

    key: str
    pid: int
    plan: Mapping[str, Any]
    life: Life
    started_mono: float
    started_wall: float
    ends_at: float | None
    code: int | None
    signal: int | None
    asked_to_stop: bool = False
    killed_for: str | None = None
    armed: tuple[str, Mapping[str, Any], frozenset[int]] | None = None

    def public(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "pid": self.pid,
            "pid_started": self.pid,
            "started_mono": self.started_mono,
            "started_wall": self.started_wall,
            "cgroup": None,
            "output_bytes": 0,
            "output_dropped_bytes": 0,
            "killed_for": self.killed_for,
        }


@dataclass
class FakeKeeper:
    """Holds children that exist only as figures. What it says goes to ``said``, as messages of the wire; exit records stay until FORGET.

    ``starts`` counts by key, ``histories`` are the truth about every end that was ever recorded.
    """

    clock: FakeClock
    life: Callable[[str, Mapping[str, Any]], Life] = lambda _key, _plan: Life()
    epoch: str = "epoch-1"
    boot_id: str = "boot-1"
    live: dict[str, Child] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    said: list[wire.Message] = field(default_factory=list)
    starts: Counter[str] = field(default_factory=Counter)
    plans: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    histories: dict[str, dict[str, Any]] = field(default_factory=dict)
    died_unseen: set[str] = field(default_factory=set)
    doubtful: dict[str, str] = field(default_factory=dict)
    followed: int = 0  # how many attempts it began by itself
    stopping: bool = False
    said_bye: bool = False
    restarts: int = -1
    lives: int = 1
    pids: int = 10_000_000  # above any real one: nothing that is done to them reaches a process

    # ---------------------------------------------------------------- to a brain

    def hello(self) -> wire.Message:
        """A new brain: what the last one did not hear is not said again, it is in here."""
        self.said.clear()
        self.restarts += 1
        return {
            "op": wire.HELLO,
            "version": wire.VERSION,
            "epoch": self.epoch,
            "boot_id": self.boot_id,
            "keeper_pid": 1,
            "cgroup": None,
            "restarts": self.restarts,
            "stopping": self.stopping,
            "live": [child.public() for child in self.live.values()],
            "ended": list(self.records.values()),
            "doubtful": dict(self.doubtful),
            "armed": [child.armed[0] for child in self.live.values() if child.armed is not None],
        }

    def obey(self, message: Mapping[str, Any]) -> None:
        """A message of the brain."""
        match message["op"]:
            case wire.SPAWN:
                self._spawn(message["key"], message["plan"])
            case wire.SIGNAL:
                self._ask(message["key"])
            case wire.KILL:
                self._kill(message["key"], message["reason"])
            case wire.ARM:
                child = self.live.get(message["after"])
                if child is not None and not (child.asked_to_stop or child.killed_for or self.stopping or child.armed):
                    child.armed = (message["key"], message["plan"], frozenset(message["not_after"]))
            case wire.DISARM:
                if message["after"] in self.live:
                    self.live[message["after"]].armed = None
            case wire.FORGET:
                self.records.pop(message["key"], None)
                self.doubtful.pop(message["key"], None)
            case wire.READY:
                if self.stopping:
                    self.said.append({"op": wire.SHUTDOWN})
            case wire.BYE:
                assert not self.live, f"BYE although {sorted(self.live)} live"
                self.said_bye = True

    def _spawn(self, key: str, plan: Mapping[str, Any]) -> None:
        known = self.live.get(key)
        if known is not None:
            self.said.append({"op": wire.STARTED, "attempt": known.public()})
            return
        self.starts[key] += 1
        self.plans[key] = plan
        self.pids += 1
        life = self.life(key, plan)
        now = self.clock.now()
        ends_at = None if life.lives_s is None else now.mono + life.lives_s
        child = Child(key, self.pids, plan, life, now.mono, now.wall.timestamp(), ends_at, life.code, life.signal)
        if life.launch_error is not None:
            self._record(child, launch_error=life.launch_error)
            return
        self.live[key] = child
        self.said.append({"op": wire.STARTED, "attempt": child.public()})

    def _ask(self, key: str) -> None:
        child = self.live.get(key)
        if child is None:
            return
        child.asked_to_stop = True
        if child.life.heeds_s is not None:
            self._ends_by(child, child.life.heeds_s, 15)

    def _ends_by(self, child: Child, after_s: float, number: int) -> None:
        at = self.clock.mono() + after_s
        if child.ends_at is None or at < child.ends_at:
            child.ends_at, child.code, child.signal = at, None, number

    def _kill(self, key: str, reason: str) -> None:
        child = self.live.get(key)
        if child is not None:
            child.killed_for = child.killed_for or reason
            self._ends_by(child, 0.0, 9)

    # ---------------------------------------------------------------- of its own

    def next_due(self) -> float | None:
        """When the next child ends."""
        return min((child.ends_at for child in self.live.values() if child.ends_at is not None), default=None)

    def tick(self) -> None:
        """Let those children end whose time has come."""
        for child in [one for one in self.live.values() if one.ends_at is not None and one.ends_at <= self.clock.mono()]:
            self._record(child, code=child.code, signal=child.signal)

    def end(self, key: str, *, code: int | None = None, signal: int | None = None, **facts: Any) -> None:
        """This child ends now, like this."""
        self._record(self.live[key], code=code, signal=signal, **facts)

    def _record(self, child: Child, **facts: Any) -> None:
        self.live.pop(child.key, None)
        now = self.clock.now()
        record = {
            **child.public(),
            "ended_mono": now.mono,
            "ended_wall": now.wall.timestamp(),
            "asked_to_stop": child.asked_to_stop,
            "killed_for": child.killed_for,
            "position": child.life.position,  # the page, which outlives the brain as the record does
            **facts,
        }
        following = self._follower(child, facts)
        if following is not None:
            record["next"] = following[0]
        self.records[child.key] = self.histories[child.key] = record
        self.said.append({"op": wire.ENDED, "record": record})
        if following is not None:
            self.followed += 1
            self._spawn(*following)

    def _follower(self, child: Child, facts: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
        """The attempt that begins at once, as the brain has allowed."""
        if child.armed is None or child.asked_to_stop or child.killed_for or self.stopping:
            return None
        key, plan, not_after = child.armed
        return None if facts.get("code") in not_after else (key, plan)

    def die(self) -> None:
        """The keeper is killed: its children die with it, unseen. Records are on disk and stay."""
        self.died_unseen |= self.live.keys()
        self.live.clear()
        self.said.clear()
        self.lives += 1
        self.epoch = f"epoch-{self.lives}"
        self.restarts = -1
        self.stopping = False

    def reboot(self) -> None:
        """The machine goes down hard and comes up again."""
        self.doubtful |= {child.key: child.armed[0] for child in self.live.values() if child.armed is not None}
        self.die()
        self.boot_id = f"boot-{self.lives}"
        self.clock.reboot()


def obedient(**changes: Any) -> Life:
    """A service: lives for ever, goes when asked."""
    return replace(Life(), **changes)
