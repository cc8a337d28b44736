"""What an alert is before anybody's file format: expression, waits, words, and the situations that prove it. Pure data and its text.

An expression is written with bare selectors (``up{} == 0``): the writer puts the target selector into each pair of braces, and paces the
ranges, so that tests can live faster than people. Words hold fields in braces: ``{job_name}`` and other labels, ``{value:duration}``,
``{value:percent}``, ``{value:count}``.
"""

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct, field

from supervisor.core.units import quoted

RUNBOOKS: Final = "file:///opt/mainstay/docs/runbooks"  # where systemd/README.md installs them
JOIN: Final = "on (job, instance, job_name)"
_SELECTOR: Final = re.compile(r"\b([a-z_][a-z0-9_]*)\{")
_RANGE: Final = re.compile(r"\[(\d+[smhd])(?::(\d+[smhd]))?\]")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_FIELD: Final = re.compile(r"\{(\w+)(?::(\w+))?\}")
_MATCHER: Final = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')


class Severity(StrEnum):
    """How loud. ``JOB``: as loud as the job's own ``alerts.severity``, which comes with ``mainstay_job_info``."""

    CRITICAL = "critical"
    WARNING = "warning"
    NONE = "none"
    JOB = "job"


class Case(Struct, frozen=True):
    """A situation as promtool plays it: one sample and one evaluation each ``step``.

    ``series``: name and labels → values in promtool's notation. ``at`` is when it is looked at. ``labels`` and ``value`` (as the text that a person
    reads) are what has to fire then; ``labels`` None: nothing may.
    """

    says: str
    series: Mapping[str, str]
    at: str
    labels: Mapping[str, str] | None = None
    value: str = ""
    step: str = "1m"


class Alert(Struct, frozen=True):
    """One alert: the single source of its Prometheus rule, that rule's unit test, its Grafana-managed twin, the index of runbooks and the docs.

    ``wait`` is Prometheus' ``for``, ``keep`` its ``keep_firing_for`` (what bridges a restart of Mainstay, when one scrape finds nobody). ``panel`` is
    the panel of a dashboard that shows it: (dashboard's uid, panel's id).
    """

    name: str
    expr: str
    severity: Severity
    summary: str
    description: str
    wait: str = "0s"
    keep: str = "0s"
    panel: tuple[str, int] | None = None
    cases: tuple[Case, ...] = ()

    @property
    def is_of_job(self) -> bool:
        """True when it speaks of one job, not of the supervisor."""
        return self.name.startswith("MainstayJob")


class Record(Struct, frozen=True):
    """A recording rule: a figure that several dashboards read."""

    name: str
    expr: str
    case: Case


def _same(seconds: float) -> float:
    return seconds


class Pace(Struct, frozen=True):
    """How long waits are, from what people are given: ``wait`` and ``keep`` of alerts, ``range`` of expressions, in seconds. The tests live faster."""

    wait: Callable[[float], float] = _same
    keep: Callable[[float], float] = _same
    range: Callable[[float], float] = _same


class Options(Struct, frozen=True):
    """What the person who exports may choose. ``selector`` finds Mainstay's targets; ``runbook_url`` is the folder of the runbooks.

    ``webhook`` and ``deadman`` are where Alertmanager posts all alerts, and the watchdog alone. ``prometheus``: its
    URL as Grafana sees it; ``datasource``: the uid of that data source; ``dashboards``: where on Grafana's host the dashboards are put.
    """

    selector: str = 'job="mainstay"'
    runbook_url: str = RUNBOOKS
    webhook: str | None = None
    deadman: str | None = None
    prometheus: str = "http://127.0.0.1:9090"
    datasource: str = "mainstay-prometheus"
    dashboards: str = "/var/lib/grafana/dashboards/mainstay"
    pace: Pace = field(default_factory=Pace)

    def runbook(self, alert: Alert) -> str:
        """Where the alert's runbook stands."""
        return f"{self.runbook_url.rstrip('/')}/{alert.name}.md"


def check_selector(text: str) -> str:
    """*text* without braces. ``ValueError`` if it is no list of matchers."""
    inner = text.strip().removeprefix("{").removesuffix("}").strip().removesuffix(",")
    at = 0
    while at < len(inner):
        found = _MATCHER.match(inner, at)
        if found is None:
            raise ValueError(f'{quoted(text)} is no selector; write matchers, e.g. job="mainstay",env="prod"')
        at = found.end()
    if not inner:
        raise ValueError('it is empty; write matchers, e.g. job="mainstay"')
    return inner


def matchers(selector: str) -> list[tuple[str, str, str]]:
    """(label, operator, value) of each matcher."""
    return [(found[1], found[2], found[3].replace('\\"', '"').replace("\\\\", "\\")) for found in _MATCHER.finditer(selector)]


def target_labels(selector: str) -> dict[str, str] | None:
    """Labels of a target that *selector* finds, for unit tests; None when none can be told from its regular expressions."""
    labels = {"job": "mainstay", "instance": "host:9321"}
    for name, operator, value in matchers(selector):
        if operator == "=":
            labels[name] = value
        elif operator == "=~":
            labels[name] = value.split("|")[0].strip("()").replace(".*", "").replace(".+", "x") or "x"
    for name, operator, value in matchers(selector):
        is_match = re.fullmatch(value, labels.get(name, "")) is not None if "~" in operator else labels.get(name, "") == value
        if is_match is operator.startswith("!"):
            return None
    return labels


def seconds(duration: str) -> float:
    """Of a duration with one unit, e.g. 15m."""
    return float(duration[:-1]) * _SECONDS[duration[-1]]


def duration(length_s: float) -> str:
    """As Prometheus writes it: the largest unit that is whole."""
    if length_s != int(length_s):
        return f"{round(length_s * 1000)}ms"
    whole = int(length_s)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole and whole % size == 0:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def with_selector(expr: str, selector: str) -> str:
    """*expr* with *selector* in each pair of braces after a metric's name."""

    def put(found: re.Match[str]) -> str:
        follows = found.string[found.end()] != "}"
        return f"{found[1]}{{{selector}{',' if follows else ''}"

    return _SELECTOR.sub(put, expr)


def paced(expr: str, pace: Pace) -> str:
    """*expr* with its ranges at this pace."""

    def put(found: re.Match[str]) -> str:
        step = f":{duration(pace.range(seconds(found[2])))}" if found[2] else ""
        return f"[{duration(pace.range(seconds(found[1])))}{step}]"

    return _RANGE.sub(put, expr)


def expression(alert: Alert, options: Options) -> str:
    """The PromQL of *alert*. A job's severity is joined on from its info metric."""
    text = alert.expr.strip()
    if alert.severity is Severity.JOB:
        text = f"(\n{_indented(text)}\n)\n* {JOIN} group_left (severity) mainstay_job_info{{}}"
    return paced(with_selector(text, options.selector), options.pace)


def record_expression(record: Record, options: Options) -> str:
    """The PromQL of a recording rule."""
    return paced(with_selector(record.expr.strip(), options.selector), options.pace)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def words(text: str, value: Mapping[str, str], label: Callable[[str], str]) -> str:
    """*text* with its fields filled: a label by *label*, the value by its form (duration, percent, count)."""
    return _FIELD.sub(lambda found: value[found[2]] if found[1] == "value" else label(found[1]), text)
