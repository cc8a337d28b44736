"""The three dashboards: the fleet of jobs, one job, Mainstay itself."""

from typing import Final

from supervisor.export import daemonalerts, jobalerts
from supervisor.export.panels import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Json,
    Panel,
    Query,
    annotation,
    by_name,
    dashboard,
    values,
    variable,
)

FLEET: Final = "mainstay-fleet"
_HIDDEN: Final = "transparent"
_WELL: Final = values({"0": ("well", GREEN), "1": ("failing", RED)})
_YES: Final = values({"0": ("no", RED), "1": ("yes", GREEN)})
_ON: Final = values({"0": ("", _HIDDEN), "1": ("", BLUE)})
_BARS: Final = {"drawStyle": "bars", "fillOpacity": 80, "lineWidth": 0, "stacking": {"mode": "normal", "group": "A"}}

_FLEET_PANELS: Final = (
    Panel(
        1,
        "stat",
        "Jobs by state",
        "How many jobs are in each state, over all hosts chosen above. Parked ones wait for a person.",
        (Query("sum by (state) (mainstay_jobs{})", "{{state}}", instant=True),),
        width=16,
        height=4,
        steps=((None, BLUE),),
        overrides=(
            by_name("parked", ("thresholds", {"mode": "absolute", "steps": [{"value": None, "color": BLUE}, {"value": 1, "color": RED}]})),
        ),
    ),
    Panel(
        2,
        "stat",
        "Open incidents",
        "Incidents that are open now, by severity. `mainstay incidents --open` on the host lists them.",
        (Query("sum by (severity) (mainstay_incidents_open{})", "{{severity}}", instant=True),),
        width=5,
        height=4,
        steps=((None, GREEN), (1, RED)),
    ),
    Panel(
        3,
        "stat",
        "Hosts that do not answer",
        "Targets that the last scrape did not reach.",
        (Query("count(up{} == 0) or vector(0)", "down", instant=True),),
        width=3,
        height=4,
        steps=((None, GREEN), (1, RED)),
    ),
    Panel(
        4,
        "table",
        "All jobs",
        "One row per job and host: its state, bad ends in sequence, when it last succeeded and next runs, and its memory as a share of its limit.",
        (
            Query("max by (instance, job_name, state) (mainstay_job_state{} == 1)", instant=True),
            Query("max by (instance, job_name) (mainstay_job_consecutive_failures{})", instant=True),
            Query("max by (instance, job_name) (mainstay_job_last_success_timestamp_seconds{}) * 1000", instant=True),
            Query("max by (instance, job_name) (mainstay_job_next_run_timestamp_seconds{}) * 1000", instant=True),
            Query(
                'max by (instance, job_name) (mainstay_job_memory_peak_bytes{} / ignoring (limit) mainstay_job_limit_bytes{limit="memory"})',
                instant=True,
            ),
        ),
        width=24,
        height=11,
        steps=((None, GREEN),),
        transformations=(
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True, "Value #A": True},
                    "indexByName": {"job_name": 0, "instance": 1, "state": 2},
                    "renameByName": {
                        "job_name": "job",
                        "instance": "host",
                        "Value #B": "bad ends",
                        "Value #C": "last success",
                        "Value #D": "next run",
                        "Value #E": "peak memory / limit",
                    },
                },
            },
        ),
        overrides=(
            by_name("last success", ("unit", "dateTimeFromNow")),
            by_name("next run", ("unit", "dateTimeFromNow")),
            by_name(
                "peak memory / limit",
                ("unit", "percentunit"),
                ("max", 1),
                ("min", 0),
                ("custom.cellOptions", {"type": "gauge", "mode": "basic"}),
                (
                    "thresholds",
                    {
                        "mode": "absolute",
                        "steps": [{"value": None, "color": GREEN}, {"value": 0.8, "color": ORANGE}, {"value": 0.9, "color": RED}],
                    },
                ),
            ),
            by_name(
                "bad ends",
                ("custom.cellOptions", {"type": "color-background", "mode": "basic"}),
                ("thresholds", {"mode": "absolute", "steps": [{"value": None, "color": _HIDDEN}, {"value": 1, "color": RED}]}),
            ),
            by_name(
                "job",
                (
                    "links",
                    [
                        {
                            "title": "This job",
                            "url": f"/d/{jobalerts.DASHBOARD}?var-job_name=${{__data.fields.job}}&var-instance=${{__data.fields.host}}",
                        }
                    ],
                ),
            ),
        ),
    ),
    Panel(
        5,
        "state-timeline",
        "Well or failing",
        "Each job over time: green while its last end was a success, red since its first bad end.",
        (Query("max by (instance, job_name) (mainstay_job_consecutive_failures{} > bool 0)", "{{job_name}} on {{instance}}"),),
        width=24,
        height=9,
        mappings=(_WELL,),
        steps=((None, GREEN), (1, RED)),
    ),
    Panel(
        6,
        "timeseries",
        "Runs by outcome",
        "Runs that ended, by outcome.",
        (Query("sum by (outcome) (increase(mainstay_job_runs_total{}[$__rate_interval])) > 0", "{{outcome}}"),),
        custom=_BARS,
    ),
    Panel(
        7,
        "timeseries",
        "Restarts by job",
        "Attempts after the first of a run.",
        (Query("sum by (job_name) (increase(mainstay_job_restarts_total{}[$__rate_interval])) > 0", "{{job_name}}"),),
        custom=_BARS,
    ),
    Panel(
        8,
        "timeseries",
        "Memory as a share of the limit, the ten closest",
        "Memory of the whole process tree divided by limits.memory. Reads a recording rule of rules.yml.",
        (Query("topk(10, job_name:mainstay_job_memory:ratio{})", "{{job_name}} on {{instance}}"),),
        unit="percentunit",
    ),
    Panel(
        9,
        "timeseries",
        "Fire times that did not run",
        "By why: the run before was still going, the job was paused, parked or stopped, Mainstay was down.",
        (
            Query(
                "sum by (job_name, reason) (increase(mainstay_job_slots_missed_total{}[$__rate_interval])) > 0", "{{job_name}}: {{reason}}"
            ),
        ),
        custom=_BARS,
    ),
    Panel(
        10,
        "timeseries",
        "Share of good runs, over a day",
        "Runs that succeeded among all that ended and were not stopped. Reads a recording rule of rules.yml.",
        (Query("job_name:mainstay_job_good_runs:ratio1d{}", "{{job_name}} on {{instance}}"),),
        unit="percentunit",
    ),
    Panel(
        11,
        "timeseries",
        "Bad runs, over a day",
        "Runs that ended badly within the last day. Reads a recording rule of rules.yml.",
        (Query("job_name:mainstay_job_bad_runs:increase1d{} > 0", "{{job_name}} on {{instance}}"),),
        decimals=0,
    ),
)

