"""What becomes of fire times: run, late, caught up, or skipped and why. Every due slot leaves exactly one row."""

from datetime import UTC, datetime, timedelta
from typing import Final

from supervisor.core import lifecycle, schedule
from supervisor.core.actions import TellSlotMissed
from supervisor.core.model import Every, Overlap, Trigger, Wall
from supervisor.core.records import SkipReason, SlotResult, SlotRow
from supervisor.core.state import StopReason, is_stale
from supervisor.core.turn import Turn

FRESH: Final = timedelta(seconds=60)  # a slot that we come to later than this was missed: catch_up says what becomes of it
BACKLOG_MAX: Final = 1000
SLOTS_MAX: Final = 10_000  # of one outage get a row each, the latest ones: a week of minutes


def due(turn: Turn) -> None:
    """Deal with every fire time up to now."""
    job, now = turn.state.job, turn.now.wall
    if not (job.enabled and job.schedule.is_timed) or turn.closing or turn.state.removed:
        return
    _first_run(turn)
    memo = turn.state.memo
    if memo.last_slot is not None and is_stale(memo.last_slot, turn.now):
        turn.state = turn.state.remember(last_slot=now)
        return
    since = turn.state.memo.last_slot or memo.configured_at
    start = turn.state.next_start
    if start is None or start > now:
        return
    slots = [
        slot
        for slot in schedule.missed(job.schedule, job.name, since, now, SLOTS_MAX)
        if schedule.start_at(job.schedule, job.name, slot) <= now
    ]
    if not slots:
        return
    turn.state = turn.state.remember(last_slot=slots[-1])
    is_fresh = now - schedule.start_at(job.schedule, job.name, slots[-1]) <= FRESH
    missed = tuple(slots[:-1] if is_fresh else slots)
    if turn.state.memo.paused or turn.state.memo.parked:
        reason = SkipReason.PAUSED if turn.state.memo.paused else SkipReason.PARKED
        for slot in slots:
            _skip(turn, slot, reason)
        return
    again, lost = schedule.catch_up(job.schedule, missed, now)
    for slot in lost:
        _skip(turn, slot, SkipReason.DAEMON_DOWN)
    turn.state = turn.state.remember(backlog=(*turn.state.memo.backlog, *again)[-BACKLOG_MAX:])
    if again and not turn.state.memo.runs:
        _take_backlog(turn)
    if is_fresh:
        _fire(turn, slots[-1])


def _first_run(turn: Turn) -> None:
    """An interval job that has never run starts at once, for the slot that it is in."""
    job, memo = turn.state.job, turn.state.memo
    if not isinstance(job.schedule.when, Every) or memo.last_slot is not None or memo.paused or memo.parked:
        return
    every = job.schedule.when.every_s
    slot = datetime.fromtimestamp(turn.now.wall.timestamp() // every * every, UTC)
    turn.state = turn.state.remember(last_slot=slot)
    if not turn.state.memo.runs:
        lifecycle.start_run(turn, Trigger.STARTUP, slot)


def _take_backlog(turn: Turn) -> None:
    slot, *rest = turn.state.memo.backlog
    turn.state = turn.state.remember(backlog=tuple(rest))
    lifecycle.start_run(turn, Trigger.SCHEDULE, slot)


def _fire(turn: Turn, slot: Wall) -> None:
    state = turn.state
    if not state.memo.runs or state.job.schedule.overlap is Overlap.ALLOW:
        lifecycle.start_run(turn, Trigger.SCHEDULE, slot)
    elif state.job.schedule.overlap is Overlap.REPLACE:
        turn.state = state.remember(backlog=(slot,))
        for run in state.memo.runs:
            lifecycle.stop_run(turn, run, StopReason.REPLACED)
    else:
        _skip(turn, slot, SkipReason.OVERLAP)


def _skip(turn: Turn, slot: Wall, reason: SkipReason) -> None:
    turn.write(SlotRow(turn.state.name, slot, SlotResult.SKIPPED, reason))
    turn.tell(TellSlotMissed(turn.state.name, slot, reason))
