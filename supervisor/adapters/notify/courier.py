"""One receiver's courier: takes what is due, hands it over, decides when to try again. It blocks; a thread of its own runs it."""

import zlib
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import Protocol

import structlog
from msgspec import Struct

from supervisor.adapters.notify.sender import Clock, Failed, Sender
from supervisor.core.model import Now, Wall
from supervisor.core.records import Notification

log = structlog.get_logger()

CROWD = 6  # from this many on they go as one batch: a storm is one mail, an ordinary incident keeps its own


class Queue(Protocol):
    """The durable outbox (see ``adapters.store``). Every method may raise ``StoreError``."""

    def close(self) -> None: ...
    def pending(self) -> dict[str, int]: ...
    def heads(self, receiver: str, now: Wall, limit: int) -> list[tuple[Notification, int]]: ...
    def next_due(self, receiver: str) -> Wall | None: ...
    def sent(self, keys: Collection[str], now: Wall) -> None: ...
    def failed(self, retries: Sequence[tuple[str, Wall]], error: str) -> None: ...
    def trim(self, receiver: str, cap: int, now: Wall) -> int: ...
    def expire(self, receiver: str, before: Wall, tries: int, now: Wall) -> int: ...
    def drop_strangers(self, receivers: Collection[str], now: Wall) -> dict[str, int]: ...
    def standing(self, receiver: str) -> list[Notification]: ...
    def openings(self, receiver: str, incidents: Collection[int]) -> dict[int, Notification]: ...
    def last_success(self, receiver: str) -> Wall | None: ...


class Patience(Struct, frozen=True):
    """How long a courier goes on. Retries wait ``first_s``, doubled each time, at most ``max_s``, spread by ± 25 %.

    A notification older than ``give_up_s`` with ``give_up_tries`` tries behind it is dropped, and so is the oldest beyond ``queue_max``.
    """

    first_s: float = 1.0
    max_s: float = 300.0
    give_up_s: float = 3 * 86400.0
    give_up_tries: int = 5
    queue_max: int = 1000

    def wait_s(self, tries: int, key: str) -> float:
        """Seconds before the next try after *tries* (from 1) in vain; *key* sets the spread, so that no two wait alike."""
        spread = 0.75 + 0.5 * (zlib.crc32(f"{key}/{tries}".encode("utf-8", "replace")) / 2**32)
        return min(self.first_s * 2.0 ** min(tries - 1, 60), self.max_s) * spread


class Courier:
    """``turn`` does one thing and says when the next is due. ``on_result(receiver, "sent" | "failed" | "dropped")`` counts."""

    def __init__(
        self, name: str, sender: Sender, queue: Queue, clock: Clock, *, on_result: Callable[[str, str], None], patience: Patience
    ) -> None:
        self.name = name
        self.last_success: Wall | None = None
        self._sender = sender
        self._queue = queue
        self._clock = clock
        self._on_result = on_result
        self._patience = patience
        self._failures = 0
        self._failing_since = 0.0
        self._not_before = 0.0
        self._repost_at: float | None = 0.0 if sender.repost_s is not None else None
        self._delivered: set[str] = set()

    def turn(self) -> float | None:
        """One step; seconds until the next one can do something, None when only a new notification can. Raises ``StoreError``."""
        now = self._clock()
        self._mark_delivered(now)
        self._drop(now)
        if now.mono < self._not_before:
            return self._not_before - now.mono
        if self._repost_at is not None and now.mono >= self._repost_at:
            return self._repost(now)
        batch = self._next_batch(now)
        if not batch:
            return self._idle_s(now)
        self._settle(batch, self._deliver([notification for notification, _ in batch]))
        return 0.0

    def _next_batch(self, now: Now) -> list[tuple[Notification, int]]:
        """One at a time to a receiver that fails: it is asked gently, and one bad message holds up no other."""
        limit = 1 if self._failures else self._sender.batch_max
        heads = self._queue.heads(self.name, now.wall, limit)
        return heads if len(heads) >= CROWD else heads[:1]

    def _deliver(self, batch: Sequence[Notification]) -> Failed | None:
        return self._sender.deliver(batch, self._queue.openings(self.name, {notification.incident for notification in batch}))

    def _repost(self, now: Now) -> float:
        standing = self._queue.standing(self.name)
        self._repost_at = now.mono + (self._sender.repost_s or 0.0)
        if standing:
            failed = self._sender.repost(standing)
            if failed:
                self._count("failed", 1)
                self._fail(failed)
            else:
                self._succeed()
        return 0.0

    def _settle(self, batch: Sequence[tuple[Notification, int]], failed: Failed | None) -> None:
        if failed is None:
            self._succeed()
            self._not_before = self._clock().mono + self._sender.pause_s
            self._delivered.update(notification.key for notification, _ in batch)
            self._mark_delivered(self._clock())
            return
        self._count("failed", len(batch))
        self._fail(failed)
        now = self._clock().wall
        waits = [(one.key, self._patience.wait_s(tries + 1, one.key)) for one, tries in batch]
        least = failed.retry_after_s or 0.0
        self._queue.failed([(key, now + timedelta(seconds=max(wait, least))) for key, wait in waits], failed.detail)

    def _mark_delivered(self, now: Now) -> None:
        """What was handed over is remembered until it is written down: a full disk must not make us say it again and again."""
        if self._delivered:
            self._queue.sent(self._delivered, now.wall)
            self._count("sent", len(self._delivered))
            self._delivered.clear()

    def _drop(self, now: Now) -> None:
        surplus = self._queue.trim(self.name, self._patience.queue_max, now.wall)
        before = now.wall - timedelta(seconds=self._patience.give_up_s)
        expired = self._queue.expire(self.name, before, self._patience.give_up_tries, now.wall)
        for count, reason in ((surplus, "queue full"), (expired, "too old")):
            if count:
                log.error("notifications_dropped", receiver=self.name, count=count, reason=reason)
            self._count("dropped", count)

    def _idle_s(self, now: Now) -> float | None:
        due_at = self._queue.next_due(self.name)
        waits = [] if due_at is None else [max((due_at - now.wall).total_seconds(), 0.05)]
        if self._repost_at is not None and self._queue.standing(self.name):
            waits.append(self._repost_at - now.mono)
        return min(waits, default=None)

    def _count(self, result: str, times: int) -> None:
        for _ in range(times):
            self._on_result(self.name, result)

    def _fail(self, failed: Failed) -> None:
        now = self._clock()
        self._failures += 1
        if self._failures == 1:
            self._failing_since = now.mono
            log.warning("receiver_failing", receiver=self.name, error=failed.detail)
        self._not_before = now.mono + max(self._patience.wait_s(self._failures, self.name), failed.retry_after_s or 0.0)

    def _succeed(self) -> None:
        now = self._clock()
        self.last_success = now.wall
        if self._failures:
            log.info("receiver_recovered", receiver=self.name, failing_s=round(now.mono - self._failing_since, 3), tries=self._failures)
        self._failures = 0
