"""Notifications on their way out: a durable outbox, one courier per receiver, and what each kind of receiver wants to hear."""

from supervisor.adapters.notify.courier import Courier, Patience, Queue
from supervisor.adapters.notify.heartbeat import Heart
from supervisor.adapters.notify.outbox import Outbox, sender_for
from supervisor.adapters.notify.sender import Failed, Sender

__all__ = ["Courier", "Failed", "Heart", "Outbox", "Patience", "Queue", "Sender", "sender_for"]
