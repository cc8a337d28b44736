"""All jobs together: ``step(state, event, now)`` answers the next state, what to do about it, and what to tell whoever asked.

No I/O, no clock, no randomness: the same events give the same actions, which is why years of schedules and every crash can be
played in seconds. Each step touches one job, but for a new config, a shutdown and a restore.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, assert_never

from msgspec import Struct
from msgspec.structs import replace

from supervisor.core import incidents, lifecycle, overdue, schedule, silences, timetable
from supervisor.core.actions import Action, Finished, KillTree, Record, TellIncident, TellSilenced
from supervisor.core.crowd import EVERYONE, MEMO, Crowd, receiver_of, summarize
from supervisor.core.events import (
    AttemptEnded,
    AttemptLost,
    AttemptStarted,
    Breached,
    Due,
    Event,
    IncidentWish,
    Reconfigured,
    ReleaseWish,
    ShutdownAsked,
    SilenceWish,
    SummariesDue,
    Verb,
    Wish,
)
from supervisor.core.heal import Course
from supervisor.core.jobs import Job, Launch
from supervisor.core.model import Incident, Mono, Now, RunId, State, Trigger, Wall
from supervisor.core.plan import restarts_running
from supervisor.core.records import JobMemo, QuarantinedRecord, Row, SkipReason
from supervisor.core.state import EngineState, JobState, LiveRun, Memo, StopReason
from supervisor.core.turn import Turn
from supervisor.core.units import format_duration


class Answer(Struct, frozen=True):
    """What an operator hears: done or not, in one line; and the run that was begun by it."""

    ok: bool
    text: str
    run: int | None = None


class Step(Struct, frozen=True):
    """The outcome of one step. ``touched`` names the jobs whose deadlines may have changed."""

    state: EngineState
    actions: tuple[Action, ...]
    answer: Answer | None = None
    touched: tuple[str, ...] = ()


class KeeperView(Struct, frozen=True):
    """What the keeper says it holds: (run, attempt) → (pid, start on the monotonic clock) of live ones, and the keys of ended ones.

    ``stopping``: somebody asked for the end, and it will ask us again once we are ready; so nothing new begins. ``doubtful``: after these another
    attempt had leave to begin when the machine went down, and nobody knows whether it did.
    """

    epoch: str
    boot_id: str
    live: Mapping[tuple[RunId, int], tuple[int, Mono]]
    ended: frozenset[tuple[RunId, int]] = frozenset()
    stopping: bool = False
    doubtful: frozenset[tuple[RunId, int]] = frozenset()


def step(state: EngineState, event: Event, now: Now) -> Step:
    """One event in, the new state and the actions out."""
    match event:
        case ShutdownAsked():
            return _shutdown(state, now)
        case Reconfigured(jobs):
            return _reconfigure(state, jobs, now)
        case IncidentWish():
            return _incident_wish(state, event, now)
        case SummariesDue():
            return _summaries_due(state, now)
        case AttemptStarted() | AttemptEnded() | AttemptLost() | Breached() | Due() | Wish() | SilenceWish() | ReleaseWish():
            return _step_job(state, event, now)
        case _:
            assert_never(event)


def step_due(state: EngineState, jobs: Iterable[str], now: Now) -> Step:
    """``Due`` for each of *jobs* in their order, with one record for all of them before the first order: a commit costs for ten what it costs for one."""
    rows: list[Row] = []
    actions: list[Action] = []
    touched: list[str] = []
    durable = False
    for job in jobs:
        one = step(state, Due(job), now)
        state = one.state
        touched += one.touched
        for action in one.actions:
            if isinstance(action, Record):
                rows += action.rows
                durable = durable or action.durable
            else:
                actions.append(action)
    record = (Record(tuple(rows), durable=durable),) if rows else ()
    return Step(state, (*record, *actions), touched=tuple(touched))


_OfOneJob = AttemptStarted | AttemptEnded | AttemptLost | Breached | Due | Wish | SilenceWish | ReleaseWish


def _step_job(state: EngineState, event: _OfOneJob, now: Now) -> Step:
    job = state.jobs.get(event.job)
    if job is None:
        return Step(state, (), Answer(ok=False, text=f"there is no job {event.job!r}; `mainstay status` lists them"))
    turn = Turn(state, job, now)
    answer = None
    match event:
        case AttemptStarted():
            lifecycle.attempt_started(turn, event)
        case AttemptEnded():
            lifecycle.attempt_ended(turn, event)
        case AttemptLost():
            lifecycle.attempt_lost(turn, event)
        case Breached():
            lifecycle.breached(turn, event)
        case Due():
            _due(turn)
        case SilenceWish():
            answer = _silence(turn, event)
        case Wish():
            answer = _WISHES[event.verb](turn, event) if not state.closing else Answer(ok=False, text="Mainstay is stopping")
        case ReleaseWish():
            answer = _release(turn, event)
        case _:
            assert_never(event)
    return _close(state, turn, answer)


def _close(state: EngineState, turn: Turn, answer: Answer | None = None) -> Step:
    actions = turn.finish()
    name = turn.state.name
    jobs = dict(state.jobs)
    former, aside = state.former, state.aside
    if turn.state.removed and not turn.state.memo.runs:
        jobs.pop(name, None)
        former = MappingProxyType({**former, name: turn.state.memo})
        aside = MappingProxyType({**aside, name: turn.state.quarantine})
    else:
        jobs[name] = turn.state
    new = replace(
        state,
        jobs=MappingProxyType(jobs),
        next_run=turn.next_run,
        next_incident=turn.next_incident,
        former=former,
        crowd=turn.crowd,
        aside=aside,
    )
    if new.closing and new.is_idle:
        actions.append(Finished())
    return Step(new, tuple(actions), answer, (name,))


def _due(turn: Turn) -> None:
    memo = turn.state.memo
    over = memo.paused and memo.paused_until is not None and turn.now.wall >= memo.paused_until
    if over and not (turn.closing or turn.state.removed):  # no person has spoken: what is parked stays so
        timetable.end_pause(turn)
        turn.state = turn.state.remember(paused=False, paused_until=None, expected_since=turn.now.wall)
        lifecycle.start_if_service(turn, fresh=True)
    for run in turn.state.memo.runs:
        lifecycle.due(turn, run)
    timetable.due(turn)
    _overdue(turn)
    if turn.state.calm_at is not None and turn.now.wall >= turn.state.calm_at:
        lifecycle.recover(turn, f"it has been well for {format_duration(incidents.CALM_S)}", for_good=True)
    changed, notifications = incidents.remind(turn.state.incidents, turn.state.job, turn.now.wall)
    if changed:
        sent = turn.incidents(changed, notifications)
        for incident in changed if sent else ():
            turn.tell(TellIncident(incident, "reminded", len(sent)))
    turn.dispatch_due()


def _overdue(turn: Turn) -> None:
    """No success for too long: an incident like any other, closed by the next success."""
    at = turn.state.overdue_at
    if at is None or turn.now.wall < at or turn.closing:
        return
    job, memo, now = turn.state.job, turn.state.memo, turn.now.wall
    verdict = overdue.verdict(job, memo.last_success_at, memo.expected_since or memo.configured_at, now)
    run = memo.last.run if memo.last is not None else 0
    changed, notifications, turn.next_incident = incidents.observe(
        turn.state.incidents, job, verdict, run, max(memo.failures_in_row, job.alerts.after), now, turn.next_incident, past=memo.past
    )
    sent = turn.incidents(changed, notifications)
    for incident in changed:
        turn.tell(TellIncident(incident, "opened", len(sent)))


# ---------------------------------------------------------------- an operator's wishes


def _running_text(turn: Turn) -> str:
    runs = ", ".join(f"run {run.id}" for run in turn.state.memo.runs)
    return f"{turn.state.name} is {turn.state.state.value} already ({runs})"


def _unblock(turn: Turn) -> None:
    if turn.state.memo.paused:
        turn.state = turn.state.remember(expected_since=turn.now.wall)
    turn.state = turn.state.remember(paused=False, paused_until=None, parked=None, restarts=(), course=Course())


def _refusal(turn: Turn) -> Answer | None:
    """Why nothing of this job can be started, whatever is asked."""
    if turn.state.removed:
        return Answer(ok=False, text=f"{turn.state.name} is no longer in the config, and is only ending; put it back and reload")
    if not turn.state.job.enabled:
        return Answer(ok=False, text=f"{turn.state.name} is disabled in the config; set enabled: true and reload")
    return None


def _begin(turn: Turn, *, stays_paused: bool = False) -> Answer:
    if (refusal := _refusal(turn)) is not None:
        return refusal
    paused, until = (turn.state.memo.paused, turn.state.memo.paused_until) if stays_paused else (False, None)
    _unblock(turn)
    turn.state = turn.state.remember(paused=paused, paused_until=until)
    run = lifecycle.start_run(turn, Trigger.REQUEST)
    once = f"; it runs once and stays paused until `mainstay start {turn.state.name}`" if paused else ""
    return Answer(ok=True, text=f"{turn.state.name}: run {run.id} started{once}", run=run.id)


def _wish_start(turn: Turn, wish: Wish) -> Answer:
    stopping = any(run.stop is not None for run in turn.state.memo.runs)
    if stopping and (refusal := _refusal(turn)) is not None:
        return refusal
    if turn.state.memo.runs and not stopping:
        _unblock(turn)
        return Answer(ok=True, text=_running_text(turn))
    if not turn.state.job.schedule.is_timed:
        return _wish_restart(turn, wish) if stopping else _begin(turn)
    _unblock(turn)
    fire = turn.state.next_start
    when = f"next fire time {fire:%Y-%m-%d %H:%M:%S} UTC" if fire is not None else "it has no further fire time"
    return Answer(ok=True, text=f"{turn.state.name} goes by its schedule again; {when}")


def _wish_trigger(turn: Turn, _wish: Wish) -> Answer:
    if turn.state.memo.runs:
        return Answer(ok=False, text=_running_text(turn) + "; `mainstay restart` replaces it")
    return _begin(turn, stays_paused=True)


def _wish_stop(turn: Turn, _wish: Wish) -> Answer:
    turn.state = turn.state.remember(paused=True, paused_until=None)
    timetable.drop_backlog(turn, SkipReason.STOPPED)
    for run in turn.state.memo.runs:
        lifecycle.stop_run(turn, run, StopReason.OPERATOR)
    return Answer(ok=True, text=f"{turn.state.name} stops and stays stopped until `mainstay start {turn.state.name}`")


def _wish_restart(turn: Turn, _wish: Wish) -> Answer:
    if not turn.state.memo.runs:
        return _begin(turn)
    if (refusal := _refusal(turn)) is not None:
        return refusal
    _unblock(turn)
    lifecycle.restart_all(turn, StopReason.OPERATOR)
    return Answer(ok=True, text=f"{turn.state.name} stops and starts again")


def _wish_pause(turn: Turn, wish: Wish) -> Answer:
    memo = turn.state.memo
    if wish.until is not None and memo.paused and memo.paused_until is None:  # it may have been stopped, for a reason that has no hour
        text = f"{turn.state.name} is stopped or paused already, without an end, and stays so until `mainstay start {turn.state.name}`"
        return Answer(ok=True, text=text)
    turn.state = turn.state.remember(paused=True, paused_until=wish.until)
    for run in turn.state.memo.runs:
        lifecycle.hold(turn, run)
    until = f"until {wish.until:%Y-%m-%d %H:%M:%S} UTC" if wish.until else f"until `mainstay resume {turn.state.name}`"
    return Answer(ok=True, text=f"{turn.state.name} is paused {until}; a run that is going on is left alone and not restarted")


def _wish_resume(turn: Turn, _wish: Wish) -> Answer:
    _resume(turn)
    return Answer(ok=True, text=f"{turn.state.name} is no longer paused")


def _resume(turn: Turn) -> None:
    _unblock(turn)
    if turn.state.job.schedule.is_service and turn.state.job.enabled and not turn.state.memo.runs:
        lifecycle.start_run(turn, Trigger.STARTUP)


_WISHES: Final[Mapping[Verb, Callable[[Turn, Wish], Answer]]] = {
    Verb.START: _wish_start,
    Verb.STOP: _wish_stop,
    Verb.RESTART: _wish_restart,
    Verb.TRIGGER: _wish_trigger,
    Verb.PAUSE: _wish_pause,
    Verb.RESUME: _wish_resume,
}


def _silence(turn: Turn, wish: SilenceWish) -> Answer:
    """A silence begins, or all of the job's end. What was held back goes out at once if nothing else holds it."""
    name, desk, now = turn.state.name, turn.state.memo.desk, turn.now.wall
    if wish.for_s is None:
        if not silences.standing(desk.silences, now):
            return Answer(ok=False, text=f"{name} is not silenced")
        turn.state = turn.state.remember(desk=replace(desk, silences=silences.expired(desk.silences, now)))
        turn.tell(TellSilenced(name, None))
        turn.dispatch_due()
        left = silences.quiet(turn.state.job, turn.state.memo.desk.silences, now)
        return Answer(ok=True, text=f"{name} is no longer silenced{f', but quiet still: {left.why}' if left else ''}")
    try:
        made = silences.added(desk.silences, now, wish.for_s, wish.comment)
    except ValueError as err:
        return Answer(ok=False, text=f"{name}: {err}")
    turn.state = turn.state.remember(desk=replace(desk, silences=made))
    turn.tell(TellSilenced(name, made[-1].ends_at, made[-1].comment))
    turn.dispatch_due()
    until = f"{made[-1].ends_at:%Y-%m-%d %H:%M:%S} UTC"
    return Answer(ok=True, text=f"nobody is alerted about {name} until {until}; `mainstay silence {name} --expire` ends it")


