"""The life of one run: attempts begin, end, are judged, wait, begin again, until the run is over.

    (trigger) ──▶ STARTING ──▶ RUNNING ──▶ [judged] ──▶ run over
                     │            │            │
                     └──▶ STOPPING ┴──▶ ───────┴──▶ BACKING_OFF ──▶ STARTING

An operator's stop, a breach and the job's own end all lead to the same place: ``attempt_ended``, where the evidence says which it was.
"""

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from supervisor.core import dossier, heal, incidents, outcome, restart, silences
from supervisor.core.actions import (
    Arm,
    AskToStop,
    Disarm,
    KillTree,
    StartAttempt,
    TellAttemptEnded,
    TellCommandEnded,
    TellHealing,
    TellIncident,
    TellParked,
    TellRunEnded,
)
from supervisor.core.events import AttemptEnded, AttemptLost, AttemptStarted, Breached
from supervisor.core.evidence import Evidence, Exit, Verdict
from supervisor.core.jitter import unit
from supervisor.core.jobs import Expect, Job, Overlap, RestartWhen
from supervisor.core.model import Incident, LimitName, Mono, Outcome, State, Trigger, Wall
from supervisor.core.prose import clean, counted
from supervisor.core.records import AttemptPhase, AttemptRow, GoodRow, QuarantinedRecord, RunRow, SlotResult, SlotRow
from supervisor.core.remedy import NAMES, Park, RunCommand, SetAside, TryAgain
from supervisor.core.state import Last, LiveRun, StopReason
from supervisor.core.turn import Turn
from supervisor.core.units import format_duration

KILL_FOR_STOP: Final = "stop"
LATE_S: Final = 60.0


def start_run(turn: Turn, trigger: Trigger, slot: Wall | None = None) -> LiveRun:
    """A new run and its first attempt."""
    run = LiveRun(turn.next_run, trigger, slot, turn.now.wall, State.STARTING, begun_at=turn.now.mono)
    turn.next_run += 1
    if slot is not None:
        late = (turn.now.wall - slot).total_seconds() > LATE_S + turn.state.job.schedule.jitter_s
        turn.write(
            SlotRow(turn.state.name, slot, SlotResult.LATE if late and trigger is Trigger.SCHEDULE else SlotResult.RAN, None, run.id)
        )
    return begin_attempt(turn, run)


def begin_attempt(turn: Turn, run: LiveRun, *, begun: bool = False) -> LiveRun:
    """The next child of this run: its intent is written down durably before the keeper is asked.

    With *begun* the keeper has started it by itself; then the exit record of the one before it was the intent.
    """
    run = replace(
        run,
        attempt=run.attempt + 1,
        phase=State.STARTING,
        attempt_at=turn.now.mono,
        attempt_wall=turn.now.wall,
        pid=None,
        deadline=None,
        killed=False,
    )
    ask_for_start(turn, run, begun=begun)
    if run.stop is not None:  # it was begun in the moment in which somebody asked for the end of the one before it
        policy = turn.state.job_of(run.id).stop
        run = replace(run, phase=State.STOPPING, deadline=Mono(turn.now.mono + policy.grace_s))
        turn.put(run)
        turn.order(AskToStop(turn.state.name, run.id, run.attempt, policy.signal))
    return run


def adopt(turn: Turn, run: LiveRun, pid: int, started: Mono) -> None:
    """Its child outlived the last brain. What that one may have died before asking for is asked for again."""
    stopping = run.stop is not None
    deadline = (turn.now.mono if run.deadline is None else run.deadline) if stopping else None
    adopted = replace(
        run, phase=State.STOPPING if stopping else State.RUNNING, pid=pid, attempt_at=started, deadline=deadline, killed=False
    )
    turn.put(adopted)
    if run.phase is State.STARTING:
        turn.write(_attempt_row(turn, adopted, AttemptPhase.STARTED))
    if stopping:
        turn.order(AskToStop(turn.state.name, run.id, run.attempt, turn.state.job_of(run.id).stop.signal))


