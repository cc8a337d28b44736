"""Grafana's files without a Grafana: the types of its own SDK, a house lint, our list of keys. What the queries answer is asked in e2e."""

import copy
import json
import re
import warnings

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import units

from supervisor.adapters.metrictable import TABLE
from supervisor.export import grafana
from supervisor.export.alerts import ALERTS, RECORDS
from supervisor.export.dashboards import dashboards
from supervisor.export.definition import Options, Severity, seconds

with warnings.catch_warnings():  # the SDK would rather have the v2 schema; every Grafana still loads the classic one
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()
SELECTOR = Options().selector
ALL = dashboards(SELECTOR)
UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}
UNITS |= {getattr(value, "value", None) for value in vars(units).values()}
SCRAPED = {"up", "scrape_duration_seconds", "scrape_samples_scraped"}
SUFFIXES = ("_bucket", "_sum", "_count")


def targets(dashboard):
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel, target


def expressions(dashboard):
    """Every query of panels, annotations and variables."""
    yield from (target["expr"] for _, target in targets(dashboard))
    yield from (one["expr"] for one in dashboard["annotations"]["list"])
    yield from (one["definition"] for one in dashboard["templating"]["list"] if "definition" in one)


def lost(before, after, path=""):
    """Every key and value of *before* that is not in *after*."""
    if isinstance(before, dict):
        for key, value in before.items():
            if not isinstance(after, dict) or key not in after:
                yield f"{path}.{key}"
            else:
                yield from lost(value, after[key], f"{path}.{key}")
    elif isinstance(before, list):
        for index, value in enumerate(before):
            yield from lost(value, after[index], f"{path}[{index}]") if index < len(after) else [f"{path}[{index}]"]
    elif before != after:
        yield f"{path}: {before!r}, {after!r}"


def round_trip(document):
    return json.loads(JSONEncoder().encode(Dashboard.from_json(copy.deepcopy(document))))


@pytest.mark.parametrize("name", ALL)
def test_the_types_of_the_sdk_know_every_key_of_a_dashboard(name):
    assert list(lost(ALL[name], round_trip(ALL[name]))) == []


@pytest.mark.parametrize(
    "misspell",
    [
        lambda document: document.update(titel="x"),
        lambda document: document["panels"][0].update(gridpos={}),
        lambda document: document["panels"][0]["targets"][0].update(legend="x"),
        lambda document: document["panels"][0]["fieldConfig"]["defaults"]["custom"].update(lineWith=1),
    ],
)
def test_a_misspelled_key_is_found(misspell):
    """Or the test above could not fail."""
    document = copy.deepcopy(ALL["daemon.json"])
    misspell(document)
    assert len(list(lost(document, round_trip(document)))) == 1


def units_of(panel):
    yield panel["fieldConfig"]["defaults"]["unit"]
    for override in panel["fieldConfig"]["overrides"]:
        yield from (one["value"] for one in override["properties"] if one["id"] == "unit")


@pytest.mark.parametrize("name", ALL)
def test_every_unit_is_one_that_grafana_has(name):
    assert "bytes" in UNITS
    assert "octets" not in UNITS
    for panel in ALL[name]["panels"]:
        for unit in units_of(panel):
            assert unit in UNITS, f"{panel['title']}: {unit}"


def test_queries_name_only_metrics_that_are_declared_and_records_that_are_made():
    known = {name for name, row in TABLE.items() if row.exported} | SCRAPED | {record.name for record in RECORDS}
    used = set()
    for dashboard in ALL.values():
        for expr in expressions(dashboard):
            names = set(re.findall(r"([a-z_][a-z0-9_:]*)\{", expr))
            assert names, expr
            used |= {
                next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end) and name.removesuffix(end) in known), name)
                for name in names
            }
    assert used <= known, used - known
    assert {record.name for record in RECORDS} <= used, "a recording rule that no dashboard reads"


@pytest.mark.parametrize("name", ALL)
def test_the_house_lint(name):
    document = ALL[name]
    assert document["editable"] is False
    ids = [panel["id"] for panel in document["panels"]]
    assert len(set(ids)) == len(ids)
    first, *others = document["templating"]["list"]
    assert (first["type"], first["query"]) == ("datasource", "prometheus")
    assert all(one["refresh"] == 2 and one["datasource"]["uid"] == "${datasource}" for one in others)
    for panel in document["panels"]:
        assert panel["title"], panel["id"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)
    for panel, target in targets(document):
        lint_query(panel["title"], target["expr"])
        assert target["datasource"]["uid"] == "${datasource}"


def lint_query(title, expr):
    for metric, inner in re.findall(r"([a-z_][a-z0-9_:]*)\{([^}]*)\}", expr):
        assert inner.startswith(SELECTOR), f"{title}: {metric}"
        assert 'instance=~"$instance"' in inner, f"{title}: {metric}"
    for metric in re.findall(r"([a-z_]+_(?:total|bucket))\{", expr):
        assert re.search(rf"(rate|increase)\({metric}\{{[^}}]*\}}\[", expr), f"{title}: {metric} is a counter"
    for window in re.findall(r"\[([^\]]*)\]", expr):
        assert window in ("$__rate_interval", "1h"), f"{title}: [{window}]"


