"""What becomes of fire times: run, late, caught up, or skipped and why. Every due slot leaves exactly one row.

Of one outage the latest 10,000 get a row each (a week of minutes); a job of every second would write for minutes otherwise.
"""

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Final

from supervisor.core import lifecycle, lived, schedule
from supervisor.core.actions import TellSlotMissed
from supervisor.core.jobs import CatchUp, Every, Overlap
from supervisor.core.model import Trigger, Wall
from supervisor.core.records import SkipReason, SlotResult, SlotRow
from supervisor.core.state import StopReason
from supervisor.core.turn import Turn

FRESH: Final = timedelta(seconds=60)  # a slot that we come to later than this was missed: catch_up says what becomes of it
BACKLOG_MAX: Final = 1000
SLOTS_MAX: Final = 10_000
_INSTANT: Final = timedelta(microseconds=1)


def due(turn: Turn) -> None:
    """Deal with every fire time up to now."""
    job = turn.state.job
    if not (job.enabled and job.schedule.is_timed) or turn.closing or turn.state.removed:
        return
    if isinstance(job.schedule.when, Every) and turn.state.awaits_first_run:
        _first_run(turn, job.schedule.when.every_s)
    _find_place(turn)
    slots = _due_slots(turn, turn.now.wall)
    if slots:
        _deal(turn, slots)
    if turn.state.awaits_backlog:
        lifecycle.take_backlog(turn)


def end_pause(turn: Turn) -> None:
    """A pause with an end is over: its fire times that came while Mainstay was down were paused like the others."""
    job, until = turn.state.job, turn.state.memo.paused_until
    if until is None or not (job.enabled and job.schedule.is_timed):
        return
    _find_place(turn)
    slots = _due_slots(turn, min(until, turn.now.wall) - _INSTANT)
    if slots:
        _deal(turn, slots)


def count_from_now(turn: Turn) -> None:
    """A schedule that is new to this job: what it would have done before is nobody's business."""
    memo, now = turn.state.memo, turn.now.wall
    drop_backlog(turn, SkipReason.STOPPED)
    if memo.last_slot is None and isinstance(turn.state.job.schedule.when, Every):
        return  # it has yet to run for the first time, which it does at once
    stretches = lived.add(memo.lived, now, now)
    turn.state = turn.state.remember(lived=stretches, last_slot=lived.place(stretches, now))


def drop_backlog(turn: Turn, reason: SkipReason) -> None:
    """Those that waited for their turn will not run."""
    for slot in turn.state.memo.backlog:
        _skip(turn, slot, reason)
    if turn.state.memo.backlog:
        turn.state = turn.state.remember(backlog=())


def _first_run(turn: Turn, every: float) -> None:
    """An interval job that has never run starts at once, for the slot that it is in."""
    slot = datetime.fromtimestamp(turn.now.wall.timestamp() // every * every, UTC)
    turn.state = turn.state.remember(last_slot=slot, lived=lived.add(turn.state.memo.lived, slot, slot))
    _fire(turn, slot, Trigger.STARTUP)


def _find_place(turn: Turn) -> None:
    """Up to where the fire times are dealt with, whatever was done to the clock since we last looked."""
    memo, now = turn.state.memo, turn.now.wall
    since = memo.last_slot or memo.configured_at
    stretches = memo.lived or ((since, since),)
    here = lived.place(stretches, now)
    if here is None:  # the clock was set back to before everything: whatever is due there is due for the first time
        here, stretches = now, lived.add(stretches, now, now)
    if here != since:
        turn.state = turn.state.remember(last_slot=here, lived=stretches, settled_at=now)


def _due_slots(turn: Turn, now: Wall) -> tuple[Wall, ...]:
    state = turn.state
    if state.next_slot is None or state.next_start is None or state.next_start > now:
        return ()
    plan, name = state.job.schedule, state.name
    past = schedule.missed(plan, name, state.memo.last_slot or state.memo.configured_at, now, SLOTS_MAX)
    # A slot whose jitter is not over holds up those after it: they are dealt with in their order, each once.
    begun = tuple(takewhile(lambda slot: schedule.start_at(plan, name, slot) <= now, past))
    return begun or (state.next_slot,)


def _deal(turn: Turn, slots: tuple[Wall, ...]) -> None:
    job, now, memo = turn.state.job, turn.now.wall, turn.state.memo
    is_fresh = now - schedule.start_at(job.schedule, job.name, slots[-1]) <= FRESH
    again, gone = schedule.catch_up(job.schedule, slots[:-1] if is_fresh else slots, now)
    if is_fresh and job.schedule.catch_up is CatchUp.LAST:
        again, gone = (), (*gone, *again)  # the last of all is the one that is due now
    in_line = bool(again) and is_fresh and job.schedule.overlap is not Overlap.ALLOW  # behind those before it, rather than in their way
    blocked = turn.state.is_blocked
    since = memo.last_slot or memo.configured_at
    begin = since if len(slots) == 1 else slots[-1] if blocked else (*again, slots[-1])[0]
    stretches = lived.add(memo.lived or ((since, since),), begin, slots[-1])
    settled = (memo.settled_at or memo.configured_at) if len(slots) == 1 else now
    if len(stretches) > 1 and now - settled >= lived.SURE:
        stretches = lived.forget_ahead(stretches, now)
    turn.state = turn.state.remember(last_slot=slots[-1], lived=stretches, settled_at=settled)
    if blocked:
        for slot in slots:
            _skip(turn, slot, SkipReason.PAUSED if memo.paused else SkipReason.PARKED)
        return
    for slot in gone:
        _skip(turn, slot, SkipReason.DAEMON_DOWN)
    if again:
        _wait_in_line(turn, (*again, slots[-1]) if in_line else again)
    if is_fresh and not in_line:
        _fire(turn, slots[-1])


def _wait_in_line(turn: Turn, slots: tuple[Wall, ...]) -> None:
    line = (*turn.state.memo.backlog, *slots)
    for slot in line[:-BACKLOG_MAX]:
        _skip(turn, slot, SkipReason.OVERLAP)
    turn.state = turn.state.remember(backlog=line[-BACKLOG_MAX:])
    if turn.state.awaits_backlog:
        lifecycle.take_backlog(turn)


def _fire(turn: Turn, slot: Wall, trigger: Trigger = Trigger.SCHEDULE) -> None:
    state = turn.state
    if not state.memo.runs or state.job.schedule.overlap is Overlap.ALLOW:
        lifecycle.start_run(turn, trigger, slot)
    elif state.job.schedule.overlap is Overlap.REPLACE:
        drop_backlog(turn, SkipReason.OVERLAP)
        turn.state = turn.state.remember(backlog=(slot,))
        for run in state.memo.runs:
            lifecycle.stop_run(turn, run, StopReason.REPLACED)
    else:
        _skip(turn, slot, SkipReason.OVERLAP)


def _skip(turn: Turn, slot: Wall, reason: SkipReason) -> None:
    turn.write(SlotRow(turn.state.name, slot, SlotResult.SKIPPED, reason))
    turn.tell(TellSlotMissed(turn.state.name, slot, reason))
