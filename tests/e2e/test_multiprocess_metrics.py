"""A job that counts with prometheus_client and is killed: its numbers stand on Mainstay's page, add up over its runs, and outlive both halves of Mainstay."""

import os
import signal
import sys
from pathlib import Path

import pytest
from harness import Mainstay
from prometheus_client.parser import text_string_to_metric_families

JOB = """
import os, signal
from prometheus_client import Counter, Gauge, Histogram
Counter("rows", "Rows.", ["kind"]).labels("good").inc(5)
Gauge("depth", "Depth.", multiprocess_mode="max").set(7)
Histogram("took_seconds", "Time.", buckets=(1,)).observe(0.5)
print("counted", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_job_counted_stands_on_the_page_over_every_death(tmp_path: Path, death: signal.Signals) -> None:
    (tmp_path / "job.py").write_text(JOB)
    common = f"command: ['{sys.executable}', job.py], schedule: manual, restart: {{when: never}}"
    config = f"jobs:\n  counts: {{{common}, metrics: {{multiprocess: true}}}}\n  plain: {{{common}}}\n"
    outside = tmp_path / "outside"
    outside.mkdir()
    daemon = Mainstay(tmp_path, config, environment={"PROMETHEUS_MULTIPROC_DIR": str(outside)})
    try:
        daemon.start()
        for nth in (1, 2, 3):
            assert daemon.run_job("counts")["outcome"] == "signalled"
            daemon.wait_for_metric('rows_total{job_name="counts",kind="good"}', 5.0 * nth)
        assert daemon.run_job("plain")["outcome"] == "signalled"
        if death is signal.SIGKILL:
            brain = daemon.brain_pid
            os.kill(brain, signal.SIGKILL)
            daemon.wait_for(lambda: daemon.brain_pid != brain, "the next brain")
        else:
            daemon.stop()
            daemon.start()
        page = daemon.http("/metrics")[1]
        assert 'rows_total{job_name="counts",kind="good"} 15.0' in page
        assert 'depth{job_name="counts"} 7.0' in page
        assert 'took_seconds_bucket{job_name="counts",le="1.0"} 3.0' in page
        assert list(text_string_to_metric_families(page))
        daemon.run_job("counts")
        daemon.wait_for_metric('rows_total{job_name="counts",kind="good"}', 20.0)
        assert 'rows_total{job_name="plain"' not in daemon.http("/metrics")[1], "a job that did not ask has no such directory"
        daemon.wait_for(
            lambda: [file.name for file in (daemon.state / "multiproc" / "counts").iterdir()] == ["sums.json"], "the folders go"
        )
        assert list(outside.iterdir()) == [], "what Mainstay was started with reaches neither it nor its jobs"
        assert daemon.metrics()['mainstay_job_metrics_last_update_timestamp_seconds{job_name="counts"}'] > 1e9
        daemon.write_config("jobs: {plain: {command: [/bin/true], schedule: manual}}\n")
        assert daemon.cli("reload").returncode == 0
        daemon.wait_for(lambda: "rows_total" not in daemon.http("/metrics")[1], "a job that left takes its metrics along")
    finally:
        daemon.close()