def ask_for_start(turn: Turn, run: LiveRun, *, begun: bool = False) -> None:
    """Write the intent and ask the keeper; also for an intent that never reached it. Of one that has *begun* nothing is asked."""
    turn.put(run)
    turn.state = turn.state.remember(last_start_at=turn.now.wall, boot_id=turn.boot_id, epoch=turn.epoch)
    turn.write(_run_row(turn, run))
    turn.write(_attempt_row(turn, run, AttemptPhase.INTENDED))
    turn.durable = True
    aside = tuple(record.key for record in turn.state.quarantine)
    turn.order(StartAttempt(turn.state.started_as(run.id), run.id, run.attempt, run.trigger, run.slot, aside, begun))


def attempt_started(turn: Turn, event: AttemptStarted) -> None:
    """The keeper says that the child runs."""
    run = _current(turn, event.run, event.attempt)
    if run is None:
        return
    stopping = run.phase is State.STOPPING
    run = replace(run, pid=event.pid, attempt_at=event.at, phase=State.STOPPING if stopping else State.RUNNING)
    turn.put(run)
    turn.write(_attempt_row(turn, run, AttemptPhase.STARTED))
    if stopping:  # the signal may have come before there was anybody to hear it
        turn.order(AskToStop(turn.state.name, run.id, run.attempt, turn.state.job_of(run.id).stop.signal))
    else:
        _arm(turn, run)


def _arm(turn: Turn, run: LiveRun) -> None:
    """Where another attempt is certain to follow at once, the keeper need not ask when the time comes (decision 0015).

    Only of a service: runs of another job can overlap, and they share one budget.
    """
    job, memo = turn.state.job_of(run.id), turn.state.memo
    may_end = run.stop is not None or run.errand is not None or turn.closing or turn.state.removed or memo.paused or job.drill
    may_change = turn.state.quarantine or heal.may_step_in(job.heal, memo.course)
    if not job.schedule.is_service or may_end or may_change:
        return
    if restart.follows_at_once(job.restart, memo.restarts, turn.now.mono):
        not_after = frozenset() if job.restart.when is RestartWhen.ALWAYS else job.expect.success_exit_codes
        turn.order(Arm(job, run.id, run.attempt + 1, run.slot, not_after))


def breached(turn: Turn, event: Breached) -> None:
    """A hard limit: the tree is killed at once; it already stands still."""
    run = _current(turn, event.run, event.attempt)
    if run is not None and not run.killed:
        turn.put(replace(run, killed=True))
        turn.order(KillTree(turn.state.name, run.id, run.attempt, event.breach.limit.value))


def stop_run(turn: Turn, run: LiveRun, reason: StopReason, *, then_start: bool = False) -> None:
    """Ask a run to end. A run between two attempts is over at once. Of an operator's wishes the last one counts."""
    again = then_start or (run.then_start and reason is not StopReason.OPERATOR)
    run = replace(run, stop=run.stop or reason, then_start=again)
    turn.put(run)
    if run.phase is State.BACKING_OFF:
        _end_run(turn, run, Verdict(Outcome.STOPPED, "it was stopped while it waited for its next attempt"))
    elif run.phase is not State.STOPPING:
        policy = turn.state.job_of(run.id).stop
        turn.put(replace(run, phase=State.STOPPING, deadline=Mono(turn.now.mono + policy.grace_s)))
        turn.order(AskToStop(turn.state.name, run.id, run.attempt, policy.signal))


def restart_all(turn: Turn, reason: StopReason) -> None:
    """Ask every run to end, and have one begin after the last of them."""
    for run in turn.state.memo.runs:
        turn.put(replace(run, then_start=True))
    for run in turn.state.memo.runs:
        stop_run(turn, run, reason, then_start=True)


def hold(turn: Turn, run: LiveRun) -> None:
    """The job was paused: a run between two attempts is over, one that is going on is left alone, and nothing follows either."""
    run = replace(run, then_start=False)
    turn.put(run)
    if run.phase is State.BACKING_OFF:
        _end_run(turn, run, Verdict(Outcome.STOPPED, "it was paused while it waited for its next attempt"))
    elif run.phase is State.RUNNING:
        turn.order(Disarm(turn.state.name, run.id, run.attempt))


