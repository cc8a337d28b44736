"""How an attempt's tree is ended, round by round until nothing of it is left, and how its end is written down."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import Any, Final

from supervisor import procfs, proctree, wire
from supervisor.keeper import cgroup
from supervisor.keeper.attempt import Attempt, Successor
from supervisor.keeper.brain import Brain
from supervisor.keeper.holding import Holding
from supervisor.keeper.records import Records
from supervisor.keeper.say import say

CLEAR_EVERY_S: Final = 0.002  # between the first two rounds of ending a tree; doubles while nothing new appears in it
UNKNOWN: Final = 0  # no process has this pid
CLEAR_SLOWEST_S: Final = 0.1
CLEAR_FOR_S: Final = 5.0  # then what still lives is called unkillable (uninterruptible sleep)
EXEC_S: Final = 0.25  # an exec takes no longer; an orphan whose environment cannot be read until then has none, or is not ours to read


class Ending(Holding):
    """Ends what is held. The rounds of one tree are one chain, however many ask for it; the record is written before anybody is told."""

    def __init__(self, records: Records, brain: Brain) -> None:
        super().__init__()
        self._records = records
        self._brain = brain
        self._kin = procfs.Kin()
        self._spare = os.dup(self._null)
        self._owner: dict[tuple[int, int], str] = {}  # (pid, start time) of an orphan → the attempt it belongs to, "" for nobody's
        self._unread: dict[tuple[int, int], float] = {}  # the same → since when its owner cannot be told
        self._is_unsure = False  # whether the present round met such a one
        self._stopping = False

    def _ask_attempt(self, attempt: Attempt, name: str) -> None:
        number = getattr(signal, "SIG" + name)
        attempt.asked_to_stop = True
        self._drop_successor(attempt)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(attempt.pid, number)
            os.killpg(attempt.pid, signal.SIGCONT)  # a stopped process would not see it

    def _end(self, attempt: Attempt) -> None:
        self._drop_successor(attempt)
        if attempt.killed_for is None and attempt.status is None:
            attempt.killed_for = "stop"
        self._clear_unless_waiting(attempt)

    # ---------------------------------------------------------------- rounds

    def _on_main_exit(self, attempt: Attempt, status: int, cpu_s: float, max_rss_bytes: int) -> None:
        attempt.ended_mono, attempt.ended_wall = time.monotonic(), time.time()
        attempt.status, attempt.cpu_s, attempt.max_rss_bytes = status, cpu_s, max_rss_bytes
        del self._by_pid[attempt.pid]
        if attempt.child.errors >= 0:
            self._guarded("exec", lambda: self._on_exec(attempt))
        attempt.clear_pace_s = CLEAR_EVERY_S
        self._clear(attempt)

    def _clear_unless_waiting(self, attempt: Attempt) -> None:
        """Begin to end the tree, or leave it to the round that is due: each round walks /proc, and there is one chain of them at a time."""
        if not attempt.clear_waits:
            self._clear(attempt)

    def _clear_again(self, attempt: Attempt) -> None:
        attempt.clear_waits = False
        self._clear(attempt)

    def _clear_after(self, attempt: Attempt, seconds: float) -> None:
        if not attempt.clear_waits:
            attempt.clear_waits = True
            self._after(seconds, lambda: self._clear_again(attempt))

    def _clear(self, attempt: Attempt) -> None:
        """End what is left of the attempt's tree, a round at a time, and write the exit record when nothing is."""
        if self._attempts.get(attempt.key) is not attempt:
            return
        now = time.monotonic()
        if attempt.clearing_since is None:
            attempt.clearing_since = now
            attempt.clear_pace_s = CLEAR_EVERY_S
        self._is_unsure = False
        hit = self._kill_round(attempt)
        if self._is_unsure:
            self._is_unsure = False
            with self._spare_descriptor():
                hit |= self._kill_round(attempt)
        if attempt.status is not None and attempt.killed_for is None:
            attempt.leftovers |= hit - {UNKNOWN}
        if hit or self._is_unsure or attempt.status is None:
            if now - attempt.clearing_since < CLEAR_FOR_S:
                grows = len(hit) > attempt.clear_hits
                attempt.clear_hits = len(hit)
                attempt.clear_pace_s = CLEAR_EVERY_S if grows else min(CLEAR_SLOWEST_S, attempt.clear_pace_s * 2)
                self._clear_after(attempt, attempt.clear_pace_s)
                return
            attempt.unkillable = [pid for pid in self._roots(attempt) if procfs.read_stat(pid) is not None]
            say("tree_unkillable", key=attempt.key, pids=attempt.unkillable)
            if attempt.status is None:
                attempt.clearing_since = None
                self._clear_after(attempt, CLEAR_FOR_S)
                return
        self._finish(attempt)

    @contextlib.contextmanager
    def _spare_descriptor(self) -> Iterator[None]:
        """There is one descriptor at least, to look at processes by: whatever else took the others, a tree has to be ended."""
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                self._spare = os.dup(self._null)

    def _kill_round(self, attempt: Attempt) -> set[int]:
        """One round; what was hit. A round that fails counts as one that hit something: there has to be another."""
        try:
            if attempt.cgroup is None:
                if attempt.status is None:
                    # First: what makes orphans by the thousand makes more while each is asked whose it is.
                    proctree.freeze(lambda: [attempt.pid])
                elif not self._roots(attempt):
                    return set()  # as it nearly always is
                return proctree.kill_round(lambda: self._roots(attempt))
            members = cgroup.processes(attempt.cgroup)
            if members and not self._guarded("cgroup_kill", lambda: cgroup.kill(str(attempt.cgroup))):
                proctree.kill_round(lambda: cgroup.processes(str(attempt.cgroup)))  # an older kernel has no cgroup.kill
            return set(members)
        except (OSError, ValueError) as err:
            say("keeper_handler_failed", doing="kill", key=attempt.key, error=f"{type(err).__name__}: {err}")
            return {UNKNOWN}

    def _roots(self, attempt: Attempt) -> list[int]:
        """Where the attempt's processes hang in the tree: its main process while it lives, and orphans of it that came to us."""
        roots = [] if attempt.status is not None else [attempt.pid]
        if attempt.cgroup is not None:
            return cgroup.processes(attempt.cgroup)
        known, held, brain = self._by_pid, self._held, self._brain.pid
        strangers = (pid for pid in self._kin.children() if pid not in known and pid not in held and pid != brain)
        return roots + [pid for pid in strangers if self._owner_of(pid) == attempt.key]

    def _owner_of(self, pid: int) -> str:
        """The attempt that it belongs to, "" for nobody's; also where that cannot be told yet, which the round is told of."""
        stat = procfs.read_stat(pid)
        if stat is None:  # it is listed and not reaped: there is no descriptor left to read by, or it is hidden from us (hidepid)
            self._ask_again((pid, 0))
            return ""
        if stat.is_dead:
            return ""
        identity = (pid, stat.started)
        owner = self._owner.get(identity)
        if owner is None:
            owner = self._find_owner(pid, stat.session, stat.started)
            if owner is None and self._ask_again(identity):
                return ""
            self._unread.pop(identity, None)
            if len(self._owner) > 4096:
                self._owner.clear()
            owner = self._owner[identity] = owner or ""
        return owner

    def _ask_again(self, identity: tuple[int, int]) -> bool:
        """Whether the owner of that one, which cannot be told now, is to be asked for again; the round is told so."""
        if len(self._unread) > 4096:
            self._unread.clear()
        now = time.monotonic()
        again = now - self._unread.setdefault(identity, now) < EXEC_S
        self._is_unsure |= again
        return again

    def _find_owner(self, pid: int, session: int, started: int) -> str | None:
        """By its session, else by what its environment says, unless it is older than the attempt that it names; None if that cannot be told now."""
        for attempt in self._attempts.values():
            if attempt.pid == session:
                return attempt.key
        key = procfs.claimed_attempt(pid)
        if key is None:
            return None
        claimed = self._attempts.get(key)
        return claimed.key if claimed is not None and started >= claimed.pid_started else ""

    def _finish(self, attempt: Attempt) -> None:
        del self._attempts[attempt.key]
        figures: dict[str, int] = {}
        group, successor = attempt.cgroup, self._take_successor(attempt)
        if attempt.capture is not None:
            self._guarded("output", attempt.capture.drain)
        if successor is None:
            self._close_output(attempt)  # first: what is to be opened now may have no other descriptors
        if group is not None:
            self._guarded("figures", lambda: figures.update(cgroup.figures(group)))
            self._put_off.append(lambda: self._remove_group(group, 50))
        record = attempt.record(figures)
        if successor is None or not self._follow_at_once(attempt, record, successor):
            self._close_output(attempt)
            self._write_and_tell(record, successor)

    def _close_output(self, attempt: Attempt) -> None:
        capture = attempt.capture
        if capture is not None and capture.pipe >= 0:
            self._unwatch(capture.pipe)
            self._guarded("output", capture.close)

    def _take_successor(self, attempt: Attempt) -> Successor | None:
        """What is to follow at once, if anything may."""
        successor = attempt.successor
        if successor is not None and not self._stopping and attempt.may_be_followed(successor):
            return successor
        self._drop_successor(attempt)
        return None

    # ---------------------------------------------------------------- the record

    # Write down how it ended and what follows, let that begin, and tell the brain: in that order. What cannot be written down is followed by nothing
    # that the brain has not asked for.

    def _follow_at_once(self, attempt: Attempt, record: dict[str, Any], successor: Successor) -> bool:
        """Let *successor* begin as soon as the record is noted, which outlives us. False where it cannot be: then it goes the whole way first.

        That something may follow is on disk since the record was prepared, so what follows need not wait for the disk again; and we put off the rest
        until it has had the processor.
        """
        record["next"] = successor.key
        if not successor.child.is_ready():
            return False
        self._records.confirm(record["key"])
        if not self._records.note(record):
            return False
        hold = self._begin(successor)
        self._put_off += [lambda: self._close_output(attempt), hold, lambda: self._write_and_tell(record, None)]
        return True

    def _write_and_tell(self, record: dict[str, Any], successor: Successor | None) -> None:
        trouble = self._records.write(record)
        if trouble is not None:
            say("exit_record_not_written", key=record["key"], error=trouble)
        if successor is not None:
            if trouble is None:
                self._put_off.append(self._begin(successor))
            else:
                del record["next"]
                self._drop_successor(self._held[successor.child.pid])
        self._send({"op": wire.ENDED, "record": record})

    def _record_failed_launch(self, key: str, why: str) -> None:
        now_mono, now_wall = time.monotonic(), time.time()
        self._write_and_tell(
            {
                "key": key,
                "launch_error": why,
                "started_mono": now_mono,
                "started_wall": now_wall,
                "ended_mono": now_mono,
                "ended_wall": now_wall,
            },
            None,
        )
