"""Alerts about jobs. One rule serves all jobs: limits, expectations and severities are metrics too, so they come from the config."""

from collections.abc import Mapping
from typing import Final

from supervisor.core.model import LimitName, Outcome
from supervisor.export.definition import JOIN, Alert, Case, Severity

DASHBOARD: Final = "mainstay-job"
BRIDGE: Final = "2m"
"""Alerts that follow a state outlive this long a silence: a restart of Mainstay must neither resolve nor repeat them."""

_LIMIT_OF: Final[Mapping[str, str]] = {
    Outcome.MEMORY: LimitName.MEMORY,
    Outcome.RECURSION: LimitName.RECURSION,
    Outcome.TIME: LimitName.TIME,
    Outcome.CPU: LimitName.CPU,
    Outcome.STALLED: LimitName.STALL,
    Outcome.PROCESSES: LimitName.PROCESSES,
    Outcome.OUTPUT: LimitName.OUTPUT,
}
_OUTCOMES: Final = "|".join(_LIMIT_OF)
_OFF: Final = 'mainstay_job_state{state=~"paused|disabled"} == 1'


def _by_limit(metric: str, label: str) -> str:
    """The attempts that a limit ended, from *metric*; the outcome becomes the limit's name."""
    ended = f'increase({metric}{{{label}=~"{_OUTCOMES}"}}[15m])'
    named = f'label_replace({ended}, "limit", "$1", "{label}", "(.+)")'
    return f'label_replace({named}, "limit", "stall", "limit", "stalled")'


def _info(kind: str, name: str = "nightly", severity: str = "critical") -> dict[str, str]:
    return {f'mainstay_job_info{{job_name="{name}",kind="{kind}",severity="{severity}"}}': "1x2000"}


def _state(values: str, state: str, name: str = "nightly") -> dict[str, str]:
    return {f'mainstay_job_state{{job_name="{name}",state="{state}"}}': values}


_NIGHTLY: Final = {"job_name": "nightly"}
_LOUD: Final = {**_NIGHTLY, "severity": "critical"}