def due(turn: Turn, run: LiveRun) -> None:
    """The run's own deadlines: the end of a wait, the end of a grace, a service that has proved stable."""
    if run.deadline is not None and turn.now.mono >= run.deadline:
        if run.phase is State.BACKING_OFF:
            begin_attempt(turn, run)
        elif run.phase is State.STOPPING:
            turn.put(replace(run, deadline=None, killed=True))
            turn.order(KillTree(turn.state.name, run.id, run.attempt, KILL_FOR_STOP))
    job = turn.state.job_of(run.id)
    stable = run.phase is State.RUNNING and turn.now.mono >= run.attempt_at + job.restart.stable_s  # added up as its deadline was
    if stable and job.schedule.is_service and turn.state.awaits_recovery:
        turn.state = turn.state.remember(failures_in_row=0)
        recover(turn, f"it has run for {format_duration(job.restart.stable_s)}")


def attempt_lost(turn: Turn, event: AttemptLost) -> None:
    """Nobody saw how it ended."""
    run = _current(turn, event.run, event.attempt)
    if run is None:
        return
    verdict = Verdict(Outcome.LOST, f"how it ended cannot be known: {event.why}", evidence=(event.why,))
    begun = run.attempt_wall or run.started_at
    lived = max(0.0, (turn.now.wall - begun).total_seconds())  # at most: it may have died long before anybody came to look
    ended = AttemptEnded(turn.state.name, run.id, run.attempt, Evidence(Exit(), duration_s=lived), begun, turn.now.wall)
    (_settle if run.errand is None else _settle_errand)(turn, run, ended, verdict)
    waiting = turn.state.run(event.run)
    if (
        event.doubtful and waiting is not None and waiting.phase is State.BACKING_OFF
    ):  # that number may be used: the next is the one after it
        turn.put(replace(waiting, attempt=waiting.attempt + 1))


def attempt_ended(turn: Turn, event: AttemptEnded) -> None:
    """Judge it, and decide what follows."""
    run = _current(turn, event.run, event.attempt)
    if run is None:
        return
    if run.errand is not None:
        _settle_errand(turn, run, event, outcome.judge(turn.state.started_as(run.id).limits, Expect(), event.evidence))
        return
    job = turn.state.job_of(run.id)
    _settle(turn, run, event, outcome.judge(job.limits, job.expect, event.evidence))


def recover(turn: Turn, because: str, *, for_good: bool = False) -> None:
    """The job is well again: its incidents close, unless one flaps; *for_good*: those too."""
    memo, now = turn.state.memo, turn.now.wall
    held = () if for_good else incidents.held(turn.state.incidents, memo.past)
    turn.state = turn.state.remember(well_since=min(memo.well_since or now, now) if held else None)
    for incident in held if memo.well_since is None else ():
        turn.tell(TellIncident(incident, "held", 0))
    ending = [incident for incident in turn.state.incidents if incident not in held]
    changed, notifications = incidents.recover(ending, turn.state.job, now, because)
    sent = turn.incidents(changed, notifications)
    for incident in changed:
        turn.tell(TellIncident(incident, "closed", len(sent)))


# ---------------------------------------------------------------- the end of an attempt


