"""Grafana's files: dashboards, and what provisions them, the data source and Grafana-managed twins of the Prometheus alerts.

The alerting file has the format of *file* provisioning, which is not that of the HTTP API: ``folder`` and ``interval`` as texts,
``keepFiringFor`` in camels. Grafana expands ``$NAME`` in labels from its environment, so a dollar there is doubled; annotations expand only ``${NAME}``.
"""

from typing import Any, Final

from supervisor.export.alerts import GROUPS
from supervisor.export.dashboards import dashboards
from supervisor.export.definition import Alert, Options, Severity, duration, expression, seconds, words
from supervisor.export.document import json_text, yaml_text

FOLDER: Final = "Mainstay"
INTERVAL: Final = "30s"  # a multiple of Grafana's base interval, 10 s
WRITTEN_FOR: Final = "12 and 13"
_VALUE: Final = {
    "duration": "{{ humanizeDuration $values.A.Value }}",
    "percent": "{{ humanizePercentage $values.A.Value }}",
    "count": '{{ printf "%.0f" $values.A.Value }}',
}
_EXPRESSION: Final = {"type": "__expr__", "uid": "__expr__"}


def files(options: Options) -> dict[str, str]:
    """Path → text."""
    made = {f"grafana/dashboards/{name}": json_text(document) for name, document in dashboards(options.selector).items()}
    about = f"Written for Grafana {WRITTEN_FOR}; no Grafana server was run to test it."
    made["grafana/provisioning/datasources/mainstay.yml"] = yaml_text(datasources(options), about)
    made["grafana/provisioning/dashboards/mainstay.yml"] = yaml_text(providers(options), about)
    made["grafana/provisioning/alerting/mainstay.yml"] = yaml_text(
        alerting(options), about + " Use it or Prometheus' alerts.yml, not both."
    )
    return made


def datasources(options: Options) -> dict[str, Any]:
    """The Prometheus that scrapes Mainstay."""
    source = {
        "name": "Prometheus of Mainstay",
        "uid": options.datasource,
        "type": "prometheus",
        "access": "proxy",
        "url": options.prometheus,
        "isDefault": False,
        "editable": False,
        "jsonData": {"httpMethod": "POST", "timeInterval": "15s"},
    }
    return {"apiVersion": 1, "datasources": [source]}


def providers(options: Options) -> dict[str, Any]:
    """Where Grafana finds the dashboards."""
    provider = {
        "name": "mainstay",
        "orgId": 1,
        "folder": FOLDER,
        "type": "file",
        "disableDeletion": False,
        "updateIntervalSeconds": 60,
        "allowUiUpdates": False,
        "options": {"path": options.dashboards},
    }
    return {"apiVersion": 1, "providers": [provider]}


def alerting(options: Options) -> dict[str, Any]:
    """The same alerts as Grafana evaluates them."""
    groups = [
        {"orgId": 1, "name": name, "folder": FOLDER, "interval": INTERVAL, "rules": [_rule(alert, options) for alert in members]}
        for name, members in GROUPS
    ]
    return {"apiVersion": 1, "groups": groups}


def _rule(alert: Alert, options: Options) -> dict[str, Any]:
    """A: what Prometheus would alert on. B: 1 for each series that A has, whatever its value. C: fires for each of them.

    No data is the good case here, so it is not an alert; a query that fails is (as ``DatasourceError``).
    """
    rule: dict[str, Any] = {
        "uid": uid(alert),
        "title": alert.name,
        "condition": "C",
        "data": [
            _data("A", options.datasource, {"expr": expression(alert, options), "instant": True, "range": False, "editorMode": "code"}),
            _data("B", "__expr__", {"type": "math", "expression": "is_number($A) || is_nan($A) || is_inf($A)", "datasource": _EXPRESSION}),
            _data(
                "C",
                "__expr__",
                {
                    "type": "threshold",
                    "expression": "B",
                    "conditions": [{"evaluator": {"type": "gt", "params": [0]}}],
                    "datasource": _EXPRESSION,
                },
            ),
        ],
        "noDataState": "OK",
        "execErrState": "Error",
        "for": duration(seconds(alert.wait)),
        "annotations": {
            "summary": alert.summary,
            "description": words(alert.description, _VALUE, lambda name: f"{{{{ $labels.{name} }}}}"),
            "runbook_url": options.runbook(alert),
        },
        "labels": {} if alert.severity is Severity.JOB else {"severity": str(alert.severity)},
        "isPaused": False,
    }
    if seconds(alert.keep):
        rule["keepFiringFor"] = duration(seconds(alert.keep))
    if alert.panel is not None:
        rule["dashboardUid"], rule["panelId"] = alert.panel
    return rule


def uid(alert: Alert) -> str:
    """At most 40 letters, stable."""
    return f"mainstay-{alert.name.removeprefix('Mainstay').lower()}"


def _data(letter: str, source: str, model: dict[str, Any]) -> dict[str, Any]:
    window = {"from": 0 if source == "__expr__" else 600, "to": 0}
    return {"refId": letter, "relativeTimeRange": window, "datasourceUid": source, "model": {"refId": letter, **model}}