def _incident_wish(state: EngineState, wish: IncidentWish, now: Now) -> Step:
    summary = next((one for one in state.summaries.values() if one.id == wish.incident), None)
    if summary is not None:
        return _summary_wish(state, summary, wish, now)
    for job in state.jobs.values():
        incident = next((one for one in job.incidents if one.id == wish.incident), None)
        if incident is not None:
            return _wish_about(state, job, (incident,), wish, now, f"incident {incident.id} ({job.name}) is {_word(wish)}")
    return Step(state, (), Answer(ok=False, text=f"there is no open incident {wish.incident}; `mainstay incidents` lists them"))


def _word(wish: IncidentWish) -> str:
    return "closed" if wish.resolve else "acknowledged"


def _wish_about(state: EngineState, job: JobState, found: tuple[Incident, ...], wish: IncidentWish, now: Now, text: str = "") -> Step:
    """What a person said of incidents of one job."""
    turn = Turn(state, job, now)
    for incident in found:
        if wish.resolve:
            changed, notifications = incidents.resolve(incident, job.job, now.wall, who=wish.who, note=wish.note, fix=wish.fix)
        else:
            changed, notifications = incidents.acknowledge(incident, job.job, now.wall, who=wish.who, note=wish.note)
        sent = turn.incidents(changed, notifications)
        for one in changed:
            turn.tell(TellIncident(one, _word(wish), len(sent)))
    return _close(state, turn, Answer(ok=True, text=text))


