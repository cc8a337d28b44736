"""Every metric of Mainstay's own page, declared once: name, type, help, labels, buckets.

The registry, the reference in the docs and the tests read this table; a name that is not here cannot be exported. Names and
labels are a contract with people's alert rules (design.md section 5), so they change with a note in the changelog only.
"""

from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct

from supervisor.adapters.exposition import MetricType, RejectReason
from supervisor.core.drill import Link
from supervisor.core.evidence import CycleKind
from supervisor.core.jobs import Fault
from supervisor.core.model import LimitName, Outcome, State
from supervisor.core.records import SkipReason
from supervisor.core.remedy import StepName

_COUNTER, _GAUGE, _HISTOGRAM = MetricType.COUNTER, MetricType.GAUGE, MetricType.HISTOGRAM


class Scope(StrEnum):
    """Whose a metric is; the value is the label that names the owner, "" for the daemon itself."""

    DAEMON = ""
    JOB = "job_name"
    RECEIVER = "receiver"


class Label(Struct, frozen=True):
    """A label beside the owner's. ``values`` are known beforehand and exist from the start; ``closed``: there are no others."""

    name: str
    values: tuple[str, ...] = ()
    closed: bool = True


class Declaration(Struct, frozen=True):
    """One metric. ``zero``: a gauge that stands at 0 from the start (counters always do). ``exported`` is False while nothing
    feeds it: the name is taken, the page does not show it. ``since`` is the version that brought it."""

    name: str
    type: MetricType
    scope: Scope
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    zero: bool = False
    exported: bool = True
    since: str = "0.1"

    @property
    def persists(self) -> bool:
        """Whether its values survive a restart of the supervisor; those of its process end with the process."""
        return self.type is not MetricType.GAUGE and not self.name.startswith("process_")


def _closed(name: str, values: Iterable[str]) -> Label:
    return Label(name, tuple(str(value) for value in values))


_OUTCOME = _closed("outcome", Outcome)
_STATE = _closed("state", State)
_FAULT = _closed("fault", Fault)
_MECHANISMS = ("cgroup", "rlimit", "poll", "none")
RESTART_REASONS = (*(str(outcome) for outcome in Outcome), "request")

_DAEMON = (
    Declaration(
        "mainstay_build_info",
        _GAUGE,
        Scope.DAEMON,
        "1; the version of Mainstay and of the Python it runs on stand in the labels.",
        (Label("version", closed=False), Label("python_version", closed=False)),
    ),
    Declaration(
        "mainstay_config_last_reload_successful",
        _GAUGE,
        Scope.DAEMON,
        "1 if the last attempt to take config.yaml worked, 0 if it was refused and the earlier one is still in force.",
    ),
    Declaration(
        "mainstay_config_last_reload_success_timestamp_seconds",
        _GAUGE,
        Scope.DAEMON,
        "When config.yaml was last taken, Unix time.",
    ),
    Declaration(
        "mainstay_starts_total",
        _COUNTER,
        Scope.DAEMON,
        "Starts of the supervisor, by how the one before it ended: there was none, in order, by a crash, by a reboot.",
        (_closed("reason", ("first", "clean", "crash", "reboot")),),
    ),
    Declaration(
        "mainstay_loop_last_tick_timestamp_seconds",
        _GAUGE,
        Scope.DAEMON,
        "When the loop that supervises last came round, Unix time; the same loop feeds systemd's watchdog.",
    ),
    Declaration(
        "mainstay_loop_delay_seconds",
        _HISTOGRAM,
        Scope.DAEMON,
        "How late the supervising loop took up a deadline or an event.",
        buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0),
    ),
    Declaration(
        "mainstay_adopted_runs_total",
        _COUNTER,
        Scope.DAEMON,
        "Runs left open by an earlier life of the supervisor, by what was found: still alive, ended meanwhile, lost.",
        (_closed("outcome", ("alive", "ended", "lost")),),
    ),
    Declaration(
        "mainstay_store_errors_total",
        _COUNTER,
        Scope.DAEMON,
        "Operations on the history database that failed; supervision goes on without them.",
        (_closed("operation", ("open", "read", "write", "prune")),),
    ),
    Declaration(
        "mainstay_containment_info",
        _GAUGE,
        Scope.DAEMON,
        "1; the labels say what holds memory and processes of jobs and what kills a tree (cgroup is the strongest).",
        (_closed("memory", _MECHANISMS), _closed("processes", _MECHANISMS), _closed("kill", _MECHANISMS)),
    ),
    Declaration("mainstay_jobs", _GAUGE, Scope.DAEMON, "Configured jobs by state.", (_STATE,), zero=True),
    Declaration(
        "mainstay_exposition_duration_seconds",
        _GAUGE,
        Scope.DAEMON,
        "How long it took to write this page.",
    ),
    Declaration("mainstay_exposition_series", _GAUGE, Scope.DAEMON, "Series of Mainstay's own on this page."),
)