@pytest.mark.parametrize("name", ALL)
def test_no_panel_lies_over_another_or_beside_the_grid(name):
    taken = set()
    for panel in ALL[name]["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_dashboards_have_stable_and_different_uids():
    assert sorted(one["uid"] for one in ALL.values()) == ["mainstay-daemon", "mainstay-fleet", "mainstay-job"]


def test_a_job_is_shown_with_its_limits_and_with_runs_and_incidents_as_marks():
    job = ALL["job.json"]
    assert {one["name"] for one in job["annotations"]["list"]} >= {"Run started", "Ended badly", "Incident"}
    (memory,) = [panel for panel in job["panels"] if panel["title"].startswith("Memory")]
    dashed = [
        one["matcher"]["options"]
        for one in memory["fieldConfig"]["overrides"]
        if any(p["id"] == "custom.lineStyle" for p in one["properties"])
    ]
    assert dashed == ["limit", "soft limit"]
    assert set(dashed) <= {target["legendFormat"] for target in memory["targets"]}


# ---------------------------------------------------------------- alert rules

GROUP_KEYS = {"orgId", "name", "folder", "interval", "rules"}
RULE_KEYS = {"uid", "title", "condition", "data", "noDataState", "execErrState", "for", "annotations", "labels", "isPaused"}
RULE_MAY = {"keepFiringFor", "dashboardUid", "panelId"}
QUERY_KEYS = {"refId", "relativeTimeRange", "datasourceUid", "model"}


def rules():
    document = yaml.safe_load(grafana.files(Options())["grafana/provisioning/alerting/mainstay.yml"])
    assert document["apiVersion"] == 1
    for group in document["groups"]:
        assert group.keys() == GROUP_KEYS
        assert seconds(group["interval"]) % 10 == 0, "a multiple of Grafana's base interval"
        for rule in group["rules"]:
            yield ALERTS[rule["title"]], rule


def test_every_alert_has_its_twin_in_the_format_of_file_provisioning():
    found = list(rules())
    assert [rule["title"] for _, rule in found] == list(ALERTS)
    assert len({rule["uid"] for _, rule in found}) == len(found)
    for alert, rule in found:
        assert RULE_KEYS <= rule.keys() <= RULE_KEYS | RULE_MAY
        assert re.fullmatch(r"[a-z0-9-]{1,40}", rule["uid"])
        assert (rule["condition"], rule["noDataState"], rule["execErrState"]) == ("C", "OK", "Error")
        assert [query["refId"] for query in rule["data"]] == ["A", "B", "C"]
        assert all(query.keys() == QUERY_KEYS and query["model"]["refId"] == query["refId"] for query in rule["data"])
        assert [query["datasourceUid"] for query in rule["data"]] == ["mainstay-prometheus", "__expr__", "__expr__"]
        assert seconds(rule["for"]) == seconds(alert.wait)
        assert seconds(rule.get("keepFiringFor", "0s")) == seconds(alert.keep)


def test_nothing_in_labels_and_annotations_is_taken_for_a_variable_of_grafanas_environment():
    for alert, rule in rules():
        assert rule["labels"] == ({} if alert.severity is Severity.JOB else {"severity": alert.severity.value})
        assert "${" not in "".join(rule["annotations"].values())
        assert not re.search(r"\$value\b", rule["annotations"]["description"]), "that is a list of all values there"


def test_an_alert_links_to_a_panel_that_exists_and_reads_one_of_its_metrics():
    panels = {(document["uid"], panel["id"]): panel for document in ALL.values() for panel in document["panels"]}
    for alert, rule in rules():
        assert ("dashboardUid" in rule) == ("panelId" in rule) == (alert.panel is not None)
        if alert.panel is not None:
            shown = set(re.findall(r"([a-z_]+)\{", "".join(target["expr"] for target in panels[alert.panel]["targets"])))
            assert shown & set(re.findall(r"([a-z_]+)\{", alert.expr)), alert.name


def test_the_data_source_and_the_folder_are_those_that_dashboards_and_rules_name():
    made = grafana.files(Options(prometheus="http://prometheus:9090", datasource="mine"))
    (source,) = yaml.safe_load(made["grafana/provisioning/datasources/mainstay.yml"])["datasources"]
    assert (source["uid"], source["url"], source["type"]) == ("mine", "http://prometheus:9090", "prometheus")
    (provider,) = yaml.safe_load(made["grafana/provisioning/dashboards/mainstay.yml"])["providers"]
    assert (provider["folder"], provider["type"]) == ("Mainstay", "file")
    assert "datasourceUid: mine" in made["grafana/provisioning/alerting/mainstay.yml"]
    assert "no Grafana server was run" in made["grafana/provisioning/alerting/mainstay.yml"]