_JOB_PANELS: Final = (
    Panel(
        1,
        "state-timeline",
        "State",
        "Where the job is over time; a row per state.",
        (Query("max by (state) (mainstay_job_state{})", "{{state}}"),),
        width=24,
        height=7,
        mappings=(_ON,),
        steps=((None, _HIDDEN), (1, BLUE)),
    ),
    Panel(
        4,
        "stat",
        "Bad ends in sequence",
        "Since the last success. From the threshold (alerts.after) on a person is told.",
        (
            Query("max(mainstay_job_consecutive_failures{})", "bad ends", instant=True),
            Query("max(mainstay_job_failure_threshold{})", "told from", instant=True),
        ),
        width=6,
        height=4,
        steps=((None, GREEN), (1, RED)),
        overrides=(by_name("told from", ("thresholds", {"mode": "absolute", "steps": [{"value": None, "color": GREY}]})),),
    ),
    Panel(
        5,
        "stat",
        "Last success, next run",
        "When it last succeeded and when it runs next; expect.success_every says how old a success may become.",
        (
            Query("max(mainstay_job_last_success_timestamp_seconds{}) * 1000", "last success", instant=True),
            Query("max(mainstay_job_next_run_timestamp_seconds{}) * 1000", "next run", instant=True),
        ),
        unit="dateTimeFromNow",
        width=10,
        height=4,
        steps=((None, BLUE),),
    ),
    Panel(
        13,
        "stat",
        "Success expected within",
        "expect.success_every, if the config has one.",
        (Query("max(mainstay_job_success_max_age_seconds{})", "at most", instant=True),),
        unit="s",
        width=4,
        height=4,
        steps=((None, GREY),),
    ),
    Panel(
        14,
        "stat",
        "Runs in a day that went well",
        "Reads a recording rule of rules.yml.",
        (Query("max(job_name:mainstay_job_good_runs:ratio1d{})", "good", instant=True),),
        unit="percentunit",
        width=4,
        height=4,
        steps=((None, RED), (0.9, ORANGE), (0.99, GREEN)),
    ),
    Panel(
        2,
        "timeseries",
        "Memory against its limits",
        "The whole process tree, the peak of the current or else last attempt, and the lines that it must not cross.",
        (
            Query("sum by (job_name) (mainstay_job_memory_bytes{})", "memory"),
            Query("max by (job_name) (mainstay_job_memory_peak_bytes{})", "peak"),
            Query('max by (job_name) (mainstay_job_limit_bytes{limit="memory"})', "limit"),
            Query('max by (job_name) (mainstay_job_limit_bytes{limit="memory_soft"})', "soft limit"),
        ),
        unit="bytes",
        limits=("limit", "soft limit"),
    ),
    Panel(
        3,
        "timeseries",
        "Depth of the stack against its limit",
        "Python frames on the deepest stack at the last look, where the interpreter can be read.",
        (
            Query("max by (job_name) (mainstay_job_stack_depth_frames{})", "depth"),
            Query("max by (job_name) (mainstay_job_limit_frames{})", "limit"),
        ),
        limits=("limit",),
    ),
    Panel(
        7,
        "timeseries",
        "Runs by outcome",
        "Runs that ended, by outcome.",
        (Query("sum by (outcome) (increase(mainstay_job_runs_total{}[$__rate_interval])) > 0", "{{outcome}}"),),
        custom=_BARS,
    ),
    Panel(
        6,
        "timeseries",
        "Restarts by reason",
        "Attempts after the first of a run, by the outcome before or because a person asked; runaway recursion that was found; steps of healing.",
        (
            Query("sum by (reason) (increase(mainstay_job_restarts_total{}[$__rate_interval])) > 0", "{{reason}}"),
            Query("sum by (kind) (increase(mainstay_job_recursion_detected_total{}[$__rate_interval])) > 0", "recursion of {{kind}}"),
            Query("sum by (step) (increase(mainstay_job_heal_steps_total{}[$__rate_interval])) > 0", "healed by {{step}}"),
        ),
        custom=_BARS,
    ),
    Panel(
        8,
        "timeseries",
        "Duration of runs against the time limit",
        "Median and 95th percentile within an hour, from the histogram.",
        (
            Query("histogram_quantile(0.5, sum by (le) (increase(mainstay_job_run_duration_seconds_bucket{}[1h])))", "median"),
            Query("histogram_quantile(0.95, sum by (le) (increase(mainstay_job_run_duration_seconds_bucket{}[1h])))", "95 %"),
            Query('max by (job_name) (mainstay_job_limit_seconds{limit="time"})', "limit of an attempt"),
        ),
        unit="s",
        limits=("limit of an attempt",),
    ),
    Panel(
        9,
        "timeseries",
        "CPU and processes",
        "CPU time per second (1 is one core) and the number of processes of the tree.",
        (
            Query("sum by (job_name) (rate(mainstay_job_cpu_seconds_total{}[$__rate_interval]))", "cores"),
            Query("sum by (job_name) (mainstay_job_processes{})", "processes"),
        ),
    ),
    Panel(
        10,
        "timeseries",
        "Records and metrics of its own",
        "Records that it says it went through, records set aside, and metrics files that were not taken.",
        (
            Query("sum by (result) (rate(mainstay_job_records_total{}[$__rate_interval]))", "{{result}} records per second"),
            Query("sum by (job_name) (mainstay_job_quarantined_records{})", "records set aside"),
            Query(
                "sum by (reason) (increase(mainstay_job_metrics_rejected_total{}[$__rate_interval])) > 0", "metrics rejected: {{reason}}"
            ),
        ),
    ),
    Panel(
        11,
        "timeseries",
        "Output",
        "What it writes to stdout and stderr, and how much of that was not kept.",
        (
            Query("sum by (job_name) (rate(mainstay_job_output_bytes_total{}[$__rate_interval]))", "written"),
            Query("sum by (job_name) (rate(mainstay_job_output_dropped_bytes_total{}[$__rate_interval]))", "dropped"),
        ),
        unit="Bps",
    ),
    Panel(
        12,
        "timeseries",
        "Delay of starts, and fire times missed",
        "From the due fire time to the start of the process (95th percentile within an hour), and fire times that did not run.",
        (
            Query("histogram_quantile(0.95, sum by (le) (increase(mainstay_job_start_delay_seconds_bucket{}[1h])))", "delay, 95 %"),
            Query("sum by (reason) (increase(mainstay_job_slots_missed_total{}[$__rate_interval])) > 0", "missed: {{reason}}"),
        ),
        unit="s",
        overrides=(
            {
                "matcher": {"id": "byRegexp", "options": "/missed.*/"},
                "properties": [{"id": "unit", "value": "short"}, {"id": "custom.drawStyle", "value": "bars"}],
            },
        ),
    ),
    Panel(
        15,
        "timeseries",
        "Drills",
        "How long after the fault began each link of the chain held in the last drill, by fault; and whether all did (1) or not (0).",
        (
            Query("max by (fault, link) (mainstay_drill_link_seconds{})", "{{fault}}: {{link}}"),
            Query("min by (fault) (mainstay_drill_passed{})", "{{fault}}: passed"),
        ),
        unit="s",
        overrides=({"matcher": {"id": "byRegexp", "options": "/.*: passed/"}, "properties": [{"id": "unit", "value": "short"}]},),
    ),
    Panel(
        16,
        "timeseries",
        "Since its last sign of progress",
        "Of a job that tells: records, progress or heartbeats of supervisor.job; and the limit on it.",
        (
            Query("time() - max by (job_name) (mainstay_job_heartbeat_timestamp_seconds{})", "since the last sign"),
            Query('max by (job_name) (mainstay_job_limit_seconds{limit="stall"})', "limit"),
        ),
        unit="s",
        limits=("limit",),
    ),
)