_INCIDENTS = (
    Declaration(
        "mainstay_heartbeats_total",
        _COUNTER,
        Scope.DAEMON,
        "Beats of the dead man's switch (supervisor.heartbeat) by what became of them.",
        (_closed("result", ("sent", "failed")),),
    ),
    Declaration(
        "mainstay_heartbeat_last_success_timestamp_seconds",
        _GAUGE,
        Scope.DAEMON,
        "When a beat of the dead man's switch last got through, Unix time; absent before the first.",
    ),
    Declaration(
        "mainstay_incidents_open",
        _GAUGE,
        Scope.DAEMON,
        "Open incidents by severity.",
        (Label("severity", ("critical", "warning", "info"), closed=False),),
        zero=True,
    ),
    Declaration("mainstay_incidents_total", _COUNTER, Scope.DAEMON, "Incidents opened, by the outcome that opened them.", (_OUTCOME,)),
    Declaration(
        "mainstay_notifications_total",
        _COUNTER,
        Scope.RECEIVER,
        "Notifications by what became of them: sent, failed (one try; it is tried again), dropped (given up for good); gathered: an opening that is told "
        "in a summary only, because too many came at once.",
        (_closed("result", ("sent", "failed", "dropped", "gathered")),),
    ),
    Declaration(
        "mainstay_notification_queue_length",
        _GAUGE,
        Scope.RECEIVER,
        "Notifications that wait for delivery.",
        zero=True,
    ),
    Declaration(
        "mainstay_notification_last_success_timestamp_seconds",
        _GAUGE,
        Scope.RECEIVER,
        "When a notification last arrived, Unix time; absent before the first.",
    ),
)