JOB_ALERTS: Final = (
    Alert(
        "MainstayJobFailed",
        f"mainstay_job_consecutive_failures{{}} >= mainstay_job_failure_threshold{{}}\nunless {JOIN} ({_OFF})",
        Severity.JOB,
        "A job fails",
        "{job_name} on {instance} ends badly (in sequence: {value:count}). `mainstay why {job_name}` says what happened.",
        keep=BRIDGE,
        panel=(DASHBOARD, 4),
        cases=(
            Case(
                "the first failure after the start, the first sample says so already",
                _info("every")
                | {'mainstay_job_consecutive_failures{job_name="nightly"}': "1x20"}
                | {'mainstay_job_failure_threshold{job_name="nightly"}': "1x20"},
                "1m",
                _LOUD,
                "1",
            ),
            Case(
                "fewer failures than alerts.after asks for, then enough, of a job that only warns",
                _info("cron", severity="warning")
                | {'mainstay_job_consecutive_failures{job_name="nightly"}': "0x2 1x2 2x2 3x20"}
                | {'mainstay_job_failure_threshold{job_name="nightly"}': "3x20"},
                "12m",
                {**_NIGHTLY, "severity": "warning"},
                "3",
            ),
            Case(
                "it failed twice of three times",
                _info("every")
                | {'mainstay_job_consecutive_failures{job_name="nightly"}': "2x20"}
                | {'mainstay_job_failure_threshold{job_name="nightly"}': "3x20"},
                "10m",
            ),
            Case(
                "it is paused",
                _info("every")
                | {'mainstay_job_consecutive_failures{job_name="nightly"}': "1x20"}
                | {'mainstay_job_failure_threshold{job_name="nightly"}': "1x20"}
                | _state("1x20", "paused"),
                "10m",
            ),
            Case(
                "it succeeded again, and the bridge is over",
                _info("every")
                | {'mainstay_job_consecutive_failures{job_name="nightly"}': "1x5 0x20"}
                | {'mainstay_job_failure_threshold{job_name="nightly"}': "1x30"},
                "10m",
            ),
            Case(
                "Mainstay was restarted: one scrape found nobody, and the alert stands",
                _info("every")
                | {'mainstay_job_consecutive_failures{job_name="nightly"}': "1x5 stale 1x20"}
                | {'mainstay_job_failure_threshold{job_name="nightly"}': "1x5 stale 1x20"},
                "6m",
                _LOUD,
                "1",
            ),
            Case(
                "it was removed from the config",
                _info("every")
                | {'mainstay_job_consecutive_failures{job_name="nightly"}': "1x5 stale"}
                | {'mainstay_job_failure_threshold{job_name="nightly"}': "1x5 stale"},
                "10m",
            ),
        ),
    ),
    Alert(
        "MainstayJobParked",
        'max without (state) (mainstay_job_state{state="parked"} == 1)',
        Severity.JOB,
        "A job was given up",
        "{job_name} on {instance} is parked: Mainstay does not start it again until a person says `mainstay start {job_name}`.",
        keep=BRIDGE,
        panel=(DASHBOARD, 1),
        cases=(
            Case("its budget is spent", _info("service") | _state("0x3 1x20", "parked"), "5m", _LOUD),
            Case("it runs", _info("service") | _state("0x20", "parked") | _state("1x20", "running"), "5m"),
        ),
    ),
    Alert(
        "MainstayJobDown",
        f'max without (state) (mainstay_job_state{{state="backing_off"}} == 1)\nand {JOIN} mainstay_job_info{{kind="service"}}',
        Severity.JOB,
        "A service is down",
        "{job_name} on {instance} should be running and waits for its next start. `mainstay why {job_name}` says how it ended.",
        wait="1m",
        keep=BRIDGE,
        panel=(DASHBOARD, 1),
        cases=(
            Case("a service waits long", _info("service") | _state("0x3 1x20", "backing_off"), "10m", _LOUD),
            Case("a scheduled job between two attempts", _info("every") | _state("1x20", "backing_off"), "10m"),
            Case("a service that runs", _info("service") | _state("0x20", "backing_off"), "10m"),
        ),
    ),
    Alert(
        "MainstayJobCrashLooping",
        'sum without (reason) (increase(mainstay_job_restarts_total{reason!="request"}[15m])) > 3',
        Severity.JOB,
        "A job is restarted again and again",
        "{job_name} on {instance} was restarted about {value:count} times within a quarter of an hour.",
        panel=(DASHBOARD, 6),
        cases=(
            Case(
                "two kinds of ends, five restarts",
                _info("service")
                | {'mainstay_job_restarts_total{job_name="nightly",reason="exception"}': "0+1x3 3x20"}
                | {'mainstay_job_restarts_total{job_name="nightly",reason="memory"}': "0x3 1 2x20"},
                "14m",
                _LOUD,
                "5",
            ),
            Case(
                "one restart", _info("service") | {'mainstay_job_restarts_total{job_name="nightly",reason="exception"}': "0x3 1x20"}, "14m"
            ),
            Case(
                "a person restarts it",
                _info("service") | {'mainstay_job_restarts_total{job_name="nightly",reason="request"}': "0+1x20"},
                "14m",
            ),
        ),
    ),
    Alert(
        "MainstayJobLimitExceeded",
        f"sum without (outcome, reason) (\n  {_by_limit('mainstay_job_runs_total', 'outcome')}\n  or\n  "
        f"{_by_limit('mainstay_job_restarts_total', 'reason')}\n) > 0",
        Severity.WARNING,
        "A job was ended by one of its limits",
        "{job_name} on {instance} went over its {limit} limit and was ended. `mainstay why {job_name}` has the evidence.",
        panel=(DASHBOARD, 7),
        cases=(
            Case(
                "the first kill after the start: the counter stood at 0",
                {'mainstay_job_runs_total{job_name="nightly",outcome="memory"}': "0x2 1x20"}
                | {'mainstay_job_restarts_total{job_name="nightly",reason="memory"}': "0x22"},
                "5m",
                {**_NIGHTLY, "limit": "memory"},
            ),
            Case(
                "an attempt was killed and restarted; the run is not over",
                {'mainstay_job_runs_total{job_name="nightly",outcome="stalled"}': "0x22"}
                | {'mainstay_job_restarts_total{job_name="nightly",reason="stalled"}': "0x2 1x20"},
                "5m",
                {**_NIGHTLY, "limit": "stall"},
            ),
            Case("it failed by itself", {'mainstay_job_runs_total{job_name="nightly",outcome="failed"}': "0x2 1x20"}, "5m"),
            Case("a kill of long ago", {'mainstay_job_runs_total{job_name="nightly",outcome="memory"}': "0x2 1x40"}, "30m"),
        ),
    ),
    Alert(
        "MainstayJobNearMemoryLimit",
        f"""(
  mainstay_job_memory_bytes{{}} and {JOIN} mainstay_job_info{{kind="service"}}
  or
  mainstay_job_memory_peak_bytes{{}} and {JOIN} mainstay_job_info{{kind!="service"}}
) / ignoring (limit) mainstay_job_limit_bytes{{limit="memory"}} > 0.9""",
        Severity.WARNING,
        "A job comes close to its memory limit",
        "{job_name} on {instance} has used {value:percent} of its memory limit: a service now, any other job at the peak of its last attempt.",
        wait="5m",
        keep="5m",
        panel=(DASHBOARD, 2),
        cases=(
            Case(
                "a service uses 95 of 100 bytes",
                _info("service")
                | {'mainstay_job_memory_bytes{job_name="nightly"}': "10x3 95x20"}
                | {'mainstay_job_limit_bytes{job_name="nightly",limit="memory"}': "100x30"},
                "10m",
                _NIGHTLY,
                "95%",
            ),
            Case(
                "a batch job that does not run now had 95 of 100 bytes",
                _info("every")
                | {'mainstay_job_memory_bytes{job_name="nightly"}': "0x30"}
                | {'mainstay_job_memory_peak_bytes{job_name="nightly"}': "95x30"}
                | {'mainstay_job_limit_bytes{job_name="nightly",limit="memory"}': "100x30"},
                "10m",
                _NIGHTLY,
                "95%",
            ),
            Case(
                "a service that had a peak once is far below now",
                _info("service")
                | {'mainstay_job_memory_bytes{job_name="nightly"}': "10x30"}
                | {'mainstay_job_memory_peak_bytes{job_name="nightly"}': "95x30"}
                | {'mainstay_job_limit_bytes{job_name="nightly",limit="memory"}': "100x30"},
                "10m",
            ),
        ),
    ),
    Alert(
        "MainstayJobNotSucceededInTime",
        f"""time() - (mainstay_job_last_success_timestamp_seconds{{}} or mainstay_job_configured_timestamp_seconds{{}})
> mainstay_job_success_max_age_seconds{{}}
unless {JOIN} ({_OFF})""",
        Severity.JOB,
        "A job has not succeeded in time",
        "The last success of {job_name} on {instance} is {value:duration} ago (or it never succeeded since then): more than expect.success_every allows.",
        keep=BRIDGE,
        panel=(DASHBOARD, 5),
        cases=(
            Case(
                "the last success is too old",
                _info("every")
                | {'mainstay_job_last_success_timestamp_seconds{job_name="nightly"}': "0x30"}
                | {'mainstay_job_configured_timestamp_seconds{job_name="nightly"}': "0x30"}
                | {'mainstay_job_success_max_age_seconds{job_name="nightly"}': "600x30"},
                "20m",
                _LOUD,
                "20m 0s",
            ),
            Case(
                "it never ran at all",
                _info("every")
                | {'mainstay_job_configured_timestamp_seconds{job_name="nightly"}': "60x30"}
                | {'mainstay_job_success_max_age_seconds{job_name="nightly"}': "600x30"},
                "21m",
                _LOUD,
                "20m 0s",
            ),
            Case(
                "it succeeds every minute",
                _info("every")
                | {'mainstay_job_last_success_timestamp_seconds{job_name="nightly"}': "0+60x30"}
                | {'mainstay_job_configured_timestamp_seconds{job_name="nightly"}': "0x30"}
                | {'mainstay_job_success_max_age_seconds{job_name="nightly"}': "600x30"},
                "20m",
            ),
            Case(
                "nothing is expected of it",
                _info("every") | {'mainstay_job_last_success_timestamp_seconds{job_name="nightly"}': "0x30"},
                "20m",
            ),
            Case(
                "it is paused",
                _info("every")
                | {'mainstay_job_last_success_timestamp_seconds{job_name="nightly"}': "0x30"}
                | {'mainstay_job_success_max_age_seconds{job_name="nightly"}': "600x30"}
                | _state("1x30", "paused"),
                "20m",
            ),
        ),
    ),
    Alert(
        "MainstayJobScheduleMissed",
        'increase(mainstay_job_slots_missed_total{reason=~"overlap|daemon_down"}[15m]) > 0',
        Severity.WARNING,
        "A job missed fire times",
        "About {value:count} fire times of {job_name} on {instance} did not run ({reason}). `mainstay runs {job_name}` lists them.",
        panel=(DASHBOARD, 12),
        cases=(
            Case(
                "the run before was still going",
                {'mainstay_job_slots_missed_total{job_name="nightly",reason="overlap"}': "0x3 2x20"},
                "15m",
                {**_NIGHTLY, "reason": "overlap"},
                "2",
            ),
            Case("an operator paused it", {'mainstay_job_slots_missed_total{job_name="nightly",reason="paused"}': "0+1x20"}, "15m"),
            Case("missed long ago", {'mainstay_job_slots_missed_total{job_name="nightly",reason="overlap"}': "0x3 2x40"}, "40m"),
        ),
    ),
    Alert(
        "MainstayJobRecordsQuarantined",
        "mainstay_job_quarantined_records{} > 0",
        Severity.WARNING,
        "Records of a job are set aside",
        "Records that killed {job_name} on {instance} are set aside and left out: {value:count}. `mainstay quarantine {job_name} --list` shows them.",
        keep=BRIDGE,
        panel=(DASHBOARD, 10),
        cases=(
            Case("one record was set aside", {'mainstay_job_quarantined_records{job_name="nightly"}': "0x3 1x20"}, "5m", _NIGHTLY, "1"),
            Case("it was released, and the bridge is over", {'mainstay_job_quarantined_records{job_name="nightly"}': "1x3 0x20"}, "10m"),
        ),
    ),
    Alert(
        "MainstayJobDrillFailed",
        "mainstay_drill_passed{} == 0",
        Severity.WARNING,
        "A drill found a broken link",
        "The last drill of {job_name} on {instance} with the fault {fault} did not hold in every link. `mainstay drill {job_name} --last` says in which.",
        keep=BRIDGE,
        panel=(DASHBOARD, 15),
        cases=(
            Case(
                "its alert did not arrive",
                {'mainstay_drill_passed{job_name="nightly",fault="memory"}': "1x3 0x20"},
                "5m",
                {**_NIGHTLY, "fault": "memory"},
            ),
            Case("every link held", {'mainstay_drill_passed{job_name="nightly",fault="memory"}': "1x20"}, "5m"),
        ),
    ),
    Alert(
        "MainstayJobFlapping",
        "changes((mainstay_job_consecutive_failures{} > bool 0)[1h:1m]) > 4",
        Severity.WARNING,
        "A job fails and recovers again and again",
        "{job_name} on {instance} changed {value:count} times between well and failing within an hour.",
        panel=(DASHBOARD, 4),
        cases=(
            Case(
                "every other run fails", {'mainstay_job_consecutive_failures{job_name="nightly"}': "0 1 0 1 0 1 0x30"}, "20m", _NIGHTLY, "6"
            ),
            Case("it fails all the time", {'mainstay_job_consecutive_failures{job_name="nightly"}': "0 1+1x60"}, "50m"),
            Case("it failed once", {'mainstay_job_consecutive_failures{job_name="nightly"}': "0 1 0x60"}, "50m"),
        ),
    ),
    Alert(
        "MainstayJobMetricsRejected",
        "increase(mainstay_job_metrics_rejected_total{}[15m]) > 0",
        Severity.WARNING,
        "A job's own metrics were not taken",
        "Metrics that {job_name} on {instance} wrote were not taken ({reason}). The log says which, in `job_metrics_rejected`.",
        panel=(DASHBOARD, 10),
        cases=(
            Case(
                "a file that cannot be parsed",
                {'mainstay_job_metrics_rejected_total{job_name="nightly",reason="malformed"}': "0x3 1x20"},
                "5m",
                {**_NIGHTLY, "reason": "malformed"},
            ),
            Case("all were taken", {'mainstay_job_metrics_rejected_total{job_name="nightly",reason="malformed"}': "0x30"}, "20m"),
        ),
    ),
)
