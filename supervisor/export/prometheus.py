"""Prometheus' files: alert rules, recording rules, promtool's unit tests of both, and the scrape configuration."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from supervisor.core.settings import Settings
from supervisor.export.alerts import GROUPS, RECORDS
from supervisor.export.definition import (
    Alert,
    Case,
    Options,
    Severity,
    duration,
    expression,
    matchers,
    record_expression,
    seconds,
    target_labels,
    words,
)
from supervisor.export.document import yaml_text

_VALUE: Final = {
    "duration": "{{ $value | humanizeDuration }}",
    "percent": "{{ $value | humanizePercentage }}",
    "count": '{{ $value | printf "%.0f" }}',
}


def files(settings: Settings, options: Options) -> dict[str, str]:
    """Path → text. No tests where nobody can say what a target that the selector finds would look like."""
    made = {"prometheus/alerts.yml": alerts(options), "prometheus/rules.yml": rules(options)}
    labels = target_labels(options.selector)
    if labels is not None:
        for step in sorted({case.step for _, members in GROUPS for alert in members for case in alert.cases}):
            made[f"prometheus/tests/alerts-{step}.yml"] = alert_tests(options, labels, step)
        made["prometheus/tests/rules.yml"] = rule_tests(labels)
    if settings.listen is not None:
        made["prometheus/scrape.yml"] = scrape(settings.listen, options)
    return made


def alerts(options: Options) -> str:
    """The alert rules."""
    groups = [{"name": name, "rules": [_rule(alert, options) for alert in members]} for name, members in GROUPS]
    return yaml_text({"groups": groups}, "Alerts about Mainstay and its jobs. Each links to its runbook.")


def _rule(alert: Alert, options: Options) -> dict[str, Any]:
    rule: dict[str, Any] = {"alert": alert.name, "expr": expression(alert, options)}
    wait, keep = options.pace.wait(seconds(alert.wait)), options.pace.keep(seconds(alert.keep))
    if wait:
        rule["for"] = duration(wait)
    if keep:
        rule["keep_firing_for"] = duration(keep)
    if alert.severity is not Severity.JOB:
        rule["labels"] = {"severity": str(alert.severity)}
    rule["annotations"] = {
        "summary": alert.summary,
        "description": words(alert.description, _VALUE, lambda name: f"{{{{ $labels.{name} }}}}"),
        "runbook_url": options.runbook(alert),
    }
    return rule


def rules(options: Options) -> str:
    """The recording rules that the dashboards read."""
    recorded = [{"record": record.name, "expr": record_expression(record, options)} for record in RECORDS]
    return yaml_text({"groups": [{"name": "mainstay-records", "rules": recorded}]}, "Figures that the dashboards read.")


def scrape(listen: tuple[str, int], options: Options) -> str:
    """A scrape configuration for this config's address."""
    host, port = listen
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    labels = target_labels(options.selector) or {}
    wanted = {name for name, _, _ in matchers(options.selector)}
    more = {name: value for name, value in sorted(labels.items()) if name in wanted - {"job", "instance"}}
    static: dict[str, Any] = {"targets": [target]} | ({"labels": more} if more else {})
    about = "Put it under scrape_configs of prometheus.yml, or name this file under scrape_config_files (Prometheus 2.43 and later)."
    return yaml_text({"scrape_configs": [{"job_name": labels.get("job", "mainstay"), "static_configs": [static]}]}, about)


# ---------------------------------------------------------------- unit tests


def alert_tests(options: Options, target: Mapping[str, str], step: str = "1m") -> str:
    """Promtool's unit tests: every alert's firing and silent cases that go at this step. A day is not played in minutes: that takes promtool seconds."""
    cases = ((alert, case) for _, members in GROUPS for alert in members for case in alert.cases if case.step == step)
    tests = [_alert_test(alert, case, options, target) for alert, case in cases]
    document = {"rule_files": ["../alerts.yml"], "evaluation_interval": step, "tests": tests}
    return yaml_text(document, "Run with: promtool test rules tests/*.yml")


def _alert_test(alert: Alert, case: Case, options: Options, target: Mapping[str, str]) -> dict[str, Any]:
    expectation: dict[str, Any] = {"eval_time": case.at, "alertname": alert.name}
    if case.labels is not None:
        labels = _expected_labels(alert, case, options, target)
        value = dict.fromkeys(_VALUE, case.value)
        expectation["exp_alerts"] = [
            {
                "exp_labels": labels,
                "exp_annotations": {
                    "summary": alert.summary,
                    "description": words(alert.description, value, lambda name: labels[name]),
                    "runbook_url": options.runbook(alert),
                },
            }
        ]
    else:
        expectation["exp_alerts"] = []
    return {
        "name": f"{alert.name}: {case.says}",
        "interval": case.step,
        "input_series": _series(case, target),
        "alert_rule_test": [expectation],
    }


def _expected_labels(alert: Alert, case: Case, options: Options, target: Mapping[str, str]) -> dict[str, str]:
    """What the alert bears beside its name: the target's labels, the case's own, a severity."""
    if "{}" not in alert.expr and "{" not in alert.expr:  # it looks at no target
        found: dict[str, str] = {}
    elif alert.expr.startswith("absent("):  # takes its labels from the matchers, where they are equalities
        found = {name: value for name, operator, value in matchers(options.selector) if operator == "="}
    else:
        found = dict(target)
    found |= case.labels or {}
    return found if alert.severity is Severity.JOB else {**found, "severity": str(alert.severity)}


def rule_tests(target: Mapping[str, str]) -> str:
    """Promtool's unit tests of the recording rules."""
    tests = []
    for record in RECORDS:
        case = record.case
        labels = ", ".join(f'{name}="{_escaped(value)}"' for name, value in sorted({**target, **(case.labels or {})}.items()))
        sample = {"labels": f"{record.name}{{{labels}}}", "value": float(case.value)}
        tests.append(
            {
                "name": f"{record.name}: {case.says}",
                "interval": "1m",
                "input_series": _series(case, target),
                "promql_expr_test": [{"expr": record.name, "eval_time": case.at, "exp_samples": [sample]}],
            }
        )
    document = {"rule_files": ["../rules.yml"], "evaluation_interval": "1m", "tests": tests}
    return yaml_text(document, "Run with: promtool test rules tests/*.yml")


def _series(case: Case, target: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"series": _with_target(series, target), "values": values} for series, values in case.series.items()]


def _with_target(series: str, target: Mapping[str, str]) -> str:
    name, _, rest = series.partition("{")
    own = ",".join(_label_pairs(target.items()))
    return f"{name}{{{own}{',' + rest if rest else '}'}"


def _label_pairs(labels: Iterable[tuple[str, str]]) -> list[str]:
    return [f'{name}="{_escaped(value)}"' for name, value in labels]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
