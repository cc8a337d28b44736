"""What a reload would do, said beforehand."""

from datetime import UTC, datetime

from msgspec.structs import replace

from supervisor.core import engine
from supervisor.core.actions import AskToStop
from supervisor.core.events import AttemptStarted, Reconfigured
from supervisor.core.jobs import Every, Job, Launch, Limits, Schedule
from supervisor.core.model import Mono, Now
from supervisor.core.plan import AT_NEXT_START, AT_ONCE, PlanKind, PlannedChange, plan, settings_at_once, settings_that_wait
from supervisor.core.settings import Config, Heartbeat, LogLevel, Settings


def job(name, **changes):
    return Job(name, Launch(("run",), "/", environment={"A": "1", "TOKEN": "hunter2"}), **changes)


def config(*jobs):
    return Config("/config.yaml", Settings("/var"), {each.name: each for each in jobs})


def only(old, new):
    (change,) = plan(config(old), config(new))
    return change


TIMED = Schedule(Every(60.0))


def test_nothing_changes_by_reading_the_same_again():
    assert plan(config(job("a"), job("b")), config(job("b"), job("a"))) == []


def test_removed_jobs_come_first_then_changed_then_added():
    old = config(job("same"), job("gone"), job("other"))
    new = config(job("same"), job("fresh"), job("other", description="new words"))
    assert plan(old, new) == [
        PlannedChange("gone", PlanKind.REMOVED, stops=True),
        PlannedChange("other", PlanKind.CHANGED, ("description",)),
        PlannedChange("fresh", PlanKind.ADDED),
    ]


def test_a_service_is_restarted_for_what_only_a_new_process_takes_over():
    changed = replace(job("a"), launch=replace(job("a").launch, argv=("run", "--faster")))
    assert only(job("a"), changed) == PlannedChange("a", PlanKind.CHANGED, ("launch.argv",), restarts=True)


def test_a_run_of_a_timed_job_ends_as_it_began():
    old = job("a", schedule=TIMED)
    new = replace(old, launch=replace(old.launch, nice=5))
    assert only(old, new) == PlannedChange("a", PlanKind.CHANGED, ("launch.nice",))


def test_a_changed_limit_restarts_nothing_but_for_those_that_a_process_is_born_with():
    old, new = job("a"), job("a", limits=Limits(memory_bytes=2**20, time_s=1.0))
    assert only(old, new) == PlannedChange("a", PlanKind.CHANGED, ("limits.memory_bytes", "limits.time_s"))
    assert only(job("a"), job("a", limits=Limits(files=64))).restarts


def test_the_environment_is_named_by_its_keys_and_never_by_its_values():
    new = replace(job("a"), launch=replace(job("a").launch, environment={"A": "1", "TOKEN": "canary", "NEW": "x"}))
    change = only(job("a"), new)
    assert change == PlannedChange("a", PlanKind.CHANGED, ("launch.environment.NEW", "launch.environment.TOKEN"), restarts=True)
    assert "canary" not in repr(change)


def test_a_disabled_job_is_stopped():
    assert only(job("a"), job("a", enabled=False)) == PlannedChange("a", PlanKind.CHANGED, ("enabled",), stops=True)
    assert only(job("a", enabled=False), job("a")) == PlannedChange("a", PlanKind.CHANGED, ("enabled",))


def test_another_kind_of_schedule_is_named_as_a_whole():
    assert only(job("a"), job("a", schedule=TIMED)) == PlannedChange("a", PlanKind.CHANGED, ("schedule.when",))
    assert only(job("a", schedule=TIMED), job("a", schedule=Schedule(Every(30.0)))).keys == ("schedule.when.every_s",)


def running(configured):
    """The engine with one run of that job alive, and the moment."""
    now = Now(Mono(100.0), datetime(2026, 3, 2, tzinfo=UTC))
    nobody = engine.KeeperView("epoch", "boot", {})
    state = engine.restore({configured.name: configured}, {}, {}, (1, 1), nobody, now).state
    state = engine.step(state, AttemptStarted(configured.name, 1, 1, 7, now.mono), now).state
    return state, now


def test_the_engine_does_as_planned_with_a_service_that_keeps_running():
    old, new = job("a"), job("a", limits=Limits(memory_bytes=2**20))
    assert not only(old, new).restarts
    state, now = running(old)
    taken = engine.step(state, Reconfigured({"a": new}), now)
    assert not any(isinstance(action, AskToStop) for action in taken.actions)
    assert taken.state.jobs["a"].job_of(1) == old  # the run goes on by the config that it began with
    assert taken.state.jobs["a"].job == new


def test_the_engine_does_as_planned_with_a_service_that_restarts():
    old, new = job("a"), job("a", limits=Limits(files=64))
    assert only(old, new).restarts
    state, now = running(old)
    assert AskToStop("a", 1, 1, "TERM") in engine.step(state, Reconfigured({"a": new}), now).actions


def test_every_setting_is_known_to_hold_at_once_or_from_the_next_start_on():
    assert sorted([*AT_ONCE, *AT_NEXT_START]) == sorted(Settings.__struct_fields__)


def test_settings_are_compared_with_what_runs_and_named_as_in_the_file():
    runs = Settings("/var", listen=None)
    new = replace(runs, listen=("127.0.0.1", 1), log_level=LogLevel.DEBUG, history_days=1.0, heartbeat=Heartbeat("http://127.0.0.1/"))
    assert settings_that_wait(runs, new) == ["supervisor.listen", "supervisor.log.level"]
    assert settings_at_once(runs, new) == ["supervisor.history", "supervisor.heartbeat"]
    assert settings_that_wait(runs, runs) == settings_at_once(runs, runs) == []
