"""The couriers and their threads. The main loop only rings a bell; nothing here ever holds it up."""

import threading
from collections.abc import Callable, Mapping
from typing import assert_never

import structlog

from supervisor.adapters.notify.courier import Courier, Patience, Queue
from supervisor.adapters.notify.sender import Clock, Sender
from supervisor.core.model import Wall
from supervisor.core.settings import (
    AlertmanagerReceiver,
    AppriseReceiver,
    CommandReceiver,
    EmailReceiver,
    PagerDutyReceiver,
    Receiver,
    SlackReceiver,
    WebhookReceiver,
)
from supervisor.errors import ConfigError, StoreError

log = structlog.get_logger()

NAP_MAX_S = 60.0  # a courier looks again at least this often while something waits: the wall clock may have been set
STORE_RETRY_S = 5.0
OWN_FAILURE_S = 60.0


def sender_for(receiver: Receiver, clock: Clock) -> Sender:
    """The sender for a receiver of the config. ``ValueError`` when it can never work, without naming its secrets.

    Each is imported when the config has one: mail alone is a megabyte.
    """
    match receiver:
        case WebhookReceiver():
            from supervisor.adapters.notify.webhook import WebhookSender

            return WebhookSender(receiver, clock)
        case AlertmanagerReceiver():
            from supervisor.adapters.notify.alertmanager import AlertmanagerSender

            return AlertmanagerSender(receiver, clock)
        case EmailReceiver():
            from supervisor.adapters.notify.mail import EmailSender

            return EmailSender(receiver, clock)
        case SlackReceiver():
            from supervisor.adapters.notify.slack import SlackSender

            return SlackSender(receiver, clock)
        case PagerDutyReceiver():
            from supervisor.adapters.notify.pagerduty import PagerDutySender

            return PagerDutySender(receiver, clock)
        case CommandReceiver():
            from supervisor.adapters.notify.command import CommandSender

            return CommandSender(receiver, clock)
        case AppriseReceiver():
            from supervisor.adapters.notify.apprise import AppriseSender

            return AppriseSender(receiver, clock)
    assert_never(receiver)


class Outbox:
    """Delivers the notifications of the durable outbox, each at least once or counted as dropped.

    *open_queue* gives a courier its own ``Queue`` (``Store.outbox``). *on_result(receiver, result)* is called from the couriers'
    threads; result is "sent", "failed" (one try) or "dropped". ``ConfigError`` when a receiver can never work.
    """

    def __init__(
        self,
        open_queue: Callable[[], Queue],
        receivers: Mapping[str, Receiver],
        clock: Clock,
        on_result: Callable[[str, str], None],
        *,
        patience: Patience | None = None,
        make: Callable[[Receiver, Clock], Sender] = sender_for,
    ) -> None:
        self._open_queue = open_queue
        self._clock = clock
        self._on_result = on_result
        self._senders = _made(receivers, clock, make)
        self._patience = patience or Patience()
        self._workers: dict[str, _Worker] = {}
        self._queue = open_queue()
        self._lock = threading.Lock()
        self._lengths: dict[str, int] = {}
        self._last: dict[str, Wall | None] = {}

    def start(self) -> None:
        """Takes up what an earlier life left: unsent notifications, and incidents that are open still. Reads the store once."""
        try:
            with self._lock:
                gone = self._queue.drop_strangers(self._senders.keys(), self._clock().wall)
                waiting = self._queue.pending()
                standing = [name for name, sender in self._senders.items() if sender.repost_s is not None and self._queue.standing(name)]
                self._last = {name: self._queue.last_success(name) for name in self._senders}
        except StoreError as err:
            log.warning("outbox_unreadable", error=str(err))
            self.wake()
            return
        for name, count in gone.items():
            log.error("notifications_dropped", receiver=name, count=count, reason="receiver removed from the config")
            for _ in range(count):
                self._on_result(name, "dropped")
        if names := {*waiting, *standing}:
            self.wake(*names)

    def wake(self, *receivers: str) -> None:
        """There are new notifications for *receivers* (none named: for any). Never blocks."""
        for name in receivers or self._senders:
            if name not in self._senders:
                continue
            if name not in self._workers:
                self._workers[name] = self._worker(name)
            self._workers[name].wake()

    def stop(self, timeout: float) -> None:
        """Lets running deliveries end, *timeout* seconds for all of them together; what is not sent stays in the store."""
        end = self._clock().mono + timeout
        for worker in self._workers.values():
            worker.ask_to_stop()
        late = [name for name, worker in self._workers.items() if not worker.join(max(end - self._clock().mono, 0.0))]
        if late:
            log.warning("outbox_stop_timed_out", receivers=late)
        with self._lock:
            self._queue.close()

    def queue_length(self, receiver: str) -> int:
        """How many notifications wait for *receiver*; the last known number while the store cannot be read."""
        with self._lock:
            try:
                self._lengths = self._queue.pending()
            except StoreError as err:
                log.debug("outbox_unreadable", error=str(err))
            return self._lengths.get(receiver, 0)

    def last_success(self, receiver: str) -> Wall | None:
        """When *receiver* last took something, in this life or an earlier one."""
        worker = self._workers.get(receiver)
        return (worker.courier.last_success if worker else None) or self._last.get(receiver)

    def _worker(self, name: str) -> "_Worker":
        queue = self._open_queue()
        return _Worker(Courier(name, self._senders[name], queue, self._clock, on_result=self._on_result, patience=self._patience), queue)


class _Worker:
    """The thread of one courier; it is a daemon, so a name look-up that hangs cannot hold up our end."""

    def __init__(self, courier: Courier, queue: Queue) -> None:
        self.courier = courier
        self._queue = queue
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._store_failing = False
        self._thread = threading.Thread(target=self._run, name=f"courier-{courier.name}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        self._bell.set()

    def ask_to_stop(self) -> None:
        self._stopping.set()
        self._bell.set()

    def join(self, timeout: float) -> bool:
        """True when the thread has ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            wait_s = self._turn()
            self._bell.wait(None if wait_s is None else min(wait_s, NAP_MAX_S))
            self._bell.clear()
        self._queue.close()

    def _turn(self) -> float | None:
        try:
            wait_s = self.courier.turn()
        except StoreError as err:
            if not self._store_failing:
                log.warning("outbox_unreadable", receiver=self.courier.name, error=str(err))
            self._store_failing = True
            return STORE_RETRY_S
        except Exception:  # broad: a bug in one sender must not end its thread, or its receiver would never hear of anything again
            log.exception("courier_failed", receiver=self.courier.name)
            return OWN_FAILURE_S
        self._store_failing = False
        return wait_s


def _made(receivers: Mapping[str, Receiver], clock: Clock, make: Callable[[Receiver, Clock], Sender]) -> dict[str, Sender]:
    senders: dict[str, Sender] = {}
    problems: list[str] = []
    for name, receiver in receivers.items():
        try:
            senders[name] = make(receiver, clock)
        except ValueError as err:
            problems.append(f"receivers.{name}: {err}")
    if problems:
        raise ConfigError(problems)
    return senders