_JOB = (
    Declaration(
        "mainstay_job_info",
        _GAUGE,
        Scope.JOB,
        "1; what kind of job it is (every, cron, manual, service) and how loud its incidents are, to join on.",
        (_closed("kind", ("every", "cron", "manual", "service")), Label("severity", closed=False)),
    ),
    Declaration("mainstay_job_state", _GAUGE, Scope.JOB, "1 for the state that the job is in, 0 for the others.", (_STATE,)),
    Declaration("mainstay_job_up", _GAUGE, Scope.JOB, "1 while an attempt of the job is alive.", zero=True),
    Declaration("mainstay_job_runs_total", _COUNTER, Scope.JOB, "Runs that ended, by outcome.", (_OUTCOME,)),
    Declaration(
        "mainstay_job_restarts_total",
        _COUNTER,
        Scope.JOB,
        "Attempts after the first of a run, by the outcome of the attempt before; and restarts that a person asked for (request).",
        (_closed("reason", RESTART_REASONS),),
    ),
    Declaration(
        "mainstay_job_slots_missed_total",
        _COUNTER,
        Scope.JOB,
        "Due fire times that did not run, by why.",
        (_closed("reason", SkipReason),),
    ),
    Declaration("mainstay_job_consecutive_failures", _GAUGE, Scope.JOB, "Bad ends in sequence since the last success.", zero=True),
    Declaration(
        "mainstay_job_run_duration_seconds",
        _HISTOGRAM,
        Scope.JOB,
        "How long runs took, from the first attempt's start to the last one's end.",
        buckets=(0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0),
    ),
    Declaration(
        "mainstay_job_start_delay_seconds",
        _HISTOGRAM,
        Scope.JOB,
        "From the due fire time to the start of the process.",
        buckets=(0.01, 0.1, 1.0, 5.0, 30.0, 300.0, 3600.0),
    ),
    Declaration(
        "mainstay_job_next_run_timestamp_seconds",
        _GAUGE,
        Scope.JOB,
        "The next fire time, Unix time; absent without a schedule.",
    ),
    Declaration(
        "mainstay_job_last_start_timestamp_seconds",
        _GAUGE,
        Scope.JOB,
        "When an attempt last started, Unix time; absent before the first.",
    ),
    Declaration(
        "mainstay_job_last_end_timestamp_seconds",
        _GAUGE,
        Scope.JOB,
        "When a run last ended, Unix time; absent before the first.",
    ),
    Declaration(
        "mainstay_job_last_success_timestamp_seconds",
        _GAUGE,
        Scope.JOB,
        "When a run last succeeded, Unix time; absent before the first.",
    ),
    Declaration(
        "mainstay_job_last_failure_timestamp_seconds",
        _GAUGE,
        Scope.JOB,
        "When a run last ended badly, Unix time; absent before the first.",
    ),
    Declaration(
        "mainstay_job_configured_timestamp_seconds",
        _GAUGE,
        Scope.JOB,
        "When the job was first seen in config.yaml, Unix time: what the age of a success is counted from before there is one.",
    ),
    Declaration("mainstay_job_memory_bytes", _GAUGE, Scope.JOB, "Memory of the job's process tree at the last look.", zero=True),
    Declaration(
        "mainstay_job_memory_peak_bytes",
        _GAUGE,
        Scope.JOB,
        "The most memory that the current or else the last attempt had.",
    ),
    Declaration("mainstay_job_cpu_seconds_total", _COUNTER, Scope.JOB, "CPU time of the job's process trees."),
    Declaration("mainstay_job_processes", _GAUGE, Scope.JOB, "Processes of the job's tree at the last look.", zero=True),
    Declaration(
        "mainstay_job_stack_depth_frames",
        _GAUGE,
        Scope.JOB,
        "Python frames on the deepest stack at the last look; absent where the interpreter cannot be read.",
    ),
    Declaration(
        "mainstay_job_recursion_detected_total",
        _COUNTER,
        Scope.JOB,
        "Runaway recursion found, by what repeats: frames of a stack, tasks, processes.",
        (_closed("kind", CycleKind),),
    ),
    Declaration("mainstay_job_output_bytes_total", _COUNTER, Scope.JOB, "Bytes that the job wrote to its standard output and error."),
    Declaration("mainstay_job_output_dropped_bytes_total", _COUNTER, Scope.JOB, "Bytes of output that were not kept."),
    Declaration(
        "mainstay_job_heartbeat_timestamp_seconds",
        _GAUGE,
        Scope.JOB,
        "When the job last showed a sign of progress, Unix time; absent before the first.",
    ),
    Declaration(
        "mainstay_job_records_total",
        _COUNTER,
        Scope.JOB,
        "Records that the job says it finished (processed), and records that were set aside because they killed it (quarantined).",
        (_closed("result", ("processed", "quarantined")),),
    ),
    Declaration(
        "mainstay_job_heal_steps_total",
        _COUNTER,
        Scope.JOB,
        "Steps of heal that were taken against failures that repeat.",
        (_closed("step", StepName),),
    ),
    Declaration(
        "mainstay_job_quarantined_records",
        _GAUGE,
        Scope.JOB,
        "Records that are set aside because they killed the job; each attempt leaves them out until they are released.",
    ),
    Declaration(
        "mainstay_job_metrics_last_update_timestamp_seconds",
        _GAUGE,
        Scope.JOB,
        "When the job last wrote metrics of its own that were taken, Unix time; absent before the first.",
    ),
    Declaration(
        "mainstay_job_metrics_rejected_total",
        _COUNTER,
        Scope.JOB,
        "Metrics files of the job, or metrics in one, that were not taken, by why.",
        (_closed("reason", RejectReason),),
    ),
)

