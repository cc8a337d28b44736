"""Alertmanager's file: routes by severity, what suppresses what, and the dead man's switch."""

from typing import Any, Final

from supervisor.core.settings import AlertmanagerReceiver, Config, EmailReceiver
from supervisor.export.alerts import ALERTS, WATCHDOG
from supervisor.export.document import yaml_text

PATH: Final = "alertmanager/alertmanager.yml"
INCIDENT: Final = "MainstayIncident"
"""The name under which Mainstay itself posts its incidents (receivers of type alertmanager)."""

_ABOUT: Final = """Routes for Mainstay's alerts. Where an alert goes is yours to complete: receivers without an integration tell nobody.
# To merge it into a file of your own, take the first of `routes` whole, the receivers and the inhibit_rules."""


def files(config: Config, webhook: str | None, deadman: str | None) -> dict[str, str]:
    """Path → text. *webhook*: URL that every alert is posted to; *deadman*: URL that the watchdog is posted to, again and again."""
    return {PATH: yaml_text(document(config, webhook, deadman), _ABOUT)}


def document(config: Config, webhook: str | None, deadman: str | None) -> dict[str, Any]:
    """The file as values."""
    return {
        "route": {
            "receiver": "default",
            "group_by": ["alertname"],
            "routes": [_route()],
        },
        "receivers": [
            {"name": "default"},
            *(_receiver(f"mainstay-{severity}", config, webhook) for severity in ("critical", "warning", "info")),
            {"name": "mainstay-deadman"} | ({"webhook_configs": [{"url": deadman, "send_resolved": False}]} if deadman else {}),
        ],
        "inhibit_rules": inhibitions(config),
    }


def _route() -> dict[str, Any]:
    """The watchdog alone and at a beat; then by severity. Repeats come on the grid of ``group_interval``, so both are the same there."""
    return {
        "matchers": ['alertname=~"Mainstay.*"'],
        "receiver": "mainstay-warning",
        "group_by": ["alertname", "instance", "job_name"],
        "group_wait": "10s",
        "group_interval": "1m",
        "repeat_interval": "4h",
        "routes": [
            {
                "matchers": [f'alertname="{WATCHDOG}"'],
                "receiver": "mainstay-deadman",
                "group_wait": "0s",
                "group_interval": "1m",
                "repeat_interval": "1m",
            },
            {"matchers": ['severity="critical"'], "receiver": "mainstay-critical", "repeat_interval": "1h"},
            {"matchers": ['severity="info"'], "receiver": "mainstay-info", "group_wait": "5m", "repeat_interval": "1d"},
        ],
    }


def _receiver(name: str, config: Config, webhook: str | None) -> dict[str, Any]:
    """Mail as the config's receivers have it, and the webhook. Secrets stay where they are: Alertmanager reads its own file."""
    made: dict[str, Any] = {"name": name}
    if mails := [_mail(receiver) for receiver in config.receivers.values() if isinstance(receiver, EmailReceiver)]:
        made["email_configs"] = mails
    if webhook:
        made["webhook_configs"] = [{"url": webhook, "send_resolved": True}]
    return made


def _mail(receiver: EmailReceiver) -> dict[str, Any]:
    mail: dict[str, Any] = {
        "to": ", ".join(receiver.to),
        "from": receiver.sender,
        "smarthost": f"{receiver.host}:{receiver.port}",
        "require_tls": receiver.tls == "starttls",
        "send_resolved": True,
    }
    if receiver.username is not None:
        mail["auth_username"] = receiver.username
        mail["auth_password_file"] = f"/etc/alertmanager/{receiver.name}.password"
    return mail


def inhibitions(config: Config) -> list[dict[str, Any]]:
    """What is a consequence of something worse is not said as well."""
    rules = [
        _inhibits(["MainstayDown", "MainstayStalled"], "MainstayJob.*|MainstayIncidentsOpen", ["instance"]),
        _inhibits(
            ["MainstayJobParked"],
            "MainstayJobFailed|MainstayJobDown|MainstayJobCrashLooping|MainstayJobNotSucceededInTime|MainstayJobFlapping",
            ["instance", "job_name"],
        ),
        _inhibits(["MainstayJobCrashLooping"], "MainstayJobFailed|MainstayJobDown|MainstayJobFlapping", ["instance", "job_name"]),
        _inhibits(["MainstayJobFailed"], "MainstayJobLimitExceeded|MainstayJobNotSucceededInTime", ["instance", "job_name"]),
    ]
    if any(isinstance(receiver, AlertmanagerReceiver) for receiver in config.receivers.values()):
        # Mainstay posts its incidents itself, with the evidence: Prometheus need not say the same with less.
        rules.append(_inhibits([INCIDENT], "MainstayJobFailed|MainstayJobLimitExceeded", ["job_name"]))
    return rules


def _inhibits(sources: list[str], targets: str, equal: list[str]) -> dict[str, Any]:
    unknown = {*sources, *targets.split("|")} - ALERTS.keys() - {INCIDENT, "MainstayJob.*"}
    if unknown:
        raise AssertionError(unknown)
    operator = "=" if len(sources) == 1 else "=~"
    return {
        "source_matchers": [f'alertname{operator}"{"|".join(sources)}"'],
        "target_matchers": [f'alertname=~"{targets}"'],
        "equal": equal,
    }
