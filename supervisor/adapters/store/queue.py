"""The outbox as its couriers see it: what is due, what became of it. Rows get in only through ``Store.apply``."""

import sqlite3
from collections.abc import Collection, Sequence
from datetime import timedelta

from supervisor.adapters.store.connection import Link
from supervisor.adapters.store.rows import OUTBOX, clean, from_micros, to_micros
from supervisor.core.model import Wall
from supervisor.core.records import Notification

ERROR_CHARS = 500  # of a receiver's last error that are kept
# No retry is ever put off this long: a row that seems so was written before the wall clock was set back, and is due.
_FAR = timedelta(hours=2)

_COLUMNS = ", ".join(f'o."{column}"' for column in OUTBOX.columns)
# A notification waits for the earlier ones of its incident: nobody hears of an end before the beginning.
_READY = """
    FROM outbox o WHERE o.receiver = ? AND o.state = 'due' AND NOT EXISTS (
        SELECT 1 FROM outbox e WHERE e.receiver = o.receiver AND e.incident = o.incident AND e.state = 'due' AND e.seq < o.seq
    )
"""
# The first of its kind to this receiver: opened, or escalated for who was not told before.
_FIRST_WORD = """o.kind IN ('opened', 'escalated') AND NOT EXISTS (
        SELECT 1 FROM outbox e WHERE e.receiver = o.receiver AND e.incident = o.incident AND e.kind IN ('opened', 'escalated') AND e.seq < o.seq
    )"""


