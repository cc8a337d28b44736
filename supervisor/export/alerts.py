"""All alerts and recording rules: the table that every generated file, its tests and the docs are made of."""

from collections.abc import Mapping
from typing import Final

from supervisor.export.daemonalerts import DAEMON_ALERTS
from supervisor.export.definition import Alert, Case, Record
from supervisor.export.jobalerts import JOB_ALERTS

GROUPS: Final[tuple[tuple[str, tuple[Alert, ...]], ...]] = (("mainstay", DAEMON_ALERTS), ("mainstay-jobs", JOB_ALERTS))
ALERTS: Final[Mapping[str, Alert]] = {alert.name: alert for _, alerts in GROUPS for alert in alerts}
WATCHDOG: Final = "MainstayWatchdog"

_JOB: Final = 'job_name="nightly"'
RECORDS: Final = (
    Record(
        "job_name:mainstay_job_memory:ratio",
        'mainstay_job_memory_bytes{} / ignoring (limit) mainstay_job_limit_bytes{limit="memory"}',
        Case(
            "half of the limit",
            {f"mainstay_job_memory_bytes{{{_JOB}}}": "50x10", f'mainstay_job_limit_bytes{{{_JOB},limit="memory"}}': "100x10"},
            "5m",
            {"job_name": "nightly"},
            "0.5",
        ),
    ),
    Record(
        "job_name:mainstay_job_bad_runs:increase1d",
        'sum without (outcome) (increase(mainstay_job_runs_total{outcome!~"succeeded|stopped"}[1d]))',
        Case(
            "one bad run in two minutes, as far as the day is known",
            {
                f'mainstay_job_runs_total{{{_JOB},outcome="failed"}}': "0 1 1",
                f'mainstay_job_runs_total{{{_JOB},outcome="succeeded"}}': "0 0 1",
            },
            "2m",
            {"job_name": "nightly"},
            "1",
        ),
    ),
    Record(
        "job_name:mainstay_job_good_runs:ratio1d",
        'sum without (outcome) (increase(mainstay_job_runs_total{outcome="succeeded"}[1d]))\n'
        '/ sum without (outcome) (increase(mainstay_job_runs_total{outcome!="stopped"}[1d]))',
        Case(
            "three of four",
            {
                f'mainstay_job_runs_total{{{_JOB},outcome="failed"}}': "0 1 1",
                f'mainstay_job_runs_total{{{_JOB},outcome="succeeded"}}': "0 0 3",
            },
            "2m",
            {"job_name": "nightly"},
            "0.75",
        ),
    ),
)
"""What dashboards read in several places, or over a day."""