_DAEMON_PANELS: Final = (
    Panel(
        1,
        "state-timeline",
        "Answers Prometheus",
        "Whether each scrape found it.",
        (Query("max by (instance) (up{})", "{{instance}}"),),
        width=24,
        height=5,
        mappings=(_YES,),
        steps=((None, RED), (1, GREEN)),
    ),
    Panel(
        4,
        "stat",
        "The config was taken",
        "0 while the last reload was refused and the earlier config is still in force.",
        (Query("mainstay_config_last_reload_successful{}", "{{instance}}", instant=True),),
        width=6,
        height=5,
        mappings=(_YES,),
        steps=((None, RED), (1, GREEN)),
    ),
    Panel(
        13,
        "table",
        "Versions and containment",
        "What runs, and what holds the limits of memory and processes and kills a tree (cgroup is the strongest).",
        (
            Query("max by (instance, version, python_version) (mainstay_build_info{})", instant=True),
            Query("max by (instance, memory, processes, kill) (mainstay_containment_info{})", instant=True),
        ),
        width=18,
        height=5,
        transformations=(
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True, "Value #A": True, "Value #B": True},
                    "indexByName": {"instance": 0},
                    "renameByName": {},
                },
            },
        ),
    ),
    Panel(
        2,
        "timeseries",
        "Starts by reason",
        "How the supervisor's life before this one ended.",
        (Query("sum by (instance, reason) (increase(mainstay_starts_total{}[$__rate_interval])) > 0", "{{instance}}: {{reason}}"),),
        custom=_BARS,
        width=8,
    ),
    Panel(
        3,
        "timeseries",
        "Delay of the loop",
        "How late the supervising loop takes up a deadline (99th percentile), and how long ago it last came round.",
        (
            Query(
                "histogram_quantile(0.99, sum by (instance, le) (rate(mainstay_loop_delay_seconds_bucket{}[$__rate_interval])))",
                "{{instance}}: delay, 99 %",
            ),
            Query("time() - mainstay_loop_last_tick_timestamp_seconds{}", "{{instance}}: since the last tick"),
        ),
        unit="s",
        width=8,
    ),
    Panel(
        5,
        "timeseries",
        "Memory of the supervisor",
        "Resident memory of the brain.",
        (Query("process_resident_memory_bytes{}", "{{instance}}"),),
        unit="bytes",
        width=8,
    ),
    Panel(
        6,
        "timeseries",
        "Errors of the history",
        "Operations on the history database that failed.",
        (Query("sum by (instance, operation) (increase(mainstay_store_errors_total{}[$__rate_interval]))", "{{instance}}: {{operation}}"),),
        width=8,
    ),
    Panel(
        7,
        "timeseries",
        "Incidents",
        "Open ones by severity, and opened ones by outcome.",
        (
            Query("sum by (severity) (mainstay_incidents_open{})", "open: {{severity}}"),
            Query("sum by (outcome) (increase(mainstay_incidents_total{}[$__rate_interval])) > 0", "opened: {{outcome}}"),
        ),
        width=8,
    ),
    Panel(
        8,
        "timeseries",
        "Notifications",
        "By receiver and what became of them, and how many wait.",
        (
            Query("sum by (receiver, result) (increase(mainstay_notifications_total{}[$__rate_interval]))", "{{receiver}}: {{result}}"),
            Query("max by (receiver) (mainstay_notification_queue_length{})", "{{receiver}}: waiting"),
        ),
        width=8,
    ),
    Panel(
        9,
        "timeseries",
        "Cost of the metrics page",
        "How long Mainstay writes the page, and how long the whole scrape takes.",
        (
            Query("mainstay_exposition_duration_seconds{}", "{{instance}}: written in"),
            Query("scrape_duration_seconds{}", "{{instance}}: scraped in"),
        ),
        unit="s",
        width=8,
    ),
    Panel(
        10,
        "timeseries",
        "Series on the metrics page",
        "Mainstay's own, and all samples of the scrape (the jobs' own metrics included).",
        (
            Query("mainstay_exposition_series{}", "{{instance}}: ours"),
            Query("scrape_samples_scraped{}", "{{instance}}: all"),
        ),
        width=8,
    ),
    Panel(
        11,
        "timeseries",
        "CPU of the supervisor",
        "CPU time per second (1 is one core).",
        (Query("rate(process_cpu_seconds_total{}[$__rate_interval])", "{{instance}}"),),
        unit="percentunit",
        width=8,
    ),
    Panel(
        12,
        "timeseries",
        "Files and threads",
        "What the supervisor's process has open, and the most that it may.",
        (
            Query("process_open_fds{}", "{{instance}}: files"),
            Query("process_threads{}", "{{instance}}: threads"),
            Query("process_max_fds{}", "{{instance}}: files at most"),
        ),
        width=8,
        overrides=(
            {
                "matcher": {"id": "byRegexp", "options": "/.*at most/"},
                "properties": [{"id": "custom.hideFrom", "value": {"viz": True, "legend": False, "tooltip": False}}],
            },
        ),
    ),
    Panel(
        14,
        "timeseries",
        "Runs taken over",
        "Runs that an earlier life left open, by what was found.",
        (Query("sum by (outcome) (increase(mainstay_adopted_runs_total{}[$__rate_interval]))", "{{outcome}}"),),
        width=8,
    ),
    Panel(
        15,
        "timeseries",
        "Dead man's switch and drills",
        "Beats to the service outside by what became of them, and drills by result.",
        (
            Query("sum by (instance, result) (increase(mainstay_heartbeats_total{}[$__rate_interval]))", "{{instance}}: beats {{result}}"),
            Query("sum by (result) (increase(mainstay_drills_total{}[$__rate_interval]))", "drills {{result}}"),
        ),
        width=8,
    ),
)