class OutboxQueue:
    """One courier's own connection to the outbox. All methods may raise ``StoreError``.

    ``any_thread``: the caller promises that only one thread at a time uses it, not that it is always the same.
    """

    def __init__(self, path: str, *, any_thread: bool = False) -> None:
        self._link = Link(path, read_only=False, any_thread=any_thread)

    def close(self) -> None:
        self._link.close()

    def pending(self) -> dict[str, int]:
        """Receiver → how many notifications wait for it."""
        sql = "SELECT receiver, count(*) FROM outbox WHERE state = 'due' GROUP BY receiver"
        return dict(self._link.use("reading the outbox", lambda c: c.execute(sql).fetchall()))

    def heads(self, receiver: str, now: Wall, limit: int) -> list[tuple[Notification, int]]:
        """Up to *limit* notifications that are due, the longest due first, each with the number of tries it has behind it."""
        sql = f"SELECT {_COLUMNS}, o.tries {_READY} AND (o.due_at <= ? OR o.due_at > ?) ORDER BY o.due_at, o.seq LIMIT ?"
        values = (receiver, to_micros(now), to_micros(now + _FAR), limit)

        def read(connection: sqlite3.Connection) -> list[tuple[Notification, int]]:
            return [(OUTBOX.record_of(row[:-1]), row[-1]) for row in connection.execute(sql, values).fetchall()]

        return self._link.use("reading the outbox", read)

    def next_due(self, receiver: str) -> Wall | None:
        """When the next notification for *receiver* is due; None when none waits."""
        sql = f"SELECT min(o.due_at) {_READY}"
        micros = self._link.use("reading the outbox", lambda c: c.execute(sql, (receiver,)).fetchone()[0])
        return None if micros is None else from_micros(micros)

    def sent(self, keys: Collection[str], now: Wall) -> None:
        """Marks as delivered."""
        rows = [(to_micros(now), key) for key in keys]
        sql = "UPDATE outbox SET state = 'sent', tries = tries + 1, done_at = ?, last_error = NULL WHERE key = ?"
        self._link.write("writing the outbox", lambda c: c.executemany(sql, rows))

    def failed(self, retries: Sequence[tuple[str, Wall]], error: str) -> None:
        """Notes one more try in vain for each key, due again at the time beside it."""
        text = clean(error)[:ERROR_CHARS]
        rows = [(text, to_micros(due_at), key) for key, due_at in retries]
        sql = "UPDATE outbox SET tries = tries + 1, last_error = ?, due_at = ? WHERE key = ?"
        self._link.write("writing the outbox", lambda c: c.executemany(sql, rows))

    def trim(self, receiver: str, cap: int, now: Wall) -> int:
        """Drops the oldest waiting notifications beyond *cap*; answers how many."""
        count = "SELECT count(*) FROM outbox WHERE receiver = ? AND state = 'due'"
        surplus = self._link.use("reading the outbox", lambda c: int(c.execute(count, (receiver,)).fetchone()[0])) - cap
        if surplus <= 0:
            return 0
        return self._drop("WHERE receiver = ? AND state = 'due' ORDER BY seq LIMIT ?", (receiver, surplus), "queue full", now)

    def expire(self, receiver: str, before: Wall, tries: int, now: Wall) -> int:
        """Gives up what was asked for before *before* and has had *tries* tries or more; answers how many.

        Both, so that a clock that jumps ahead a year drops nothing that was never tried.
        """
        where = "WHERE receiver = ? AND state = 'due' AND created_at < ? AND tries >= ?"
        return self._drop(where, (receiver, to_micros(before), tries), None, now)

    def drop_strangers(self, receivers: Collection[str], now: Wall) -> dict[str, int]:
        """Drops what waits for a receiver that the config no longer has; answers how many per such receiver."""
        gone = {name: count for name, count in self.pending().items() if name not in receivers}
        for name in gone:
            self._drop("WHERE receiver = ? AND state = 'due'", (name,), "receiver removed from the config", now)
        return gone

    def standing(self, receiver: str) -> list[Notification]:
        """The opening notifications of all incidents that are open still and of which *receiver* was told (or told too late).

        For who heard by escalation, that is the opening.
        """
        sql = f"""
            SELECT {_COLUMNS} FROM outbox o JOIN incidents i ON i.id = o.incident
            WHERE i.closed_at IS NULL AND o.receiver = ? AND {_FIRST_WORD} AND o.state <> 'due' ORDER BY o.seq
        """  # noqa: S608 - our own text
        rows = self._link.use("reading the outbox", lambda c: c.execute(sql, (receiver,)).fetchall())
        return [OUTBOX.record_of(row) for row in rows]

    def openings(self, receiver: str, incidents: Collection[int]) -> dict[int, Notification]:
        """Incident → the notification to *receiver* that opened it."""
        marks = ", ".join("?" * len(incidents))
        sql = f"SELECT {_COLUMNS} FROM outbox o WHERE o.receiver = ? AND {_FIRST_WORD} AND o.incident IN ({marks})"  # noqa: S608
        rows = self._link.use("reading the outbox", lambda c: c.execute(sql, (receiver, *incidents)).fetchall())
        return {opening.incident: opening for opening in map(OUTBOX.record_of, rows)}

    def last_success(self, receiver: str) -> Wall | None:
        """When something was last delivered to *receiver*, as far as the history goes back."""
        sql = "SELECT max(done_at) FROM outbox WHERE receiver = ? AND state = 'sent'"
        micros = self._link.use("reading the outbox", lambda c: c.execute(sql, (receiver,)).fetchone()[0])
        return None if micros is None else from_micros(micros)

    def _drop(self, where: str, values: tuple[str | int, ...], reason: str | None, now: Wall) -> int:
        # A look first: every courier asks at every turn, and must not take the write lock for nothing.
        found = f"SELECT 1 FROM outbox {where}" if "LIMIT" in where else f"SELECT 1 FROM outbox {where} LIMIT 1"  # noqa: S608
        if self._link.use("reading the outbox", lambda c: c.execute(found, values).fetchone()) is None:
            return 0
        sql = f"""
            UPDATE outbox SET state = 'dropped', done_at = ?, last_error = coalesce(?, last_error)
            WHERE seq IN (SELECT seq FROM outbox {where})
        """  # noqa: S608 - our own text
        return self._link.write("writing the outbox", lambda c: c.execute(sql, (to_micros(now), reason, *values)).rowcount)