def _settle(turn: Turn, run: LiveRun, event: AttemptEnded, verdict: Verdict) -> None:
    job = turn.state.job_of(run.id)
    verdict = replace(verdict, fingerprint=verdict.fingerprint or outcome.fingerprint_of(job.name, verdict, event.evidence))
    run = replace(
        run,
        memory_peak_bytes=max(run.memory_peak_bytes, event.evidence.memory_peak_bytes),
        cpu_s=run.cpu_s + event.evidence.exit.cpu_s,
        attempt_wall=event.started_at,
        deadline=None,
    )
    turn.put(run)
    was_asked = run.stop is not None and event.evidence.exit.asked_to_stop
    _count_failures(turn, job, verdict, event, was_asked=was_asked)
    healing = _consider(turn, run, job, verdict, event)
    decision = _decide(turn, run, job, verdict, event.evidence, healing)
    if event.followed:  # whatever would be decided now: the next attempt runs, and is this run's
        decision = restart.Restart(0.0, verdict.outcome)
    healed = _heal(turn, run, verdict, healing, decision)
    will = _will(turn, run, decision, healing)
    if event.followed and run.stop is not None:
        will = [f"end attempt {run.attempt + 1}, which began in the moment in which this one was to be stopped"]
    before = heal.told(healing.counted) if verdict.outcome.is_bad else ""
    did = [*_did(run, event, verdict), *([f"before, against the same failure: {before}"] if before else []), *healed]
    incident, told = _observe(turn, run, job, verdict, did, will, was_asked=was_asked)
    _write_end(turn, run, event, verdict, [*did, *told], will, incident)
    is_good = verdict.outcome is Outcome.SUCCEEDED or (job.schedule.is_service and event.evidence.duration_s >= job.restart.stable_s)
    if is_good and event.survey is not None:
        turn.write(GoodRow(job.name, run.id, event.ended_at, event.survey))
    wait = decision.after_s if isinstance(decision, restart.Restart) else None
    turn.tell(TellAttemptEnded(job.name, run.id, run.attempt, verdict, event.evidence, wait, decision.reason.value))
    if isinstance(decision, restart.Restart):
        _back_off(turn, run, event, verdict, decision, healing)
    else:
        _end_run(turn, run, verdict, decision)


def _settle_errand(turn: Turn, run: LiveRun, event: AttemptEnded, verdict: Verdict) -> None:
    """The command of a heal step ended, however it did: that is written down, and the job has its next attempt."""
    program = turn.state.started_as(run.id).launch.argv[0]
    if run.errand is not None:
        turn.state = turn.state.remember(course=heal.command_ended(turn.state.memo.course, run.errand[1], verdict))
    verdict = replace(verdict, summary=f"the command of a heal step, {clean(program, heal.KEY_SHOWN)}: {verdict.summary}")
    run = replace(run, attempt_wall=event.started_at, deadline=None, cpu_s=run.cpu_s + event.evidence.exit.cpu_s)
    turn.put(run)
    stays = run.stop is not None or turn.closing or turn.state.is_blocked
    wait_s = restart.backoff_s(
        turn.state.job_of(run.id).restart, max(turn.state.memo.failures_in_row, 1), unit(turn.state.name, run.attempt)
    )
    will = (
        "nothing: it was stopped, paused or parked meanwhile"
        if stays
        else f"start attempt {run.attempt + 1} in {format_duration(round(wait_s, 1))}"
    )
    _write_end(turn, run, event, verdict, _did(run, event, verdict), [will], None)
    turn.tell(TellCommandEnded(turn.state.name, run.id, run.attempt, verdict))
    run = replace(run, errand=None)
    if stays:
        _end_run(turn, run, Verdict(Outcome.STOPPED, "it was stopped, paused or parked while the command of a heal step ran"))
    else:
        _wait(turn, run, wait_s)


def _write_end(
    turn: Turn, run: LiveRun, event: AttemptEnded, verdict: Verdict, did: list[str], will: list[str], incident: Incident | None
) -> None:
    """The attempt's row is closed, with its dossier."""
    report = dossier.make_report(
        _occasion(run, turn.state.started_as(run.id), event), verdict, event.evidence, did=did, will=will, incident=incident
    )
    turn.write(
        replace(
            _attempt_row(turn, run, AttemptPhase.ENDED),
            ended_at=event.ended_at,
            outcome=verdict.outcome,
            exit_code=event.evidence.exit.code,
            signal=event.evidence.exit.signal,
            report=dossier.encode(report),
        )
    )


