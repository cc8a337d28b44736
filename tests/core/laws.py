"""What holds for every step of the engine, whatever the event: the order of the actions, what is written, what is waited for."""

from supervisor.core.actions import AskToStop, Finished, KillTree, Record, StartAttempt
from supervisor.core.crowd import MEMO, Crowd
from supervisor.core.engine import Step
from supervisor.core.events import Due, Event
from supervisor.core.jobs import RestartWhen
from supervisor.core.model import Incident, Now, Outcome, State
from supervisor.core.records import AttemptPhase, AttemptRow, JobMemo, RunRow
from supervisor.core.state import EngineState, Memo


def check(before: EngineState, event: Event | None, result: Step, now: Now) -> None:
    """Every law, for one step (*event* None: a restore)."""
    check_order(result)
    check_memos(before, result)
    check_runs(result.state)
    check_waits(result)
    check_services(result)
    check_parked(result)
    check_incidents(before, result)
    if isinstance(event, Due) and event.job in result.state.jobs:
        check_progress(result.state, event.job, now)
    if event is not None and result.state.closing and result.state.is_idle:
        assert any(isinstance(action, Finished) for action in result.actions)
    assert sum(isinstance(action, Finished) for action in result.actions) <= 1


def check_order(result: Step) -> None:
    """A change is on disk before anybody is asked or told; the intent to start is there durably."""
    intents: set[tuple[int, int]] = set()
    written: set[str] = set()
    heads = 0
    for action in result.actions:
        match action:
            case Record(rows, durable):
                heads += 1
                written |= {row.job for row in rows if isinstance(row, JobMemo)}
                mine = {(row.run, row.attempt) for row in rows if isinstance(row, AttemptRow) and row.phase is AttemptPhase.INTENDED}
                assert durable or not mine, "an intent that a loss of power forgets"
                intents |= mine
            case StartAttempt(job, run, attempt):
                assert (run, attempt) in intents, f"{run}.{attempt} is asked for before its intent is written"
                assert job.name in written
            case AskToStop(job) | KillTree(job):
                assert job in written or job == "", f"{job} is acted on before it is written down"
    assert heads <= max(1, len(result.touched)), "more than one record for one job"
    if heads and len(result.touched) == 1:
        assert isinstance(result.actions[0], Record)


def check_memos(before: EngineState, result: Step) -> None:
    """What has to survive the brain is in the record, in the form in which it comes back."""
    texts = {
        row.job: row.text for action in result.actions if isinstance(action, Record) for row in action.rows if isinstance(row, JobMemo)
    }
    for name, state in result.state.jobs.items():
        was = before.jobs.get(name)
        if was is None or was.memo != state.memo:
            assert name in texts, f"the memo of {name} changed and was not written"
        if name in texts:
            assert Memo.decode(texts[name]) == state.memo
    if before.jobs and before.crowd != result.state.crowd:
        assert Crowd.decode(texts[MEMO]) == result.state.crowd, "what receivers were told changed and was not written"
    for name in before.jobs.keys() - result.state.jobs.keys():
        assert name in texts or result.state.former[name] == before.jobs[name].memo, f"{name} left and its last memo was not written"


def check_runs(state: EngineState) -> None:
    """A run has one place, one attempt and one number, and its number was given out."""
    ids = [run.id for job in state.jobs.values() for run in job.memo.runs]
    assert len(ids) == len(set(ids))
    assert all(number < state.next_run for number in ids)
    slots = [(job.name, run.slot) for job in state.jobs.values() for run in job.memo.runs if run.slot is not None]
    assert len(slots) == len(set(slots)), "two runs for one slot"


def check_waits(result: Step) -> None:
    """Who waits for a moment has one."""
    state = result.state
    for job in [state.jobs[name] for name in result.touched if name in state.jobs]:
        for run in job.memo.runs:
            if run.phase is State.BACKING_OFF or (run.phase is State.STOPPING and not run.killed):
                assert run.deadline is not None, f"run {run.id} waits for ever"
                assert (job.mono_deadline() or 0) <= run.deadline
        if job.memo.paused and job.memo.paused_until is not None and not (state.closing or job.removed):
            assert (wall := job.wall_deadline(closing=False)) is not None
            assert wall <= job.memo.paused_until
        idle = not job.memo.runs and job.next_slot is not None
        assert not idle or state.closing or job.wall_deadline(closing=False) is not None


def check_services(result: Step) -> None:
    """A service that nobody has stopped runs, unless it has ended as its policy wants no more of it."""
    for state in [result.state.jobs[name] for name in result.touched if name in result.state.jobs]:
        job, last = state.job, state.memo.last
        if not job.schedule.is_service or not job.enabled or state.is_blocked or result.state.closing or state.memo.runs:
            continue
        assert last is not None, f"{state.name} is a service and was never started"
        policy = job.restart
        over = policy.when is RestartWhen.NEVER or (last.outcome is Outcome.SUCCEEDED and policy.when is not RestartWhen.ALWAYS)
        over = over or (policy.retry_on is not None and last.outcome not in policy.retry_on)
        assert over and last.outcome is not Outcome.STOPPED, f"{state.name} is a service, and is down after run {last.run} ({last.outcome})"  # noqa: PT018


def check_parked(result: Step) -> None:
    """A job that was given up starts nothing by itself, whichever of its runs would."""
    for state in [result.state.jobs[name] for name in result.touched if name in result.state.jobs]:
        waiting = [run.id for run in state.memo.runs if run.phase is State.BACKING_OFF]
        assert state.memo.parked is None or not waiting, f"{state.name} is parked, and runs {waiting} wait for another attempt"


def check_incidents(before: EngineState, result: Step) -> None:
    """Of a job that cannot run again no incident stays open: nothing that it does could close it."""
    now = result.state.jobs
    for state in [now[name] for name in result.touched if name in now]:
        assert not state.incidents or (state.job.enabled and not state.removed), f"{state.name} is gone, and its incidents stay open"
    rows = [row for action in result.actions if isinstance(action, Record) for row in action.rows]
    for name in before.jobs.keys() - now.keys():
        last = {row.id: row for row in rows if isinstance(row, Incident) and row.job == name}
        open_ = {one.id for one in before.jobs[name].incidents} - last.keys() | {key for key, row in last.items() if row.closed_at is None}
        assert not open_, f"{name} left, and its incidents {open_} stay open"


def check_progress(state: EngineState, name: str, now: Now) -> None:
    """After a look at a job nothing of it is still due: the loop would spin."""
    job = state.jobs[name]
    mono, wall = job.mono_deadline(), job.wall_deadline(closing=state.closing)
    assert mono is None or mono > now.mono, f"{name} is due again at once (monotonic)"
    assert wall is None or wall > now.wall, f"{name} is due again at once (wall clock)"


def ended_runs(result: Step) -> list[RunRow]:
    """The runs that this step closed."""
    rows = [row for action in result.actions if isinstance(action, Record) for row in action.rows]
    return [row for row in rows if isinstance(row, RunRow) and row.ended_at is not None]