def dashboards(selector: str) -> dict[str, Json]:
    """File name → dashboard. *selector* finds Mainstay's targets."""
    host = f'{selector},instance=~"$instance"'
    one = f'{host},job_name="$job_name"'
    hosts = variable("instance", "Host", f"label_values(mainstay_build_info{{{selector}}}, instance)", many=True)
    names = variable("job_name", "Job", f"label_values(mainstay_job_info{{{host}}}, job_name)", many=False)
    return {
        "fleet.json": dashboard(
            FLEET,
            "Mainstay: jobs",
            "All jobs of all hosts.",
            _FLEET_PANELS,
            host,
            variables=[hosts],
            annotations=[
                annotation(
                    "Config taken",
                    "mainstay_config_last_reload_success_timestamp_seconds{} * 1000",
                    BLUE,
                    "{{instance}}",
                    host,
                    at_value=True,
                )
            ],
        ),
        "job.json": dashboard(
            jobalerts.DASHBOARD,
            "Mainstay: one job",
            "One job: state, limits, runs, incidents.",
            _JOB_PANELS,
            one,
            variables=[hosts, names],
            annotations=[
                annotation(
                    "Run started", "mainstay_job_last_start_timestamp_seconds{} * 1000", BLUE, "on {{instance}}", one, at_value=True
                ),
                annotation(
                    "Succeeded", "mainstay_job_last_success_timestamp_seconds{} * 1000", GREEN, "on {{instance}}", one, at_value=True
                ),
                annotation(
                    "Ended badly", "mainstay_job_last_failure_timestamp_seconds{} * 1000", RED, "on {{instance}}", one, at_value=True
                ),
                annotation("Incident", "mainstay_job_consecutive_failures{} > 0", ORANGE, "bad ends on {{instance}}", one),
            ],
        ),
        "daemon.json": dashboard(
            daemonalerts.DASHBOARD,
            "Mainstay: the supervisor itself",
            "Mainstay on each host: its loop, its history, its receivers, its cost.",
            _DAEMON_PANELS,
            host,
            variables=[hosts],
            annotations=[annotation("Started", "process_start_time_seconds{} * 1000", BLUE, "on {{instance}}", host, at_value=True)],
        ),
    }