def _consider(turn: Turn, run: LiveRun, job: Job, verdict: Verdict, event: AttemptEnded) -> heal.Healing:
    """What is to be done about this end, beyond what the restart policy says."""
    was_well = job.schedule.is_service and heal.was_well_s(verdict.outcome, event.evidence, job.limits) >= job.restart.stable_s
    if not verdict.outcome.is_bad or run.stop is not None or turn.closing or turn.state.removed or job.drill:
        over = heal.Course() if verdict.outcome is Outcome.SUCCEEDED or was_well else turn.state.memo.course
        return heal.Healing(over, over)
    failure = heal.Failure(
        verdict.outcome,
        verdict.fingerprint,
        event.evidence.progress,
        event.ended_at,
        event.evidence.duration_s,
        heal.host_cause(verdict, event.evidence),
    )
    course = heal.course_of(job, turn.state.memo.course)
    if was_well and not heal.repeats_itself(course, failure):
        course = heal.Course()  # a service has no better end than to have lived well: what it had before is over
    if any(one.key == failure.blamed and one.at > event.started_at for one in turn.state.quarantine):
        return heal.Healing(course, course)  # it began before the record was set aside, and could not leave it out
    crowd_then = 0 if course.at is None else turn.failing_together(course.at)
    held = len(turn.state.quarantine)
    course = replace(course, under=heal.name_of(job))
    return heal.consider(job.heal, course, failure, crowd=turn.failing_together(event.ended_at), crowd_then=crowd_then, held=held)


def _heal(turn: Turn, run: LiveRun, verdict: Verdict, healing: heal.Healing, decision: restart.Decision) -> list[str]:
    """Remember what was decided, and what was done, in words. A step that needs another attempt is not taken where there will be none."""
    needs_attempt = isinstance(healing.step, RunCommand | TryAgain)
    is_refused = (needs_attempt and not isinstance(decision, restart.Restart)) or (
        isinstance(healing.step, Park) and not isinstance(decision, restart.Park)
    )
    if healing.step is None or healing.reason is None or is_refused:
        turn.state = turn.state.remember(course=healing.counted)
        return []
    turn.state = turn.state.remember(course=healing.course)
    now = turn.now.wall
    for record in [one for one in turn.state.quarantine if one.key in healing.release]:
        turn.quarantine(replace(record, released_at=now, released_because="the cause was not in the records"))
    if isinstance(healing.step, SetAside):
        turn.quarantine(
            QuarantinedRecord(
                turn.state.name, healing.record, now, run.id, run.attempt, verdict.outcome, verdict.fingerprint, verdict.summary
            )
        )
    turn.tell(TellHealing(turn.state.name, run.id, run.attempt, NAMES[type(healing.step)], healing.reason, healing.did))
    return [healing.did]


def _occasion(run: LiveRun, job: Job, event: AttemptEnded) -> dossier.Occasion:
    return dossier.Occasion(
        job.name,
        run.id,
        run.attempt,
        event.started_at,
        event.ended_at,
        job.limits,
        job.dossier,
        event.output_tail,
        dict(event.containment or {}),
        event.surroundings,
        event.changes,
    )


def _count_failures(turn: Turn, job: Job, verdict: Verdict, event: AttemptEnded, *, was_asked: bool) -> None:
    memo = turn.state.memo
    if verdict.outcome is Outcome.STOPPED:
        return
    if not verdict.outcome.is_bad:
        turn.state = turn.state.remember(failures_in_row=0, last_success_at=event.ended_at)
        return
    was_seen = verdict.outcome is not Outcome.LOST  # else how long it lived is known as "at most"
    was_stable = was_seen and event.evidence.duration_s >= job.restart.stable_s and job.schedule.is_service
    failures = memo.failures_in_row if was_asked else 1 if was_stable else memo.failures_in_row + 1
    turn.state = turn.state.remember(failures_in_row=failures, last_failure_at=event.ended_at, failure_before_at=memo.last_failure_at)