# ---------------------------------------------------------------- summaries of many incidents


def _summary_wish(state: EngineState, summary: Incident, wish: IncidentWish, now: Now) -> Step:
    """What a person says of a summary holds for all that is in it."""
    receiver, count = receiver_of(summary), 0
    actions: list[Action] = []
    touched: list[str] = []
    for name in tuple(state.jobs):
        found = tuple(one for one in state.jobs[name].incidents if receiver in one.gathered)
        if found:
            done = _wish_about(state, state.jobs[name], found, wish, now)
            state, actions, count = done.state, [*actions, *_unfinished(done)], count + len(found)
            touched.append(name)
    if not wish.resolve:
        known, _ = incidents.acknowledge(summary, Job(EVERYONE, Launch((), "/")), now.wall, who=wish.who, note=wish.note)
        if known:
            state = replace(state, summaries=MappingProxyType({**state.summaries, receiver: known[0]}))
            actions.append(Record(known))
    text = f"summary {summary.id}: {count} incidents are {_word(wish)}"
    return Step(state, tuple(actions), Answer(ok=True, text=text), tuple(touched))


def _summaries_due(state: EngineState, now: Now) -> Step:
    due_at = state.crowd.due_at()
    if due_at is None or due_at > now.wall:
        return Step(state, ())
    everything = (incident for job in state.jobs.values() for incident in job.incidents)
    made = summarize(state.crowd, everything, state.summaries, now.wall, state.next_incident)
    standing = {**state.summaries, **{receiver_of(one): one for one in made.summaries}}
    open_ = {receiver: one for receiver, one in standing.items() if one.closed_at is None}
    new = replace(state, crowd=made.crowd, summaries=MappingProxyType(open_), next_incident=made.next_id)
    tells: list[Action] = []
    for one in made.summaries:
        what = "closed" if one.closed_at is not None else "seen" if receiver_of(one) in state.summaries else "summed_up"
        tells.append(TellIncident(one, what, sum(each.incident == one.id for each in made.notifications)))
    record = Record((*made.summaries, *made.notifications, JobMemo(MEMO, made.crowd.encode())))
    return Step(new, (record, *tells))


