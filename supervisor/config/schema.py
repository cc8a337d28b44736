"""The shape of config.yaml: every key with what it may be, what it means and its default. The loader, the JSON Schema for editors, the
reference page and ``check --show`` all read these tables. Defaults stand in ``core.jobs`` and ``core.settings``, once.
"""

import re
from typing import Any

from supervisor.config.addresses import Listen, Url
from supervisor.config.document import Node, Scalar
from supervisor.config.files import EnvironmentPath, Path, SecretPath
from supervisor.config.healing import heal_shape
from supervisor.config.kinds import (
    VARIABLE,
    Always,
    Context,
    Flag,
    Json,
    Kind,
    ListOf,
    Nullable,
    Number,
    Refused,
    Text,
    TextMap,
    Whole,
    Word,
)
from supervisor.config.process import Command, Mask, ShellLine, Signal
from supervisor.config.quantities import Duration, Ratio, Size
from supervisor.config.secrets import AppriseUrlsPath, SecretText, SecretUrl, SecretUrlPath, apprise_urls
from supervisor.config.shape import Key, Section, Shape
from supervisor.config.templates import TemplateText
from supervisor.config.times import CronExpression, Timezone
from supervisor.core.jobs import (
    SERVICE_TIME_S,
    AlertPolicy,
    CatchUp,
    Cron,
    DossierPolicy,
    DrillPolicy,
    Expect,
    Fault,
    Limits,
    LogPolicy,
    Manual,
    OutputAction,
    Overlap,
    RestartPolicy,
    RestartWhen,
    Schedule,
    Service,
    StopPolicy,
)
from supervisor.core.model import Outcome
from supervisor.core.redact import is_secretive
from supervisor.core.settings import (
    PAGERDUTY_URL,
    AlertmanagerReceiver,
    AppriseReceiver,
    CommandReceiver,
    EmailReceiver,
    Heartbeat,
    LogFormat,
    LogLevel,
    PagerDutyReceiver,
    Settings,
    SlackReceiver,
    TcpActions,
    WebhookReceiver,
)
from supervisor.core.units import format_duration, quoted

NAME = r"[A-Za-z0-9_.-]{1,64}"
NAME_FORM = "1 to 64 of the letters A-Z a-z, the digits, and _ . -"

