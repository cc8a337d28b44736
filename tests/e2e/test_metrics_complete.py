"""Every declared metric has a source: counters stand at 0 before anything happens, follow what happens, outlive the brain, leave with their job."""

import json
import os
import signal
import sys
from itertools import product

import pytest
from harness import Mainstay

from supervisor.adapters.exposition import MetricType
from supervisor.adapters.metrictable import TABLE, Scope

SERVICE = """
import time
from supervisor import job
def feed():
    for key in range(3): yield key
    while True:
        time.sleep(0.2)
        yield 'more'
for record in job.records(feed(), key=str): pass
"""
CONFIG = f"""
jobs:
  feeder: {{command: {json.dumps([sys.executable, "-c", SERVICE])}}}
  fresh: {{shell: 'exit 3', schedule: manual, restart: {{when: never}}}}
  short: {{shell: 'exit 0', schedule: manual, restart: {{when: never}}, limits: {{memory: 100MiB, memory_soft: 80MiB, output: 1MiB, cpu: 10s, stall: 20s, recursion: 300}}, expect: {{success_every: 1h}}}}
receivers:
  nobody: {{type: command, command: ['true']}}
"""


@pytest.fixture(scope="module")
def mainstay(tmp_path_factory):
    daemon = Mainstay(tmp_path_factory.mktemp("complete"), CONFIG)
    try:
        yield daemon.start()
    finally:
        daemon.close()


def expected_at_once(owner):
    """The series that exist from the start of what a config with this job or receiver makes."""
    for row in TABLE.values():
        if not row.exported or row.scope is not owner[0] or row.name.startswith("process_"):
            continue
        if row.type is MetricType.COUNTER or row.zero:
            for values in product(*(label.values for label in row.labels)):
                labels = {
                    **({str(row.scope): owner[1]} if row.scope else {}),
                    **{label.name: value for label, value in zip(row.labels, values, strict=True)},
                }
                text = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
                yield f"{row.name}{{{text}}}" if text else row.name


def test_every_counter_of_everything_that_is_configured_is_there_before_anything_happens(mainstay):
    page = mainstay.metrics()
    for owner in ((Scope.DAEMON, ""), (Scope.JOB, "fresh"), (Scope.RECEIVER, "nobody")):
        wanted = list(expected_at_once(owner))
        assert len(wanted) > 2
        assert [series for series in wanted if series not in page] == []
    assert {value for series, value in page.items() if 'job_name="fresh"' in series and "_total{" in series} == {0.0}


def test_every_name_of_the_table_that_is_exported_is_on_the_page_once_its_cause_has_been(mainstay):
    assert mainstay.run_job("short")["outcome"] == "succeeded"
    mainstay.run_job("fresh")
    mainstay.wait_for_metric('mainstay_job_up{job_name="feeder"}', 1.0)
    mainstay.wait_for(lambda: any(series.startswith("mainstay_job_heartbeat_") for series in mainstay.metrics()), "a heartbeat")
    mainstay.wait_for(lambda: any(series.startswith("mainstay_job_stack_depth_") for series in mainstay.metrics()), "a depth")
    needs = {  # a schedule; a file that the job writes; a delivery; a heartbeat that is configured; a drill
        "mainstay_heartbeat_last_success_timestamp_seconds",
        "mainstay_job_next_run_timestamp_seconds",
        "mainstay_job_metrics_last_update_timestamp_seconds",
        "mainstay_notification_last_success_timestamp_seconds",
    }

    def missing():
        """A page may be a second old, and the ends younger."""
        text = mainstay.http("/metrics")[1]
        found = {name for name, row in TABLE.items() if row.exported and f"# TYPE {name} " not in text} - needs
        return {name for name in found if "drill" not in name}

    mainstay.wait_for(lambda: not missing(), "all names")


def test_records_of_a_service_are_counted_while_it_runs(mainstay):
    series = 'mainstay_job_records_total{job_name="feeder",result="processed"}'
    mainstay.wait_for(lambda: mainstay.metrics()[series] >= 3, "three records")
    assert mainstay.job("feeder")["state"] == "running"


def test_a_restart_that_a_person_asks_for_is_counted_as_such(mainstay):
    series = 'mainstay_job_restarts_total{job_name="feeder",reason="request"}'
    before = mainstay.metrics()[series]
    assert mainstay.cli("restart", "feeder").returncode == 0
    mainstay.wait_for_metric(series, before + 1)
    mainstay.cli("restart", "short")  # nothing ran: that was a start
    assert mainstay.metrics()['mainstay_job_restarts_total{job_name="short",reason="request"}'] == 0


def test_nothing_falls_and_nothing_is_lost_when_the_brain_is_killed(mainstay):
    mainstay.run_job("fresh")
    mainstay.wait_for_metric('mainstay_job_runs_total{job_name="fresh",outcome="failed"}', 2)  # told after it was recorded
    peak = mainstay.metrics()['mainstay_job_memory_peak_bytes{job_name="fresh"}']
    before = {series: value for series, value in mainstay.metrics().items() if series.split("{")[0].endswith(("_total", "_count"))}
    tick = mainstay.metrics()["mainstay_loop_last_tick_timestamp_seconds"]
    mainstay.wait_for(
        lambda: mainstay.metrics()["mainstay_loop_last_tick_timestamp_seconds"] > tick + 2, "two rounds"
    )  # a page is saved with the next
    brain = mainstay.brain_pid
    os.kill(brain, signal.SIGKILL)
    mainstay.wait_for(lambda: mainstay.brain_pid != brain, "the next brain")
    after = mainstay.metrics()
    fallen = {series: (value, after.get(series)) for series, value in before.items() if after.get(series, -1.0) < value}
    assert {series for series in fallen if not series.startswith("process_")} == set(), fallen
    assert (
        after['mainstay_job_runs_total{job_name="fresh",outcome="failed"}']
        == before['mainstay_job_runs_total{job_name="fresh",outcome="failed"}']
    )
    assert after['mainstay_job_memory_peak_bytes{job_name="fresh"}'] == peak
    assert after['mainstay_starts_total{reason="crash"}'] == before['mainstay_starts_total{reason="crash"}'] + 1
    assert after['mainstay_adopted_runs_total{outcome="alive"}'] == before['mainstay_adopted_runs_total{outcome="alive"}'] + 1
    mainstay.wait_for(lambda: 'mainstay_job_heartbeat_timestamp_seconds{job_name="feeder"}' in mainstay.metrics(), "its heartbeat again")


def test_a_removed_job_takes_all_its_series_with_it(make):
    mainstay = make(CONFIG).start()
    assert [series for series in mainstay.metrics() if 'job_name="fresh"' in series]
    mainstay.write_config(CONFIG.replace("  fresh:", "  renamed:"))
    assert mainstay.cli("reload").returncode == 0
    mainstay.wait_for(lambda: not [series for series in mainstay.metrics() if 'job_name="fresh"' in series], "the end of its series")
    assert mainstay.metrics()['mainstay_job_runs_total{job_name="renamed",outcome="failed"}'] == 0