def _release(turn: Turn, wish: ReleaseWish) -> Answer:
    record = next((one for one in turn.state.quarantine if one.key == wish.key), None)
    if record is None:
        return Answer(
            ok=False, text=f"{turn.state.name} has no such record in quarantine; `mainstay quarantine {turn.state.name}` lists them"
        )
    turn.quarantine(replace(record, released_at=turn.now.wall, released_because=wish.because))
    left = len(turn.state.quarantine)
    return Answer(
        ok=True, text=f"the record is released; the next attempt of {turn.state.name} is given it again ({left} left in quarantine)"
    )


# ---------------------------------------------------------------- all jobs at once


def _shutdown(state: EngineState, now: Now) -> Step:
    state = replace(state, closing=True)
    actions: list[Action] = []
    for name in tuple(state.jobs):
        turn = Turn(state, state.jobs[name], now)
        for run in turn.state.memo.runs:
            lifecycle.stop_run(turn, run, StopReason.SHUTDOWN)
        done = _close(state, turn)
        state = done.state
        actions += _unfinished(done)
    return Step(state, (*actions, *_finish(state)), touched=tuple(state.jobs))


def _unfinished(done: Step) -> list[Action]:
    """The actions for one of several jobs: whether all is finished is said once, at the end."""
    return [action for action in done.actions if not isinstance(action, Finished)]


