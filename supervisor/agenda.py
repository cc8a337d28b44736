"""Which job is to be looked at when: moments on both clocks, and the jobs whose moment has come, in the order of their turn. Decides nothing."""

import heapq
from collections.abc import Iterable

from msgspec import Struct, field

from supervisor.core.model import Now


class Turn(Struct, frozen=True):
    """A job whose moment ``at`` has come, on the wall clock (Unix seconds) or on the monotonic one."""

    job: str
    at: float
    on_wall: bool

    def late_s(self, now: Now) -> float:
        """How long ago that was, in seconds."""
        return max(0.0, (now.wall.timestamp() if self.on_wall else now.mono) - self.at)


class Agenda(Struct):
    """Moments to come and turns that are due. A moment that is waited for already is not queued again, or a year's worth of them would pile up."""

    _mono: list[tuple[float, str]] = field(default_factory=list)
    _wall: list[tuple[float, str]] = field(default_factory=list)
    _queued: set[tuple[bool, float, str]] = field(default_factory=set)  # what the heaps hold; True: the one of the wall clock
    _due: dict[tuple[bool, str], float] = field(default_factory=dict)  # jobs that wait for their turn, and since when

    def wait(self, job: str, at: float, *, on_wall: bool) -> None:
        """Look at *job* at that moment."""
        key = (on_wall, at, job)
        if key not in self._queued:
            self._queued.add(key)
            heapq.heappush(self._wall if on_wall else self._mono, (at, job))

    @property
    def is_due(self) -> bool:
        """Whether some job waits for its turn."""
        return bool(self._due)

    def waits_s(self, now: Now) -> Iterable[float]:
        """In how many seconds the next moment of each clock comes."""
        if self._mono:
            yield self._mono[0][0] - now.mono
        if self._wall:
            yield self._wall[0][0] - now.wall.timestamp()

    def collect(self, now: Now) -> None:
        """All whose moment has come get a turn: they are taken out before any is looked at, so that a deadline that stays past cannot hold us."""
        for on_wall, heap, moment in ((False, self._mono, float(now.mono)), (True, self._wall, now.wall.timestamp())):
            while heap and heap[0][0] <= moment:
                at, job = heapq.heappop(heap)
                self._queued.discard((on_wall, at, job))
                self._due.setdefault((on_wall, job), at)

    def next_turn(self) -> Turn:
        """The longest due. ``StopIteration`` when none is."""
        on_wall, job = next(iter(self._due))
        return Turn(job, self._due.pop((on_wall, job)), on_wall)

    def clock_was_set(self, jobs: Iterable[str], at: float) -> None:
        """Every moment on the wall clock is moot: each of *jobs* is to be looked at afresh, from *at* on (Unix seconds)."""
        self._queued = {key for key in self._queued if not key[0]}
        self._wall.clear()
        for job in jobs:
            self._due.setdefault((True, job), at)