def _decide(turn: Turn, run: LiveRun, job: Job, verdict: Verdict, evidence: Evidence, healing: heal.Healing) -> restart.Decision:
    if run.stop is not None or turn.closing or turn.state.removed:
        return restart.Done(restart.DoneReason.STOPPED)
    memo, policy, step = turn.state.memo, job.restart, healing.step
    if step is not None and not isinstance(step, SetAside | Park):  # whoever wrote the step wants the attempt that it is for
        policy = replace(policy, when=RestartWhen.ON_FAILURE, retry_on=None)
    decision = restart.decide(
        policy,
        job.name,
        verdict.outcome,
        memo.restarts,
        run.attempt,
        turn.now.mono,
        failures_in_row=memo.failures_in_row,
        free=isinstance(step, SetAside),
        hosts=heal.is_refused_start(verdict, evidence),
    )
    if isinstance(step, Park) and not isinstance(decision, restart.Park):
        return restart.Park(restart.ParkReason.REPEATS)
    if job.schedule.is_timed and isinstance(decision, restart.Park) and decision.reason is restart.ParkReason.BUDGET_SPENT:
        return restart.Done(restart.DoneReason.BUDGET_SPENT)  # the next fire time is its next chance
    if memo.paused and isinstance(decision, restart.Restart):
        return restart.Done(restart.DoneReason.PAUSED)  # the run is over; the end of the pause starts a service again
    if memo.parked is not None and isinstance(decision, restart.Restart):
        return restart.Done(restart.DoneReason.PARKED)
    return decision


def _observe(
    turn: Turn, run: LiveRun, job: Job, verdict: Verdict, did: list[str], will: list[str], *, was_asked: bool
) -> tuple[Incident | None, list[str]]:
    """The incident that this end belongs to, and what people were told.

    A limit may strike within the grace of a stop: the outcome says so, but whoever asked for the end need not be woken by it. And of a job that is on its
    way out of the config an incident could never close.
    """
    if verdict.outcome is Outcome.STOPPED:
        return None, []
    if not verdict.outcome.is_bad:
        held = len(turn.state.quarantine)
        aside = f", with {counted(held, 'record')} set aside (`mainstay quarantine {job.name}`)" if held else ""
        recover(turn, f"run {run.id} succeeded{aside}")
        return None, []
    if was_asked or turn.state.removed or not turn.state.job.enabled:
        return None, ["opened no incident: it was to end anyway"]
    turn.state = turn.state.remember(well_since=None)
    known = {incident.id for incident in turn.state.incidents}
    failures, now = turn.state.memo.failures_in_row, turn.now.wall
    changed, notifications, turn.next_incident = incidents.observe(
        turn.state.incidents, job, verdict, run.id, failures, now, turn.next_incident, did=did, will=will, past=turn.state.memo.past
    )
    sent = turn.incidents(changed, notifications)
    for incident in changed:
        turn.tell(TellIncident(incident, "seen" if incident.id in known else "opened", len(sent)))
    if not changed:
        return None, []
    word = "added it to" if changed[0].id in known else "opened"
    told = f"; an alert goes to {', '.join(dict.fromkeys(one.receiver for one in sent))}" if sent else ""
    if notifications and not sent:
        reason = silences.quiet(job, turn.state.memo.desk.silences, now)
        quiet = f"nobody is alerted until {reason.until:%Y-%m-%d %H:%M} UTC: {reason.why}" if reason else ""
        told = f"; {quiet or 'too many came at once: one alert tells of them together'}"
    return changed[0], [f"{word} incident {changed[0].id}{told}"]


def _back_off(turn: Turn, run: LiveRun, event: AttemptEnded, verdict: Verdict, decision: restart.Restart, healing: heal.Healing) -> None:
    memo, begun = turn.state.memo, event.followed
    is_own = restart.counts(verdict.outcome) and not heal.is_refused_start(verdict, event.evidence)
    if begun or (is_own and not isinstance(healing.step, SetAside)):
        window = turn.state.job_of(run.id).restart.budget.within_s
        recent = tuple(at for at in memo.restarts if turn.now.mono - at <= window)
        turn.state = turn.state.remember(restarts=(*recent, turn.now.mono))
    if isinstance(healing.step, RunCommand) and not begun:
        begin_attempt(turn, replace(run, pid=None, then_start=False, errand=(verdict.outcome.value, healing.course.taken - 1)))
    else:
        _wait(turn, run, decision.after_s, begun=begun)


def _wait(turn: Turn, run: LiveRun, after_s: float, *, begun: bool = False) -> None:
    """The next attempt begins so long from now, or has *begun*."""
    waiting = replace(run, phase=State.BACKING_OFF, deadline=Mono(turn.now.mono + after_s), pid=None, then_start=begun and run.then_start)
    turn.put(waiting)
    turn.write(_run_row(turn, waiting))
    if after_s <= 0:
        begin_attempt(turn, waiting, begun=begun)


