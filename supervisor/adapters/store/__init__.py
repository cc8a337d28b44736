"""The history on disk: runs, attempts, slots, incidents, the outbox, counters. SQLite in one file; no policy."""

from supervisor.adapters.store.database import Store
from supervisor.adapters.store.history import Reader
from supervisor.adapters.store.queue import OutboxQueue

__all__ = ["OutboxQueue", "Reader", "Store"]
