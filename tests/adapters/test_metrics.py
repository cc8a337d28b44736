"""The registry: what stands on the page, when, and what of it survives."""

import re
import threading
import time
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from promtool import check_metrics, needs_promtool, series

from supervisor.adapters.exposition import MetricType
from supervisor.adapters.metrics import TABLE, Metrics, reference
from supervisor.adapters.metrictable import SECTIONS, Scope
from supervisor.core.jobs import AlertPolicy, Every, Expect, Job, Launch, Limits, Schedule
from supervisor.core.model import Outcome, State

AT = datetime(2026, 1, 2, tzinfo=UTC)
JOB = Job(
    "nightly",
    Launch(("true",), "/"),
    schedule=Schedule(Every(60.0)),
    limits=Limits(memory_bytes=1024, time_s=60.0, cpu_s=None, recursion_frames=400),
    expect=Expect(success_every_s=600.0),
    alerts=AlertPolicy(after=2, severity="warning"),
)


def page_with(*jobs: Job) -> Metrics:
    metrics = Metrics({})
    for job in jobs or (JOB,):
        metrics.add_job(job, AT)
    return metrics


def test_every_counter_of_a_job_stands_at_zero_before_anything_happens():
    found = series(page_with().render())
    for outcome in Outcome:
        assert found[f'mainstay_job_runs_total{{job_name="nightly",outcome="{outcome}"}}'] == 0
    for name, declared in TABLE.items():
        if declared.scope is Scope.JOB and declared.type is not MetricType.GAUGE and declared.exported:
            assert any(key.startswith(name) and 'job_name="nightly"' in key for key in found), name


def test_thresholds_follow_the_configuration_and_go_where_there_is_none():
    metrics = page_with()
    found = series(metrics.render())
    assert found['mainstay_job_limit_bytes{job_name="nightly",limit="memory"}'] == 1024
    assert found['mainstay_job_limit_seconds{job_name="nightly",limit="time"}'] == 60
    assert found['mainstay_job_limit_frames{job_name="nightly"}'] == 400
    assert found['mainstay_job_success_max_age_seconds{job_name="nightly"}'] == 600
    assert found['mainstay_job_failure_threshold{job_name="nightly"}'] == 2
    assert found['mainstay_job_info{job_name="nightly",kind="every",severity="warning"}'] == 1
    assert found['mainstay_job_configured_timestamp_seconds{job_name="nightly"}'] == AT.timestamp()
    assert 'mainstay_job_limit_seconds{job_name="nightly",limit="cpu"}' not in found

    metrics.inc("mainstay_job_runs_total", job_name="nightly", outcome="failed")
    metrics.add_job(replace(JOB, limits=Limits(memory_bytes=None), expect=Expect(), alerts=AlertPolicy(severity="critical")), AT)
    found = series(metrics.render())
    assert 'mainstay_job_limit_bytes{job_name="nightly",limit="memory"}' not in found
    assert 'mainstay_job_success_max_age_seconds{job_name="nightly"}' not in found
    assert [key for key in found if key.startswith("mainstay_job_info")] == [
        'mainstay_job_info{job_name="nightly",kind="every",severity="critical"}'
    ]
    assert found['mainstay_job_runs_total{job_name="nightly",outcome="failed"}'] == 1, "a reload keeps counters"


def test_a_job_that_leaves_takes_its_series_along_and_late_news_of_it_is_let_go():
    metrics = page_with(JOB, replace(JOB, name="other"))
    metrics.inc("mainstay_job_runs_total", job_name="nightly", outcome="failed")
    metrics.remove_job("nightly")
    metrics.inc("mainstay_job_runs_total", job_name="nightly", outcome="failed")
    metrics.set("mainstay_job_up", 1, job_name="nightly")
    metrics.observe("mainstay_job_run_duration_seconds", 1, job_name="nightly")
    metrics.state_set("mainstay_job_state", "state", "idle", job_name="nightly")
    page = metrics.render()
    assert b'"nightly"' not in page
    assert b'"other"' in page
    saved = metrics.changed()
    assert saved["mainstay_job_runs_total", 'job_name="nightly",outcome="failed"'] == 1, "what it had is still saved"
    metrics.add_job(JOB, AT)
    assert series(metrics.render())['mainstay_job_runs_total{job_name="nightly",outcome="failed"}'] == 1, "and goes on when it is back"