def _finish(state: EngineState) -> tuple[Action, ...]:
    return (Finished(),) if state.closing and state.is_idle else ()


def _reconfigure(state: EngineState, jobs: Mapping[str, Job], now: Now) -> Step:
    actions: list[Action] = []
    touched = [*state.jobs, *(name for name in jobs if name not in state.jobs)]
    for name in touched:
        job = jobs.get(name)
        old = state.jobs.get(name)
        turn = Turn(state, old if old is not None else JobState(_must(job), Memo(now.wall), quarantine=state.aside.get(name, ())), now)
        if job is None:
            _remove(turn)
        elif old is None:
            _add(turn, state.former.get(name))
        elif old.removed or old.job != job:
            _change(turn, old, job)
        done = _close(state, turn)
        state, actions = done.state, [*actions, *_unfinished(done)]
    return Step(state, (*actions, *_finish(state)), touched=tuple(touched))


def _add(turn: Turn, former: Memo | None) -> None:
    """A job that was there before begins afresh, except that no fire time of it runs a second time."""
    turn.state = turn.state.remember(boot_id=turn.boot_id, epoch=turn.epoch)
    if former is not None and former.last_slot is not None:
        turn.state = turn.state.remember(last_slot=former.last_slot, lived=former.lived)
        timetable.count_from_now(turn)
    _mind_schedule(turn)
    lifecycle.start_if_service(turn)


def _must(job: Job | None) -> Job:
    if job is None:  # a name is in the old jobs or in the new ones
        raise AssertionError
    return job


def _remove(turn: Turn) -> None:
    turn.state = replace(turn.state, removed=True)
    _mind_schedule(turn)
    for run in turn.state.memo.runs:
        lifecycle.stop_run(turn, run, StopReason.RELOAD)
    timetable.drop_backlog(turn, SkipReason.STOPPED)
    because = "the drill is over" if turn.state.job.drill else "the job was removed from the config"
    lifecycle.recover(turn, because, for_good=True)