def _end_run(turn: Turn, run: LiveRun, verdict: Verdict, decision: restart.Decision | None = None) -> None:
    job, now = turn.state.job_of(run.id), turn.now.wall
    duration = turn.now.mono - run.begun_at if run.begun_at is not None else max(0.0, (now - run.started_at).total_seconds())
    row = replace(_run_row(turn, run), ended_at=now, outcome=verdict.outcome, summary=verdict.summary, duration_s=duration)
    turn.write(row)
    turn.state = turn.state.without_run(run.id).remember(
        last=Last(run.id, verdict.outcome, verdict.summary, now, duration, run.memory_peak_bytes)
    )
    turn.tell(TellRunEnded(row))
    if isinstance(decision, restart.Park) and turn.state.memo.parked is None:
        turn.state = turn.state.remember(parked=decision.reason.value)
        turn.tell(TellParked(job.name, verdict.outcome, decision.reason.value))
        for other in [one for one in turn.state.memo.runs if one.phase is State.BACKING_OFF]:
            _end_run(turn, other, Verdict(Outcome.STOPPED, f"the job was parked, for run {run.id}, while it waited for its next attempt"))
    _next_run(turn, run, was_service=job.schedule.is_service)


def _next_run(turn: Turn, run: LiveRun, *, was_service: bool) -> None:
    """A run that was waiting for the end of this one, or a service that has become wanted (again) while it was ending.

    Of several runs that end to begin anew, the last to end is followed by one.
    """
    state = turn.state
    if turn.closing or state.removed or not state.job.enabled or any(other.then_start for other in state.memo.runs):
        return
    has_room = not state.memo.runs or state.job.schedule.overlap is Overlap.ALLOW
    if run.then_start and state.memo.parked is None and has_room:
        start_run(turn, Trigger.REQUEST if run.stop is StopReason.OPERATOR else Trigger.STARTUP)
    elif state.awaits_backlog:
        take_backlog(turn)
    elif run.stop is not None or not was_service:  # whoever still wants it stopped has paused or disabled it
        start_if_service(turn, fresh=True)


def start_if_service(turn: Turn, *, fresh: bool = False) -> None:
    """A service is kept running, unless an operator or its own failures say otherwise.

    One that has ended as its policy wants no more of it begins again only with a *fresh* start of Mainstay.
    """
    memo, job = turn.state.memo, turn.state.job
    idle = not (memo.runs or memo.paused or memo.parked or turn.closing)
    ended = None if memo.last is None or memo.last.outcome is Outcome.STOPPED else memo.last.outcome
    finished = not fresh and ended is not None and restart.refusal_of(job.restart, ended) is not None
    if job.schedule.is_service and job.enabled and idle and not finished:
        start_run(turn, Trigger.STARTUP)


def take_backlog(turn: Turn) -> None:
    """Run the oldest of the fire times that wait."""
    slot, *rest = turn.state.memo.backlog
    turn.state = turn.state.remember(backlog=tuple(rest))
    start_run(turn, Trigger.SCHEDULE, slot)


# ---------------------------------------------------------------- words


def _did(run: LiveRun, event: AttemptEnded, verdict: Verdict) -> list[str]:
    facts = event.evidence.exit
    did: list[str] = []
    if facts.killed_for == KILL_FOR_STOP:
        did.append("asked it to stop and, after its grace, killed it")
    elif facts.killed_for is not None:
        did.append(f"stopped all of its processes, looked at them, then killed them (limit: {facts.killed_for})")
    elif facts.asked_to_stop:
        did.append("asked it to stop")
    if facts.leftovers:
        did.append(f"ended {facts.leftovers} processes that it had left behind")
    if facts.unkillable:
        did.append(f"could not end {', '.join(map(str, facts.unkillable))}: the kernel does not let go of them")
    if verdict.limit is LimitName.RECURSION and facts.killed_for is None:
        did.append("held Python's own recursion limit at the job's, so that it ended there and not in the memory of the machine")
    elif verdict.outcome.is_bad and verdict.outcome is not Outcome.LAUNCH_FAILED and not did:
        did.append("kept its output and reports")
    if run.attempt > 1:
        did.append(f"this was attempt {run.attempt} of run {run.id}")
    return did


