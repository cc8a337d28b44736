"""Checked sections as the frozen values of ``core``: a field for each key, no decision left."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec.structs import replace

from supervisor.config import healing
from supervisor.config.shape import Section
from supervisor.core import settings
from supervisor.core.jobs import (
    AlertPolicy,
    Backoff,
    Budget,
    Cron,
    DossierPolicy,
    DrillPolicy,
    Escalation,
    Every,
    Expect,
    Job,
    Launch,
    Limits,
    LogPolicy,
    RestartPolicy,
    Schedule,
    StopPolicy,
    Window,
)

SHELL = "/bin/sh"


def jobs(sections: Mapping[str, Section], windows: Mapping[str, Iterable[Window]]) -> dict[str, Job]:
    """The jobs that *sections* describe, each with the maintenance *windows* that hold for it. What is equal in several of them is one value."""
    known: dict[Any, Any] = {}
    return {name: _sharing(job(name, section, windows.get(name, ())), known) for name, section in sections.items()}


_SHARED: Final = ("schedule", "limits", "restart", "stop", "expect", "alerts", "dossier", "logs", "drills", "maintenance")


def _sharing(built: Job, known: dict[Any, Any]) -> Job:
    """*built* with parts out of *known* wherever that has an equal one. Of a thousand jobs most differ in name and command only."""
    parts = {name: getattr(built, name) for name in _SHARED}
    return replace(built, **{name: known.setdefault((name, part), part) for name, part in parts.items()})


def job(name: str, section: Section, windows: Iterable[Window] = ()) -> Job:
    """The job that *section* describes, with the maintenance *windows* that hold for it."""
    return Job(
        name=name,
        launch=_launch(section),
        schedule=_schedule(section["schedule"]),
        limits=_limits(section["limits"]),
        restart=_restart(section["restart"]),
        stop=StopPolicy(section["stop"]["signal"], section["stop"]["grace"]),
        expect=_expect(section["expect"]),
        alerts=_alerts(section["alerts"]),
        dossier=DossierPolicy(section["dossier"]["output"], section["dossier"]["messages"], section["dossier"]["values"]),
        logs=LogPolicy(section["logs"]["max_size"], section["logs"]["keep"]),
        drills=DrillPolicy(section["drill"]["faults"], _schedule(section["drill"]["schedule"])),
        heal=healing.policy(section["heal"]),
        enabled=section["enabled"],
        description=section["description"],
        maintenance=tuple(windows),
        multiprocess_metrics=section["metrics"]["multiprocess"],
    )


def window(name: str, section: Section) -> Window:
    """The maintenance window that *section* describes."""
    when = Every(section["every"]) if "every" in section.written else Cron(section["cron"], section["timezone"])
    return Window(name, when, section["for"])


def daemon(section: Section) -> settings.Settings:
    """The ``supervisor:`` section."""
    heartbeat = section["heartbeat"]
    return settings.Settings(
        state_dir=section["state_dir"],
        listen=section["listen"],
        hosts=section["hosts"],
        web_config=section["web_config"],
        actions=section["actions"],
        log_level=section["log"]["level"],
        log_format=section["log"]["format"],
        history_days=section["history"] / 86400,
        external_url=None if section["external_url"] is None else section["external_url"].rstrip("/"),
        heartbeat=None if heartbeat is None else settings.Heartbeat(_hidden(heartbeat, "url"), heartbeat["every"], heartbeat["timeout"]),
        trace_signals=section["trace_signals"],
    )


def receiver(name: str, section: Section, external_url: str | None = None) -> settings.Receiver:
    """The receiver that *section* describes, by its type."""
    layout = settings.Layout(section["subject"], section["body"], external_url)
    timeout_s = section["timeout"]
    match section["type"]:
        case "webhook":
            secret = _secret(section, "secret_file") or _secret(section, "secret")
            return settings.WebhookReceiver(name, _hidden(section, "url"), secret, section["headers"], timeout_s, layout)
        case "alertmanager":
            urls = section["urls"] or (section["url"],)
            return settings.AlertmanagerReceiver(name, urls, section["labels"], section["repost"], timeout_s, layout)
        case "email":
            plain = _values(section, to="to", sender="sender", host="host", port="port", tls="tls", username="username", html="html")
            password = _secret(section, "password_file") or _secret(section, "password")
            return settings.EmailReceiver(name, password=password, timeout_s=timeout_s, layout=layout, **plain)
        case "slack":
            return settings.SlackReceiver(name, _hidden(section, "url"), timeout_s, layout)
        case "pagerduty":
            url = section["url"].text if section["url"] else settings.PAGERDUTY_URL
            return settings.PagerDutyReceiver(name, _hidden(section, "token"), url, timeout_s, layout)
        case "apprise":
            urls = section["urls_file"].text.splitlines() if section["urls_file"] else (one.text for one in section["urls"])
            return settings.AppriseReceiver(name, tuple(urls), timeout_s, layout)
        case _:
            return settings.CommandReceiver(name, section["command"], section["directory"], timeout_s, layout)


def _launch(section: Section) -> Launch:
    argv = (SHELL, "-c", section["shell"]) if "shell" in section.written else section["command"]
    plain = _values(section, user="user", group="group", groups="groups", umask="umask", nice="nice", guard="guard")
    return Launch(argv=argv, directory=section["directory"], environment=_environment(section), **plain)


def _environment(section: Section) -> Mapping[str, str]:
    file = section["environment_file"]
    return {**(file.values if file else {}), **section["environment"]}


def _schedule(value: Any) -> Schedule:
    if not isinstance(value, Section):
        return Schedule(value)
    when = Every(value["every"]) if "every" in value.written else Cron(value["cron"], value["timezone"])
    return Schedule(when, **_values(value, jitter_s="jitter", catch_up="catch_up", within_s="within", overlap="overlap"))


def _limits(section: Section) -> Limits:
    return Limits(
        memory_bytes=section["memory"],
        memory_soft_bytes=section["memory_soft"],
        recursion_frames=section["recursion"],
        time_s=section["time"],
        cpu_s=section["cpu"],
        stall_s=section["stall"],
        processes=section["processes"],
        files=section["files"],
        output_bytes=section["output"],
        output_action=section["output_action"],
    )


def _restart(section: Section) -> RestartPolicy:
    return RestartPolicy(
        when=section["when"],
        backoff=Backoff(**_values(section["backoff"], first_s="first", factor="factor", max_s="max", jitter="jitter")),
        budget=Budget(section["budget"]["restarts"], section["budget"]["within"]),
        retry_on=section["retry_on"],
        park_on=section["park_on"],
        stable_s=section["stable"],
    )


def _expect(section: Section) -> Expect:
    return Expect(section["success_every"], section["records_at_least"], section["success_exit_codes"])


def _alerts(section: Section) -> AlertPolicy:
    escalate = section["escalate"]
    plain = _values(section, to="to", after="after", remind_s="remind", severity="severity")
    return AlertPolicy(**plain, escalate=None if escalate is None else Escalation(escalate["after"], escalate["to"]))


def _values(section: Section, **fields: str) -> dict[str, Any]:
    """The values of *section* by field name; ``fields`` says which key each field takes."""
    return {name: section[key] for name, key in fields.items()}


def _hidden(section: Section, key: str) -> str:
    """The value that stands under *key* or in the file that *key*_file names."""
    secret = section[f"{key}_file"] or section[key]
    return str(secret.text)


def _secret(section: Section, key: str) -> str | None:
    secret = section[key]
    return secret.text if secret else None