def _close_of_disabled(turn: Turn) -> None:
    """Nothing of it begins until it is enabled, so no good end of it could close its incidents."""
    if turn.state.incidents:
        lifecycle.recover(turn, "the job was disabled", for_good=True)


def _mind_schedule(turn: Turn) -> None:
    """What a schedule would have done before it was this job's, or while the job was disabled or not in the config, is nobody's business."""
    memo, timing = turn.state.memo, schedule.name_of(turn.state.job.schedule.when)
    is_away = turn.state.removed or not turn.state.job.enabled
    if not is_away and (memo.away or memo.timing not in ("", timing)):
        timetable.count_from_now(turn)
    if (memo.away, memo.timing) != (is_away, timing):
        turn.state = turn.state.remember(away=is_away, timing=timing)


def _change(turn: Turn, before: JobState, new: Job) -> None:
    """A run goes on, and ends, with the config that it began with; a service whose process would differ is restarted."""
    old, was_off = before.job, before.removed or not before.job.enabled
    live = {run.id: turn.state.job_of(run.id) for run in turn.state.memo.runs}
    turn.state = replace(turn.state, job=new, removed=False, kept=MappingProxyType(live))
    if was_off or old.expect.success_every_s is None:
        turn.state = turn.state.remember(expected_since=turn.now.wall)
    if (old.heal, old.launch) != (new.heal, new.launch):
        turn.state = turn.state.remember(course=Course())
    _mind_schedule(turn)
    if not new.enabled:
        timetable.drop_backlog(turn, SkipReason.STOPPED)
        for run in turn.state.memo.runs:
            lifecycle.stop_run(turn, run, StopReason.RELOAD)
        _close_of_disabled(turn)
    elif turn.state.memo.runs and new.schedule.is_service and (restarts_running(old, new) or was_off):
        if turn.state.memo.paused:
            for run in turn.state.memo.runs:
                lifecycle.stop_run(turn, run, StopReason.RELOAD)
        else:
            lifecycle.restart_all(turn, StopReason.RELOAD)
    else:
        last = turn.state.memo.last  # whoever edits one that has failed wants to see whether it does better
        has_failed = last is not None and last.outcome.is_bad
        lifecycle.start_if_service(turn, fresh=was_off or has_failed or not old.schedule.is_service)
    turn.dispatch_due()  # a window may have gone


# ---------------------------------------------------------------- after a restart of the brain