def _will(turn: Turn, run: LiveRun, decision: restart.Decision, healing: heal.Healing) -> list[str]:
    name = turn.state.name
    if isinstance(decision, restart.Restart):
        if isinstance(healing.step, RunCommand):
            program = clean(healing.step.argv[0], heal.KEY_SHOWN)
            return [f"run {program} as attempt {run.attempt + 1}, then start attempt {run.attempt + 2}"]
        without = f", without that record (`mainstay quarantine {name}`)" if isinstance(healing.step, SetAside) else ""
        return [f"start attempt {run.attempt + 1} in {format_duration(round(decision.after_s, 1))}{without}"]
    if isinstance(decision, restart.Park):
        return [f"nothing more: the job is parked ({decision.reason.value}) until `mainstay start {name}`"]
    if turn.state.removed or not turn.state.job.enabled:
        return [f"nothing: {name} is {'no longer in the config' if turn.state.removed else 'disabled in the config'}"]
    fire = turn.state.next_start
    memo = turn.state.memo
    if memo.parked is not None:
        return [f"nothing more: the job is parked ({memo.parked}) until `mainstay start {name}`"]
    if turn.closing and turn.state.job.schedule.is_service and not memo.paused:
        return ["start it again when Mainstay starts again"]
    if run.then_start and not turn.closing:
        return ["start it again at once, as a new run"]
    if run.stop is StopReason.REPLACED:
        return ["nothing more of this run: the next one takes its place"]
    if memo.paused and memo.paused_until is not None:
        return [f"nothing until its pause ends at {memo.paused_until:%Y-%m-%d %H:%M:%S} UTC, or `mainstay resume {name}`"]
    if memo.paused or run.stop is StopReason.OPERATOR:
        return [f"nothing until `mainstay start {name}`"]
    if fire is not None:
        reason = _NO_RESTART.get(decision.reason)
        why = f" ({reason(turn.state.job_of(run.id))})" if reason else ""
        return [f"run it again at its next fire time, {fire:%Y-%m-%d %H:%M:%S} UTC{why}"]
    return [f"nothing until it is asked to: `mainstay trigger {name}`"]


_NO_RESTART: Final[dict[restart.DoneReason, Callable[[Job], str]]] = {
    restart.DoneReason.NEVER: lambda _job: "restart.when is never",
    restart.DoneReason.NOT_RETRIED: lambda _job: "this outcome is not in restart.retry_on",
    restart.DoneReason.BUDGET_SPENT: lambda job: (
        f"the budget of {job.restart.budget.restarts} restarts within {format_duration(job.restart.budget.within_s)} is spent"
    ),
}


# ---------------------------------------------------------------- rows


def _current(turn: Turn, run_id: int, attempt: int) -> LiveRun | None:
    """The run, if this attempt is its present one: an event of an earlier one is old news."""
    run = turn.state.run(run_id)
    return run if run is not None and run.attempt == attempt and run.is_alive else None


def _run_row(turn: Turn, run: LiveRun) -> RunRow:
    return RunRow(
        id=run.id,
        job=turn.state.name,
        trigger=run.trigger,
        slot=run.slot,
        started_at=run.started_at,
        attempts=run.attempt,
        memory_peak_bytes=run.memory_peak_bytes,
        cpu_s=run.cpu_s,
    )


def _attempt_row(turn: Turn, run: LiveRun, phase: AttemptPhase) -> AttemptRow:
    started = run.attempt_wall if phase is not AttemptPhase.INTENDED else None
    return AttemptRow(
        run=run.id,
        attempt=run.attempt,
        job=turn.state.name,
        phase=phase,
        epoch=turn.epoch,
        boot_id=turn.boot_id,
        intended_at=run.attempt_wall or run.started_at,
        pid=run.pid,
        started_at=started,
    )
