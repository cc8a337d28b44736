"""One epoll over descriptors, and timers: what is ready has its handler called, and a handler that fails ends nobody.

What the descriptors are is others' business. No threads, nothing that can block.
"""

import heapq
import select
import time
from collections.abc import Callable
from typing import Final

from supervisor.keeper.say import say

ASIDE_S: Final = 0.002  # what was put off waits so long at most
BREATH_S: Final = 0.01  # after a handler that failed: its descriptor is still ready, and must not make the loop spin


class Rounds:
    """Waits, calls, and waits again. What is built on it adds its own descriptors and timers."""

    def __init__(self) -> None:
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_number = 0
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._new: set[int] = set()  # descriptors watched since the last poll
        self._put_off: list[Callable[[], object]] = []  # to be done before all else, or when there is nothing else

    def _round(self) -> None:
        """Wait for something, and see to all of it. A number that a handler gave back and another took anew has no event yet."""
        ready = self._poll.poll(self._patience())
        self._new.clear()
        for fd, events in ready:
            self._catch_up()
            handler = self._handlers.get(fd)
            if handler is not None and fd not in self._new and not self._guarded("descriptor", lambda: handler(events)):  # noqa: B023 - called at once
                time.sleep(BREATH_S)
        if not ready:
            self._catch_up()
        self._run_timers()

    def _catch_up(self) -> None:
        """Do what was put off, in its order. Whoever put it off wanted another process to have the processor first."""
        if self._put_off:
            put_off, self._put_off = self._put_off, []
            for action in put_off:
                self._guarded("put_off", action)

    def _guarded(self, what: str, action: Callable[[], object]) -> bool:
        """Do it; what goes wrong is said and ends nobody: every job would die with the keeper. False when something did."""
        try:
            action()
        except Exception as err:  # noqa: BLE001 - whatever it is
            say("keeper_handler_failed", doing=what, error=f"{type(err).__name__}: {err}")
            return False
        return True

    def _watch(self, fd: int, handler: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        self._poll.register(fd, events)
        self._handlers[fd] = handler
        self._new.add(fd)

    def _unwatch(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        self._timer_number += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._timer_number, action))

    def _every(self, seconds: float, action: Callable[[], None]) -> None:
        def again() -> None:
            self._after(seconds, again)  # first: an action that fails is to be done again all the same
            action()

        self._after(seconds, again)

    def _patience(self) -> float:
        longest = ASIDE_S if self._put_off else 3600.0
        return min(longest, max(0.0, self._timers[0][0] - time.monotonic())) if self._timers else longest

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            self._catch_up()
            self._guarded("timer", heapq.heappop(self._timers)[2])