_THRESHOLDS = (
    Declaration(
        "mainstay_job_limit_bytes",
        _GAUGE,
        Scope.JOB,
        "The limits in bytes, by limit; absent where there is none.",
        (_closed("limit", (LimitName.MEMORY, LimitName.MEMORY_SOFT, LimitName.OUTPUT)),),
    ),
    Declaration(
        "mainstay_job_limit_seconds",
        _GAUGE,
        Scope.JOB,
        "The limits in seconds, by limit; absent where there is none.",
        (_closed("limit", (LimitName.TIME, LimitName.CPU, LimitName.STALL)),),
    ),
    Declaration("mainstay_job_limit_frames", _GAUGE, Scope.JOB, "The limit on the depth of a Python stack; absent where there is none."),
    Declaration(
        "mainstay_job_success_max_age_seconds",
        _GAUGE,
        Scope.JOB,
        "How old the last success may become (expect.success_every); absent where nothing is expected.",
    ),
    Declaration("mainstay_job_failure_threshold", _GAUGE, Scope.JOB, "Bad ends in sequence before a person is told (alerts.after)."),
)

_DRILLS = (
    Declaration(
        "mainstay_drills_total",
        _COUNTER,
        Scope.DAEMON,
        "Drills by result: every link held, one was broken, or the job has nothing that would have noticed the fault.",
        (_closed("result", ("passed", "broken", "refused")),),
    ),
    Declaration(
        "mainstay_drill_passed",
        _GAUGE,
        Scope.JOB,
        "1 if the last drill of that fault held in every link, else 0; absent before the first.",
        (_FAULT,),
    ),
    Declaration(
        "mainstay_drill_last_run_timestamp_seconds",
        _GAUGE,
        Scope.JOB,
        "When that fault was last drilled, Unix time; absent before the first.",
        (_FAULT,),
    ),
    Declaration(
        "mainstay_drill_link_seconds",
        _GAUGE,
        Scope.JOB,
        "How long after the fault began each link held in the last drill; of several receivers the slowest.",
        (_FAULT, _closed("link", Link)),
    ),
)

_PROCESS = (
    Declaration("process_cpu_seconds_total", _COUNTER, Scope.DAEMON, "CPU time of the supervisor's own process."),
    Declaration("process_max_fds", _GAUGE, Scope.DAEMON, "How many files the supervisor may have open."),
    Declaration("process_open_fds", _GAUGE, Scope.DAEMON, "How many files the supervisor has open."),
    Declaration("process_resident_memory_bytes", _GAUGE, Scope.DAEMON, "Resident memory of the supervisor."),
    Declaration("process_start_time_seconds", _GAUGE, Scope.DAEMON, "When the supervisor's process started, Unix time."),
    Declaration("process_threads", _GAUGE, Scope.DAEMON, "Threads of the supervisor."),
    Declaration("process_virtual_memory_bytes", _GAUGE, Scope.DAEMON, "Virtual memory of the supervisor."),
)

SECTIONS: tuple[tuple[str, tuple[Declaration, ...]], ...] = (
    ("The supervisor", _DAEMON),
    ("Incidents and notifications", _INCIDENTS),
    ("Each job", _JOB),
    ("Each job's thresholds", _THRESHOLDS),
    ("Drills", _DRILLS),
    ("The supervisor's process", _PROCESS),
)
"""The table in the order of the page and of the docs."""

TABLE: dict[str, Declaration] = {row.name: row for _, rows in SECTIONS for row in rows}
PROCESS_NAMES = frozenset(row.name for row in _PROCESS)


def reference() -> str:
    """The table as Markdown, for docs/metrics.md."""
    lines = []
    for title, rows in SECTIONS:
        lines += [f"## {title}", "", "| name | type | labels | meaning |", "|---|---|---|---|"]
        lines += [_reference_row(row) for row in rows]
        lines.append("")
    return "\n".join(lines)


def _reference_row(row: Declaration) -> str:
    labels = [f"`{row.scope}`"] if row.scope else []
    labels += [_reference_label(label) for label in row.labels]
    meaning = row.help if row.exported else f"{row.help} *Reserved: not exported yet.*"
    if row.buckets:
        meaning += " Buckets: " + ", ".join(f"{bound:g}" for bound in row.buckets) + "."
    return f"| `{row.name}` | {row.type} | {'; '.join(labels)} | {meaning} |"


def _reference_label(label: Label) -> str:
    values = ", ".join(label.values)
    if not values:
        return f"`{label.name}`"
    return f"`{label.name}`: {values}" if label.closed else f"`{label.name}`: {values}, ..."