def test_counters_and_histograms_survive_a_restart_and_gauges_do_not():
    metrics = page_with()
    metrics.inc("mainstay_job_runs_total", 3, job_name="nightly", outcome="failed")
    metrics.inc("mainstay_starts_total", reason="crash")
    metrics.set("mainstay_job_up", 1, job_name="nightly")
    for seconds in (0.05, 2.0, 1e9):
        metrics.observe("mainstay_job_run_duration_seconds", seconds, job_name="nightly")
    saved = metrics.changed()
    assert metrics.changed() == {}, "told once"
    again = Metrics(saved)
    again.add_job(JOB, AT)
    again.observe("mainstay_job_run_duration_seconds", 2.0, job_name="nightly")
    again.inc("mainstay_job_runs_total", job_name="nightly", outcome="failed")
    found = series(again.render())
    assert found['mainstay_job_runs_total{job_name="nightly",outcome="failed"}'] == 4
    assert found['mainstay_starts_total{reason="crash"}'] == 1
    assert found['mainstay_job_up{job_name="nightly"}'] == 0
    assert found['mainstay_job_run_duration_seconds_count{job_name="nightly"}'] == 4
    assert found['mainstay_job_run_duration_seconds_bucket{job_name="nightly",le="0.1"}'] == 1
    assert found['mainstay_job_run_duration_seconds_bucket{job_name="nightly",le="5.0"}'] == 3
    assert found['mainstay_job_run_duration_seconds_bucket{job_name="nightly",le="86400.0"}'] == 3
    assert found['mainstay_job_run_duration_seconds_sum{job_name="nightly"}'] == pytest.approx(1e9 + 4.05)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -1.0])
def test_broken_figures_from_disk_begin_at_zero(broken):
    metrics = Metrics({("mainstay_job_runs_total", 'job_name="nightly",outcome="failed"'): broken, ("gone_total", ""): 1.0})
    metrics.add_job(JOB, AT)
    assert series(metrics.render())['mainstay_job_runs_total{job_name="nightly",outcome="failed"}'] == 0


def test_a_histogram_whose_bounds_have_changed_begins_anew():
    metrics = Metrics({("mainstay_loop_delay_seconds_bucket", 'le="0.002"'): 5.0, ("mainstay_loop_delay_seconds_count", ""): 5.0})
    assert series(metrics.render())["mainstay_loop_delay_seconds_count"] == 0


def test_exactly_one_state_of_a_state_set_is_one():
    metrics = page_with()
    for state in State:
        metrics.state_set("mainstay_job_state", "state", state, job_name="nightly")
        found = series(metrics.render())
        assert {other: found[f'mainstay_job_state{{job_name="nightly",state="{other}"}}'] for other in State} == {
            o: float(o is state) for o in State
        }


def test_a_cleared_gauge_vanishes():
    metrics = page_with()
    metrics.set("mainstay_job_next_run_timestamp_seconds", 5, job_name="nightly")
    assert 'mainstay_job_next_run_timestamp_seconds{job_name="nightly"}' in series(metrics.render())
    metrics.clear("mainstay_job_next_run_timestamp_seconds", job_name="nightly")
    metrics.clear("mainstay_job_next_run_timestamp_seconds", job_name="nightly")
    assert b"mainstay_job_next_run" not in metrics.render(), "nor is its HELP left alone on the page"


def test_receivers_have_their_counters_from_the_start():
    metrics = Metrics({})
    metrics.add_receiver("ops")
    assert series(metrics.render())['mainstay_notifications_total{receiver="ops",result="failed"}'] == 0
    metrics.remove_receiver("ops")
    assert b'"ops"' not in metrics.render()


def test_a_severity_of_ones_own_is_taken_beside_the_known_ones():
    metrics = Metrics({})
    metrics.set("mainstay_incidents_open", 2, severity="page")
    found = series(metrics.render())
    assert found['mainstay_incidents_open{severity="page"}'] == 2
    assert found['mainstay_incidents_open{severity="critical"}'] == 0


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda m: m.inc("mainstay_nonsense_total"), KeyError),
        (lambda m: m.inc("mainstay_job_up", job_name="nightly"), ValueError),  # a gauge
        (lambda m: m.set("mainstay_job_runs_total", 1, job_name="nightly", outcome="failed"), ValueError),  # a counter
        (lambda m: m.inc("mainstay_job_runs_total", job_name="nightly"), ValueError),  # a label is missing
        (lambda m: m.inc("mainstay_job_runs_total", job_name="nightly", outcome="failed", pid="1"), ValueError),  # one too many
        (lambda m: m.inc("mainstay_job_runs_total", job_name="nightly", outcome="exploded"), ValueError),  # not of the closed list
        (lambda m: m.inc("mainstay_job_runs_total", outcome="failed"), ValueError),  # of no job
        (lambda m: m.inc("mainstay_starts_total", -1, reason="crash"), ValueError),
        (lambda m: m.observe("mainstay_loop_delay_seconds", float("nan")), ValueError),
        (lambda m: m.state_set("mainstay_job_state", "state", "asleep", job_name="nightly"), ValueError),
    ],
)
def test_a_name_or_label_that_is_not_declared_is_a_mistake_of_ours_and_raises(act, error):
    with pytest.raises(error):
        act(page_with())