def restore(
    jobs: Mapping[str, Job],
    memos: Mapping[str, Memo],
    open_incidents: Mapping[str, tuple[Incident, ...]],
    next_ids: tuple[int, int],
    keeper: KeeperView,
    now: Now,
    crowd: Crowd | None = None,
    quarantined: Mapping[str, tuple[QuarantinedRecord, ...]] | None = None,
) -> Step:
    """The state that the last brain left behind, held against what the keeper holds. *crowd* is what ``core.crowd`` remembers.

    Each live run of the memos is in exactly one of these positions: its attempt lives (adopted), has ended (the daemon feeds the
    exit record as an event next), was never asked for (asked for now: same run, same attempt), or died unseen with an earlier keeper or
    an earlier boot (lost). Attempts of the keeper that no memo knows (the history was broken) are killed.
    """
    former = {name: memo for name, memo in memos.items() if name not in jobs and not memo.runs}
    standing = {receiver_of(one): one for one in open_incidents.get(EVERYONE, ())}
    open_incidents = {name: found for name, found in open_incidents.items() if name != EVERYONE}
    held = quarantined or {}
    aside = {name: records for name, records in held.items() if name not in jobs}
    state = EngineState(
        MappingProxyType({}),
        next_ids[0],
        next_ids[1],
        keeper.boot_id,
        keeper.epoch,
        keeper.stopping,
        MappingProxyType(former),
        crowd or Crowd(),
        MappingProxyType(standing),
        MappingProxyType(aside),
    )
    left = [name for name, memo in former.items() if not memo.away and name not in open_incidents]
    away = tuple(JobMemo(name, replace(former[name], away=True).encode()) for name in left)
    actions: list[Action] = [Record(away)] if away else []
    touched = left
    gone = [name for name in {**memos, **open_incidents} if name not in jobs and (name in open_incidents or memos[name].runs)]
    for name in [*jobs, *gone]:
        memo = memos.get(name) or Memo(now.wall)
        job = jobs.get(name)
        base = JobState(job or _gone(name), memo, open_incidents.get(name, ()), removed=job is None, quarantine=held.get(name, ()))
        turn = Turn(state, base, now)
        if memo.boot_id != keeper.boot_id:
            _forget_boot(turn)
        for run in memo.runs:
            _restore_run(turn, turn.state.run(run.id) or run, memo, keeper)
        was_down = name in memos and memo.epoch != keeper.epoch
        if was_down:  # its jobs get their time again before their silence is a problem
            turn.state = turn.state.remember(expected_since=now.wall)
        turn.state = turn.state.remember(boot_id=keeper.boot_id, epoch=keeper.epoch)
        if job is None:
            _remove(turn)
        else:
            _mind_schedule(turn)
            if not job.enabled:
                _close_of_disabled(turn)
            lifecycle.start_if_service(turn, fresh=memo.epoch != keeper.epoch)
        done = _close(state, turn)
        state, actions, touched = done.state, [*actions, *_unfinished(done)], [*touched, name]
    known = {(run.id, run.attempt) for job_state in state.jobs.values() for run in job_state.memo.runs}
    known |= {(run.id, run.attempt) for memo in memos.values() for run in memo.runs}
    for run_id, attempt in sorted(keeper.ended & known):  # what the keeper began after these is theirs
        while (run_id, attempt) in keeper.ended:
            attempt += 1  # noqa: PLW2901 - from one to the next
            known.add((run_id, attempt))
    actions += [KillTree("", run_id, attempt, "unknown") for run_id, attempt in keeper.live if (run_id, attempt) not in known]
    return Step(state, tuple(actions), touched=tuple(touched))


def _gone(name: str) -> Job:
    return Job(name, Launch(("gone",), "/"), enabled=False)


def _forget_boot(turn: Turn) -> None:
    """Monotonic times of another boot mean nothing: what waited is due, what counted is forgotten."""
    now = turn.now.mono
    runs = (replace(run, begun_at=None, deadline=None if run.deadline is None else now) for run in turn.state.memo.runs)
    turn.state = turn.state.remember(restarts=(), runs=tuple(runs))


def _restore_run(turn: Turn, run: LiveRun, memo: Memo, keeper: KeeperView) -> None:
    """*memo* is the job's as it was found: an attempt that another run begins here and now is of the present keeper."""
    key = (run.id, run.attempt)
    same_keeper = memo.epoch == keeper.epoch
    if key in keeper.live:
        lifecycle.adopt(turn, run, *keeper.live[key])
    elif key in keeper.ended:
        # Stopped with the Mainstay before this one, it starts with this one, as if its end had been written then.
        job = turn.state.job
        again = not same_keeper and run.stop is not StopReason.OPERATOR and job.schedule.is_service and not memo.paused
        turn.put(replace(run, then_start=run.then_start or again))
    elif not run.is_alive:
        pass  # it waits for its next attempt
    elif same_keeper and run.phase is State.STARTING:
        lifecycle.ask_for_start(turn, run)
    else:
        rebooted = memo.boot_id != keeper.boot_id
        why = "the machine was rebooted" if rebooted else "both halves of Mainstay died, and the job with them"
        lifecycle.attempt_lost(turn, AttemptLost(turn.state.name, run.id, run.attempt, why, key in keeper.doubtful))


def earliest(state: EngineState) -> tuple[Mono | None, Wall | None]:
    """The next deadline of any job on each of the two clocks; for tests and simulators (the daemon keeps a heap)."""
    monos = [mono for job in state.jobs.values() if (mono := job.mono_deadline()) is not None]
    walls = [wall for job in state.jobs.values() if (wall := job.wall_deadline(closing=state.closing)) is not None]
    summary = state.crowd.due_at()
    walls += [summary] if summary is not None else []
    return min(monos, default=None), min(walls, default=None)