_PERSON = Text(form="a name or a number, e.g. metrics", pattern=r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\$?")
_MAIL = Text(form="a mail address, e.g. ops@example.org", pattern=r"[^\s@<>,;:\"]{1,64}@[^\s@<>,;:\"]{1,255}")
_HOST = Text(form="a host name, e.g. localhost", pattern=r"[A-Za-z0-9:.-]{1,253}")
_RECEIVER_NAME = Text(form="the name of a receiver", pattern=NAME)
_TIMEOUT = Duration(0.1, 600.0)
VARIABLES = TextMap(
    VARIABLE, "a name of letters, digits and _, e.g. BATCH_SIZE", is_secretive, r"MAINSTAY_(?!LINEAGE_MAX$)", "{BATCH_SIZE: 1000}"
)
_BAD_OUTCOMES = tuple(str(outcome) for outcome in Outcome if outcome.is_bad)

_limits, _restart, _stop, _expect, _alerts, _logs = Limits(), RestartPolicy(), StopPolicy(), Expect(), AlertPolicy(), LogPolicy()
_dossier = DossierPolicy()
_drill = DrillPolicy()
_schedule, _cron = Schedule(), Cron("* * * * *")

SCHEDULE_MAP = Shape(
    [
        Key(
            "every",
            Duration(1.0),
            "Run at a fixed interval of the wall clock, aligned to multiples of it since 1970 in UTC. Either this or `cron`.",
        ),
        Key("cron", CronExpression(), "Run at the times of a cron expression with five fields, as crontab(5), or `@hourly` to `@yearly`."),
        Key("timezone", Timezone(), "The time zone of `cron`; it decides what happens on daylight saving nights.", _cron.timezone),
        Key(
            "jitter",
            Duration(0.0),
            "Spread starts over this long after the fire time: how long of it a job waits is drawn from its name and the fire time. Less than the time between two of them.",
            _schedule.jitter_s,
        ),
        Key(
            "catch_up",
            Word(CatchUp),
            "Fire times that passed while Mainstay was down: forget them, run the last one, or run all. Those of a pause are always skipped; those of a time in which the job was disabled, not in the config or on another schedule count for nothing.",
            _schedule.catch_up,
        ),
        Key(
            "within",
            Nullable(Duration(1.0)),
            "How old a missed fire time may be and still be caught up.",
            _schedule.within_s,
            default_note="null: however old",
        ),
        Key(
            "overlap",
            Word(Overlap, {"skip": "write forbid"}),
            "A fire time while the previous run still goes: skip it, stop the previous run first, or run both.",
            _schedule.overlap,
        ),
    ],
    rivals=(frozenset({"every", "cron", "timezone"}),),
    hints={"interval": "write every", "tz": "write timezone", "time_zone": "write timezone"},
)


class ScheduleKind(Kind):
    """``{every: 1m}``, ``{cron: ...}``, ``manual`` (runs only when triggered) or ``service`` (kept running)."""

    form = 'a map, e.g. {every: 1m} or {cron: "*/5 * * * *"}; or manual, or service'
    shape = SCHEDULE_MAP

    def read(self, node: Node, context: Context) -> Any:
        if isinstance(node, Scalar):
            if node.text == "manual":
                return Manual()
            if node.text == "service" or (node.is_null and node.text):
                return Service()
            if node.is_null:
                raise ValueError(f"has no value; write {self.form}, or remove the key")
            raise ValueError(f"{quoted(node.text)} is not a schedule; write {self._mend(node.text)}")
        return self.shape.read(node, context)

    def _mend(self, text: str) -> str:
        if text.startswith("@") or len(text.split()) == 5:
            return f"{{cron: {quoted(text)}}}"
        return f"{{every: {text}}}" if re.fullmatch(r"[0-9]+(ms|s|m|h|d|w)", text) else self.form

    def plain(self, value: Any) -> Any:
        if isinstance(value, Section):
            return self.shape.plain(value)
        return "manual" if isinstance(value, Manual) else "service"

    def schema(self) -> Json:
        return {"anyOf": [{"enum": ["manual", "service", None]}, self.shape.schema()]}


LIMITS = Shape(
    [
        Key(
            "memory",
            Always(Size(2**20), "a job always has a memory limit"),
            "Memory of the whole process tree; over it the tree is killed. There is always such a line.",
            _limits.memory_bytes,
        ),
        Key(
            "memory_soft",
            Nullable(Size(2**20)),
            "From here on the job is looked at closely and, in a cgroup, slowed. Less than `memory`.",
            _limits.memory_soft_bytes,
        ),
        Key(
            "recursion",
            Nullable(Whole(10, 10_000_000)),
            "Python frames on one stack.",
            _limits.recursion_frames,
            default_note="null: Python's own limit, which the job then cannot raise out of reach",
        ),
        Key(
            "time",
            Always(Duration(0.01), "a job always has a time limit"),
            "Wall-clock time of one attempt, from its start. There is always such a line; a service (a job without a schedule) that names none "
            f"gets `{format_duration(SERVICE_TIME_S)}`.",
            _limits.time_s,
            default_note=f"`{format_duration(_limits.time_s or 0)}`; of a service `{format_duration(SERVICE_TIME_S)}`",
        ),
        Key("cpu", Nullable(Duration(0.01)), "CPU time of the whole process tree.", _limits.cpu_s),
        Key(
            "stall",
            Nullable(Duration(0.1)),
            "Time without a sign of progress: a record, progress or heartbeat of `supervisor.job`; of a job that does not use it, output.",
            _limits.stall_s,
        ),
        Key("processes", Nullable(Whole(1, 4_194_304)), "Processes and threads of the whole tree.", _limits.processes),
        Key("files", Nullable(Whole(8, 1_048_576)), "Open descriptors of each process.", _limits.files),
        Key("output", Nullable(Size(1)), "What an attempt may write to its standard output and error together.", _limits.output_bytes),
        Key(
            "output_action",
            Word(OutputAction),
            "Over the output limit: kill the tree, or drop what is too much and count it.",
            _limits.output_action,
        ),
    ],
    hints={"timeout": "write time", "cpu_time": "write cpu", "rss": "write memory", "mem": "write memory", "pids": "write processes"},
)

RESTART = Shape(
    [
        Key("when", Word(RestartWhen), "After which ends another attempt follows.", _restart.when),
        Key(
            "backoff",
            Shape(
                [
                    Key(
                        "first",
                        Duration(0.0, 86400.0),
                        "The wait before the first restart; 0s: at once, and only the budget holds it.",
                        _restart.backoff.first_s,
                    ),
                    Key("factor", Number(1.0, 100.0), "What each further wait is multiplied by.", _restart.backoff.factor),
                    Key("max", Duration(0.1, 7 * 86400.0), "The longest wait.", _restart.backoff.max_s),
                    Key(
                        "jitter",
                        Ratio(),
                        "How far a wait is spread, up and down, so that jobs do not come back all at once.",
                        _restart.backoff.jitter,
                    ),
                ]
            ),
            "How long to wait before a restart.",
        ),
        Key(
            "budget",
            Shape(
                [
                    Key(
                        "restarts",
                        Whole(0, 10_000),
                        "Restarts allowed in the window. One more: a service or a triggered job is parked, the run of a job with fire times is over.",
                        _restart.budget.restarts,
                    ),
                    Key("within", Duration(1.0, 366 * 86400.0), "The length of the window.", _restart.budget.within_s),
                ]
            ),
            "When to give up.",
        ),
        Key(
            "retry_on",
            Nullable(ListOf(Word(_BAD_OUTCOMES), lambda words: frozenset(map(Outcome, words)), "[exception, memory]", least=1)),
            "Outcomes that are followed by a restart.",
            _restart.retry_on,
            default_note="null: every bad one",
        ),
        Key(
            "park_on",
            ListOf(Word(_BAD_OUTCOMES), lambda words: frozenset(map(Outcome, words)), "[recursion]"),
            "Outcomes that park the job at once.",
            _restart.park_on,
        ),
        Key(
            "stable",
            Duration(0.1),
            "An attempt that lived this long starts the back-off afresh; of a service it also ends a sequence of failures (docs/healing.md).",
            _restart.stable_s,
        ),
    ],
    hints={"policy": "write when", "delay": "write backoff: {first: ...}", "max_retries": "write budget: {restarts: ...}"},
)

STOP = Shape(
    [
        Key("signal", Signal(), "The signal that asks the job to end.", _stop.signal),
        Key("grace", Duration(0.0, 3600.0), "How long it has before the whole tree is killed.", _stop.grace_s),
    ],
    hints={"timeout": "write grace"},
)

_EXIT_CODES = ListOf(Whole(0, 255), frozenset, "[0, 3]", least=1)

EXPECT = Shape(
    [
        Key(
            "success_every",
            Nullable(Duration(1.0)),
            "How old the last success may become. Older, and an incident opens (outcome `unmet`), which the next success closes. Exported as `mainstay_job_success_max_age_seconds`.",
            _expect.success_every_s,
        ),
        Key(
            "records_at_least",
            Nullable(Whole(0, 2**53)),
            "Records the job has to report; with fewer, exit code 0 is the outcome `unmet`.",
            _expect.records_at_least,
        ),
        Key("success_exit_codes", _EXIT_CODES, "Exit codes that are a success.", _expect.success_exit_codes),
    ]
)

ESCALATE = Shape(
    [
        Key(
            "after",
            Duration(1.0, 30 * 86400.0),
            "How long after the first alert; `mainstay incident ID --ack` before that keeps it from happening.",
            required=True,
        ),
        Key("to", ListOf(_RECEIVER_NAME, tuple, "[boss]", least=1), "Receivers, by name; they hear of the end, too.", required=True),
    ]
)

ALERTS = Shape(
    [
        Key("to", ListOf(_RECEIVER_NAME, tuple, "[ops]"), "Receivers of this job's alerts, by name.", _alerts.to),
        Key("after", Whole(1, 1000), "Failed attempts in a row before the first alert.", _alerts.after),
        Key(
            "remind",
            Nullable(Duration(60.0)),
            "Tell again after this long while the incident is open.",
            _alerts.remind_s,
            default_note="null: never",
        ),
        Key("severity", Word(("critical", "warning", "info"), {"error": "write critical"}), "How loud.", _alerts.severity),
        Key(
            "escalate",
            Nullable(ESCALATE),
            "Whom to tell as well when nobody has acknowledged the incident in time, e.g. `{after: 30m, to: [boss]}`.",
            default_note="null: nobody",
        ),
    ]
)

LOGS = Shape(
    [
        Key("max_size", Size(4096), "The captured output of an attempt turns over at this size; one older part is kept.", _logs.max_bytes),
        Key("keep", Whole(1, 10_000), "The output of this many attempts is kept (each restart is one).", _logs.keep_attempts),
    ]
)

DOSSIER = Shape(
    [
        Key(
            "output",
            Flag(),
            "Whether the end of what the job wrote is kept in its dossiers. The captured output itself is `logs`' business.",
            _dossier.output,
        ),
        Key(
            "messages",
            Flag(),
            "Whether the messages of its exceptions are kept; without them a dossier has types and places only.",
            _dossier.messages,
        ),
        Key(
            "values",
            Flag(),
            "Whether a recursion's dossier shows numbers that its functions were called with; without it, types, sizes and steps. Never those of secret name.",
            _dossier.values,
        ),
    ],
    hints={"stdout": "write output", "exceptions": "write messages"},
)

_FAULTS = ListOf(Word(Fault), tuple, "[memory, recursion]")

DRILL = Shape(
    [
        Key("faults", _FAULTS, "Faults that are drilled, one after the other.", _drill.faults),
        Key(
            "schedule",
            ScheduleKind(),
            "When: `{every: 1w}` or `{cron: ...}`.",
            _drill.schedule.when,
            default_note="`manual`: only by `mainstay drill`",
        ),
    ],
    hints={"fault": "write faults, a list"},
)

HEAL = heal_shape(VARIABLES)

METRICS = Shape(
    [
        Key(
            "multiprocess",
            Flag(),
            "Whether the job gets a `$PROMETHEUS_MULTIPROC_DIR` of its own for each attempt: what it counts with prometheus_client then survives "
            "SIGKILL and stands on Mainstay's page. The library reads the variable when it is imported, so a job that serves its metrics itself "
            "must not have it.",
            False,
        ),
    ],
    hints={"multiproc": "write multiprocess"},
)

JOB = Shape(
    [
        Key("description", Text(form="text", empty_ok=True), "What the job is for; alerts and pages show it.", ""),
        Key(
            "command",
            Command(),
            "The program and its arguments, as a list; no shell reads them.",
            default_note="this or `shell` has to be written",
        ),
        Key("shell", ShellLine(form='a line for /bin/sh, e.g. "a | b"'), "A line that /bin/sh runs, instead of `command`."),
        Key(
            "schedule",
            ScheduleKind(),
            "When the job runs: `{every: 1m}`, `{cron: ...}`, `manual` (only when triggered) or `service` (kept running).",
            Service(),
        ),
        Key("enabled", Flag(), "Whether the job runs at all.", True),
        Key(
            "directory",
            Path(),
            "The working directory; a relative one starts at the config file's.",
            default_note="the directory of the config file",
        ),
        Key(
            "environment",
            VARIABLES,
            "Environment variables of the job; they win over those in `environment_file`.",
            {},
        ),
        Key(
            "environment_file",
            Nullable(EnvironmentPath()),
            "A file with `KEY=VALUE` lines, read with the config; a `-` before the path allows it to be missing.",
        ),
        Key("user", Nullable(_PERSON), "The user the job runs as.", default_note="null: Mainstay's own"),
        Key("group", Nullable(_PERSON), "Its group.", default_note="null: the user's"),
        Key("groups", ListOf(_PERSON, tuple, "[adm]"), "Further groups.", ()),
        Key("umask", Nullable(Mask()), 'The mask for new files, in quotes: `"022"`.', default_note="null: Mainstay's own"),
        Key("nice", Nullable(Whole(-20, 19)), "CPU priority, 19 is the most modest.", default_note="null: Mainstay's own"),
        Key("guard", Flag(), "Whether a Python job gets the guard: recursion clamp, last words, stacks.", True),
        Key("limits", LIMITS, "The lines that the job must not cross."),
        Key("restart", RESTART, "What follows the end of an attempt."),
        Key("stop", STOP, "How the job is stopped."),
        Key("expect", EXPECT, "What has to hold although the exit code says success."),
        Key("success_exit_codes", _EXIT_CODES, "The same as `expect.success_exit_codes`, for short."),
        Key("alerts", ALERTS, "Who is told."),
        Key("logs", LOGS, "The captured output."),
        Key("metrics", METRICS, "The job's own metrics beside the file that `$MAINSTAY_METRICS` names."),
        Key("dossier", DOSSIER, "What of the job's own data its dossiers may hold. Secrets are taken out of them in any case."),
        Key("drill", DRILL, "Faults on purpose, in a stand-in with this job's limits and alert route, to prove that the alert arrives."),
        Key("heal", HEAL, "What is done about failures that will repeat, beyond restarting."),
        Key("io_class", Refused("not supported yet; remove it"), "Not supported yet."),
    ],
    rivals=(frozenset({"command", "shell"}),),
    hints={
        "cmd": "write command",
        "args": "put the arguments into command",
        "cron": "write schedule: {cron: ...}",
        "every": "write schedule: {every: ...}",
        "cwd": "write directory",
        "workdir": "write directory",
        "working_directory": "write directory",
        "env": "write environment",
        "env_file": "write environment_file",
        "memory": "write limits: {memory: ...}",
        "timeout": "write limits: {time: ...}",
        "time": "write limits: {time: ...}",
        "ionice": "remove it; it is not supported yet",
    },
)

_heartbeat = Heartbeat("")

HEARTBEAT = Shape(
    [
        Key(
            "url",
            SecretUrl(is_secret=True),
            "What is asked for (GET), e.g. a check of healthchecks.io or of your own. Either this or `url_file`.",
        ),
        Key("url_file", SecretUrlPath(), "A file with the address, where that is the password; only its owner may be able to read it."),
        Key("every", Duration(1.0, 86400.0), "How often.", _heartbeat.every_s),
        Key("timeout", Duration(0.1, 60.0), "How long one may take.", _heartbeat.timeout_s),
    ],
    rivals=(frozenset({"url", "url_file"}),),
)

SUPERVISOR = Shape(
    [
        Key(
            "state_dir",
            Path(),
            "History, logs and sockets; a relative path starts at the config file's directory. systemd's `$STATE_DIRECTORY` wins over it.",
            default_note="var beside the config file",
        ),
        Key(
            "listen",
            Nullable(Listen()),
            "Where /metrics, /healthz, the status page and the API are served; null: only on the unix socket.",
            Settings(state_dir="").listen,
        ),
        Key(
            "hosts",
            ListOf(_HOST, tuple, "[mainstay.example.org]"),
            "Further names by which browsers and programs ask for `listen`; a request by another name is refused (DNS rebinding).",
            Settings(state_dir="").hosts,
        ),
        Key(
            "web_config",
            Nullable(Path()),
            "A file with TLS, clients' certificates, basic auth and headers of `listen`, in the format of Prometheus' exporters "
            "(`--web.config.file`). Read again whenever it or one of its files changes.",
            default_note="null: no TLS, and nobody is asked for a password",
        ),
        Key(
            "actions",
            Word(TcpActions),
            "Whether jobs can be started, stopped and so on over TCP. `auto`: where `web_config` has TLS and demands a password or a verified "
            "certificate. `loopback`: also without, if `listen` is a loopback address; every user of this machine may act then. `never`: "
            "only on the unix socket.",
            Settings(state_dir="").actions,
        ),
        Key(
            "log",
            Shape(
                [
                    Key(
                        "level", Word(LogLevel, {"warn": "write warning"}), "The least important messages that are written.", LogLevel.INFO
                    ),
                    Key(
                        "format",
                        Word(LogFormat),
                        "`auto` is the console on a terminal, the journal's own protocol under systemd, JSON otherwise.",
                        LogFormat.AUTO,
                    ),
                ]
            ),
            "Mainstay's own log.",
        ),
        Key(
            "external_url",
            Nullable(Url()),
            "Where people reach the status page, e.g. https://mainstay.example.org; notifications link to the incident there.",
            default_note="null: no links",
        ),
        Key(
            "heartbeat",
            Nullable(HEARTBEAT),
            "A dead man's switch: while the loop supervises, it asks for this address, so that somebody else notices when it no longer does.",
            default_note="null: none",
        ),
        Key("history", Duration(3600.0), "How long runs and incidents are remembered.", Settings(state_dir="").history_days * 86400),
        Key(
            "trace_signals",
            Flag(),
            "Let the kernel's trace tell who sent a signal that ended a job: an instance of tracefs of our own. For root, and read at the start; where"
            " it cannot be had, a warning says so.",
            Settings(state_dir="").trace_signals,
        ),
    ]
)

MAINTENANCE = Shape(
    [
        Key("every", Duration(60.0), "A window opens at this interval, as `schedule.every`. Either this or `cron`."),
        Key("cron", CronExpression(), "A window opens at these times, as `schedule.cron`."),
        Key("timezone", Timezone(), "The time zone of `cron`.", _cron.timezone),
        Key("for", Duration(60.0, 31 * 86400.0), "How long it stays open.", required=True),
        Key(
            "jobs",
            Nullable(ListOf(Text(form="the name of a job", pattern=NAME), tuple, "[nightly]", least=1)),
            "The jobs that it holds for.",
            default_note="null: all",
        ),
    ],
    hints={"duration": "write for", "tz": "write timezone"},
)

_TYPE = "The type of the receiver."
_HEADERS = TextMap(r"[A-Za-z0-9-]{1,64}", "an HTTP header, e.g. X-Team", is_secretive, "", "{X-Team: ops}")
_LABELS = TextMap(VARIABLE, "a label of letters, digits and _", lambda _name: False, "", "{team: ops}")
_webhook, _am = WebhookReceiver("", ""), AlertmanagerReceiver("", ())
_mail, _program = EmailReceiver("", (), ""), CommandReceiver("", (), "")
_slack, _pager, _apprise = SlackReceiver("", ""), PagerDutyReceiver("", ""), AppriseReceiver("", ())


def _templates(subject: str, body: str) -> list[Key]:
    """The keys for a receiver's own words; what they become there."""
    own = "null: Mainstay's own words"
    return [
        Key(
            "subject",
            Nullable(TemplateText(lines=False)),
            f"A template for {subject}; docs/notifications.md has the fields.",
            default_note=own,
        ),
        Key("body", Nullable(TemplateText(lines=True)), f"A template for {body}.", default_note=own),
    ]


RECEIVERS = {
    "webhook": Shape(
        [
            Key("type", Word(("webhook",)), _TYPE, required=True),
            Key("url", SecretUrl(), "Where the JSON document is posted to. Either this or `url_file`."),
            Key("url_file", SecretUrlPath(), "A file with the address; only its owner may be able to read it."),
            Key(
                "secret_file",
                Nullable(SecretPath()),
                "A file with the secret that signs each post (headers `X-Mainstay-Signature` and `X-Mainstay-Timestamp`); only its owner may be able to read it.",
            ),
            Key("secret", Nullable(SecretText()), "The same, from a variable of Mainstay's environment."),
            Key("headers", _HEADERS, "Further headers.", dict(_webhook.headers)),
            Key("timeout", _TIMEOUT, "How long a delivery may take.", _webhook.timeout_s),
            *_templates("`subject` in the document", "`text` in the document"),
        ],
        rivals=(frozenset({"url", "url_file"}),),
    ),
    "alertmanager": Shape(
        [
            Key("type", Word(("alertmanager",)), _TYPE, required=True),
            Key("url", Url(), "The Alertmanager. Either this or `urls`."),
            Key("urls", ListOf(Url(), tuple, "[http://am1:9093, http://am2:9093]", least=1), "All members of an Alertmanager cluster."),
            Key("labels", _LABELS, "Labels added to each alert.", dict(_am.labels)),
            Key(
                "repost",
                Duration(1.0, 86400.0),
                "How often a firing alert is posted again; it ends by itself after four of these, at least 5m.",
                _am.repost_s,
            ),
            Key("timeout", _TIMEOUT, "How long a delivery may take.", _am.timeout_s),
            *_templates("the annotation `summary`", "the annotation `description`"),
        ]
    ),
    "email": Shape(
        [
            Key("type", Word(("email",)), _TYPE, required=True),
            Key("to", ListOf(_MAIL, tuple, "[ops@example.org]", least=1), "Who gets the mail.", required=True),
            Key("sender", _MAIL, "Whom it is from.", required=True),
            Key("host", _HOST, "The mail server.", _mail.host),
            Key("port", Whole(1, 65535), "Its port.", _mail.port),
            Key("tls", Word(("none", "starttls", "tls")), "How the connection is protected.", _mail.tls),
            Key("username", Nullable(Text(form="text")), "Who logs in at the server."),
            Key("password_file", Nullable(SecretPath()), "A file with the password; only its owner may be able to read it."),
            Key("password", Nullable(SecretText()), "The same, from a variable of Mainstay's environment."),
            Key("html", Flag(), "Whether an HTML part stands beside the plain text.", _mail.html),
            Key("timeout", _TIMEOUT, "How long a delivery may take.", _mail.timeout_s),
            *_templates("the subject", "the text"),
        ],
        hints={"from": "write sender", "smtp": "write host"},
    ),
    "slack": Shape(
        [
            Key("type", Word(("slack",)), _TYPE, required=True),
            Key(
                "url",
                SecretUrl(is_secret=True),
                "An incoming webhook of Slack or of what speaks like it. It is a password: `${NAME}`, or `url_file` instead.",
            ),
            Key("url_file", SecretUrlPath(), "A file with the address; only its owner may be able to read it."),
            Key("timeout", _TIMEOUT, "How long a delivery may take.", _slack.timeout_s),
            *_templates("the first line (Slack's mrkdwn)", "the lines after it (Slack's mrkdwn)"),
        ],
        rivals=(frozenset({"url", "url_file"}),),
    ),
    "pagerduty": Shape(
        [
            Key("type", Word(("pagerduty",)), _TYPE, required=True),
            Key("token", SecretText(), "The integration key of a service (Events API v2). Either this or `token_file`."),
            Key("token_file", SecretPath(), "A file with it; only its owner may be able to read it."),
            Key("url", SecretUrl(), "Where events are posted to.", default_note=f"`{PAGERDUTY_URL}`"),
            Key("timeout", _TIMEOUT, "How long a delivery may take.", _pager.timeout_s),
            *_templates("the summary", "`text` in the details"),
        ],
        rivals=(frozenset({"token", "token_file"}),),
        hints={
            "routing_key": "write token_file: the path of a file that holds it",
            "integration_key": "write token_file: the path of a file that holds it",
        },
    ),
    "command": Shape(
        [
            Key("type", Word(("command",)), _TYPE, required=True),
            Key(
                "command",
                Command(""),
                "A program that reads the notification as JSON from its standard input; exit code 0: delivered.",
                required=True,
            ),
            Key("directory", Path(), "Its working directory.", default_note="the directory of the config file"),
            Key("timeout", _TIMEOUT, "How long a delivery may take.", _program.timeout_s),
            *_templates("`subject` in the document", "`text` in the document"),
        ]
    ),
    "apprise": Shape(
        [
            Key("type", Word(("apprise",)), _TYPE, required=True),
            Key("urls", apprise_urls(), "Addresses of services as the apprise library has them. Either this or `urls_file`."),
            Key("urls_file", AppriseUrlsPath(), "A file with an address in each line; only its owner may be able to read it."),
            Key("timeout", _TIMEOUT, "How long a delivery to all of them may take.", _apprise.timeout_s),
            *_templates("the title", "the body"),
        ],
        rivals=(frozenset({"urls", "urls_file"}),),
    ),
}