def test_awkward_job_names_are_escaped():
    name = 'a"b\\c\nd é'
    metrics = page_with(replace(JOB, name=name))
    metrics.inc("mainstay_job_runs_total", job_name=name, outcome="failed")
    assert series(metrics.render())[f'mainstay_job_runs_total{{job_name="{name}",outcome="failed"}}'] == 1
    (key,) = metrics.changed()
    again = Metrics({key: 7.0})
    again.add_job(replace(JOB, name=name), AT)
    assert series(again.render())[f'mainstay_job_runs_total{{job_name="{name}",outcome="failed"}}'] == 7


def test_what_is_not_exported_is_not_on_the_page():
    page = page_with().render().decode()
    for name, declared in TABLE.items():
        if not declared.exported:
            assert name not in page


def test_the_page_tells_of_itself_and_of_its_process():
    found = series(page_with().render())
    assert found["mainstay_exposition_series"] > 50
    assert 0 <= found["mainstay_exposition_duration_seconds"] < 60
    assert found["process_open_fds"] >= 3
    assert found["process_resident_memory_bytes"] > 2**20
    assert abs(found["process_start_time_seconds"] - time.time()) < 86400 * 30
    assert found["mainstay_exposition_series"] == len(found)


def test_every_family_has_help_and_type_and_its_samples_stand_together():
    metrics = page_with(JOB, replace(JOB, name="other"))
    seen: list[str] = []
    for line in metrics.render().decode().splitlines():
        if line.startswith("# HELP "):
            seen.append(line.split()[2])
        elif line.startswith("# TYPE "):
            assert line.split()[2:] == [seen[-1], str(TABLE[seen[-1]].type)]
        else:
            assert re.match(rf"{seen[-1]}(_bucket|_sum|_count)?[{{ ]", line), line
    assert len(seen) == len(set(seen))


def test_names_follow_the_conventions():
    for _, rows in SECTIONS:
        for row in rows:
            assert row.name.startswith(("mainstay_", "process_"))
            assert row.name.endswith("_total") == (row.type is MetricType.COUNTER), row.name
            assert (row.type is MetricType.HISTOGRAM) == bool(row.buckets), row.name
            assert list(row.buckets) == sorted(row.buckets)
            assert not {label.name for label in row.labels} & {"job", "instance", "le", "job_name", "pid", "run", "path"}, row.name
            assert row.help.endswith(".")


def test_the_reference_names_every_metric_once():
    text = reference()
    for name in TABLE:
        assert text.count(f"| `{name}` |") == 1
    assert "| `mainstay_job_recursion_detected_total` | counter | `job_name`; `kind`: frames, tasks, processes |" in text


@pytest.mark.real
@needs_promtool
def test_promtool_finds_nothing_to_say_about_the_page():
    metrics = page_with(JOB, replace(JOB, name="other"))
    metrics.add_receiver("ops")
    for job in ("nightly", "other"):
        metrics.state_set("mainstay_job_state", "state", "idle", job_name=job)
        for name, declared in TABLE.items():
            if declared.scope is Scope.JOB and declared.type is MetricType.GAUGE and not declared.labels:
                metrics.set(name, float("nan"), job_name=job)
    for name in ("memory", "processes", "kill"):
        assert name in {label.name for label in TABLE["mainstay_containment_info"].labels}
    metrics.info("mainstay_containment_info", memory="cgroup", processes="rlimit", kill="none")
    metrics.info("mainstay_build_info", version="0.1", python_version="3.11.7")
    assert check_metrics(metrics.render()) == (0, "")


def test_threads_that_write_while_others_read_lose_nothing():
    metrics = page_with()
    pages: list[bytes] = []

    def write() -> None:
        for _ in range(2000):
            metrics.inc("mainstay_job_runs_total", job_name="nightly", outcome="failed")
            metrics.observe("mainstay_loop_delay_seconds", 0.002)

    def read() -> None:
        pages.extend(metrics.render() for _ in range(50))

    threads = [threading.Thread(target=write) for _ in range(3)] + [threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = series(metrics.render())
    assert found['mainstay_job_runs_total{job_name="nightly",outcome="failed"}'] == 6000
    assert found["mainstay_loop_delay_seconds_count"] == 6000
    for page in pages:
        series(page)


def test_a_thousand_jobs_are_a_page_in_a_fraction_of_a_second_of_cpu():
    jobs = [replace(JOB, name=f"job-{number}") for number in range(1000)]
    metrics = page_with(*jobs)
    metrics.render()
    spent = []
    for _ in range(5):
        for job in jobs:
            metrics.set("mainstay_job_memory_bytes", time.process_time(), job_name=job.name)
            metrics.inc("mainstay_job_cpu_seconds_total", 0.1, job_name=job.name)
        before = time.thread_time()
        page = metrics.render()
        spent.append(time.thread_time() - before)
    assert page.count(b"\n") > 60_000
    assert min(spent) < 0.25, "about 10 ms on an idle machine; bench/ has the figure"
