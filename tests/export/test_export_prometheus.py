"""The exported rules and their own tests, under promtool; and that the table leaves out nothing."""

import re

import pytest
import yaml
from promtools import run

from supervisor.adapters.metrictable import TABLE
from supervisor.core.settings import Settings
from supervisor.export import prometheus
from supervisor.export.alerts import ALERTS, RECORDS, WATCHDOG
from supervisor.export.definition import (
    Options,
    check_selector,
    duration,
    expression,
    matchers,
    record_expression,
    target_labels,
    with_selector,
)

SETTINGS = Settings("/var/lib/mainstay")
SELECTORS = ['job="mainstay"', 'job=~"sup.*",env="a\\"b\\\\c",instance!="x"']


def write(folder, options):
    made = prometheus.files(SETTINGS, options)
    for path, text in made.items():
        full = folder / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_text(text)
    return folder / "prometheus"


@pytest.mark.real
@pytest.mark.parametrize("selector", SELECTORS)
def test_promtool_finds_nothing_and_every_unit_test_of_the_rules_passes(selector, generation, tmp_path):
    promtool = generation.need("promtool")
    folder = write(tmp_path, Options(selector))
    for name in ("alerts.yml", "rules.yml"):
        done = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", name, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
    tests = [f"tests/{path.name}" for path in (folder / "tests").iterdir()]
    assert len(tests) == 3
    done = run(promtool, "test", "rules", *tests, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.real
def test_a_wrong_expectation_makes_promtool_fail(generation, tmp_path):
    """Or the test above could not fail either."""
    promtool = generation.need("promtool")
    folder = write(tmp_path, Options())
    path = folder / "tests" / "alerts-1m.yml"
    path.write_text(path.read_text().replace("instance: host:9321", "instance: another:9321", 1))
    assert run(promtool, "test", "rules", str(path), cwd=folder).returncode == 1


@pytest.mark.real
def test_the_scrape_configuration_is_one(generation, tmp_path):
    promtool = generation.need("promtool")
    folder = write(tmp_path, Options('job="sup",env="prod"'))
    text = (folder / "scrape.yml").read_text()
    (folder / "prometheus.yml").write_text("rule_files: [alerts.yml, rules.yml]\n" + text)
    done = run(promtool, "check", "config", "prometheus.yml", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (scrape,) = yaml.safe_load(text)["scrape_configs"]
    assert scrape == {"job_name": "sup", "static_configs": [{"targets": ["127.0.0.1:9321"], "labels": {"env": "prod"}}]}


def test_every_alert_has_a_firing_and_a_silent_case():
    for alert in ALERTS.values():
        firing = [case for case in alert.cases if case.labels is not None]
        assert firing, alert.name
        assert alert.name == WATCHDOG or len(firing) < len(alert.cases), f"{alert.name} is never silent"


def test_every_case_reaches_the_tests_that_promtool_runs():
    made = prometheus.files(SETTINGS, Options())
    texts = [text for path, text in made.items() if path.startswith("prometheus/tests/alerts")]
    tests = [test for text in texts for test in yaml.safe_load(text)["tests"]]
    fires = {(one["alertname"], bool(one["exp_alerts"])) for test in tests for one in test["alert_rule_test"]}
    assert fires >= {(name, True) for name in ALERTS}
    assert fires >= {(name, False) for name in ALERTS if name != WATCHDOG}
    assert len(tests) == sum(len(alert.cases) for alert in ALERTS.values())


def test_rules_name_only_metrics_and_labels_that_are_declared():
    for text in [*(expression(alert, Options()) for alert in ALERTS.values()), *(record_expression(one, Options()) for one in RECORDS)]:
        for name, inner in re.findall(r"\b([a-z_:]+)\{([^}]*)\}", text):
            if name == "up":
                continue
            known = {label.name for label in TABLE[name].labels} | {"job", str(TABLE[name].scope)}
            assert TABLE[name].exported, name
            for label, operator, value in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', inner):
                assert label in known, f"{name}: {label}"
                values = next((one.values for one in TABLE[name].labels if one.name == label), ())
                assert not values or set(value.split("|")) <= set(values), f"{name}: {label}{operator}{value}"


def test_words_name_only_labels_that_the_alert_has_or_are_the_value():
    for alert in ALERTS.values():
        fields = set(re.findall(r"\{(\w+)", alert.description))
        firing = next(case for case in alert.cases if case.labels is not None)
        assert fields <= {"instance", "value", *(firing.labels or {})}, alert.name
        assert not re.search(r"[{}]|\d", alert.summary), f"{alert.name}: a summary is short and has no figures"


def test_every_alert_has_a_name_of_ours_and_a_severity_that_routes_know():
    assert all(re.fullmatch(r"Mainstay[A-Z]\w+", name) for name in ALERTS)
    assert len({alert.summary for alert in ALERTS.values()}) == len(ALERTS)


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ('job="mainstay"', 'job="mainstay"'),
        ('{job="mainstay", env=~"a|b"}', 'job="mainstay", env=~"a|b"'),
        ('job="mainstay",', 'job="mainstay"'),
    ],
)
def test_a_selector_is_taken_with_or_without_braces(text, selector):
    assert check_selector(text) == selector


@pytest.mark.parametrize("text", ["", "{}", "mainstay", "job=mainstay", 'job="x"} or up{', 'job="x" env="y"', '1="x"', 'job="x'])
def test_what_is_no_selector_is_refused_with_what_to_write(text):
    with pytest.raises(ValueError, match=r"write matchers, e\.g\. job="):
        check_selector(text)


def test_the_selector_goes_into_every_pair_of_braces():
    assert with_selector('a{} / b{x="{"} + c_total{y="z"}[5m]', 'job="m"') == 'a{job="m"} / b{job="m",x="{"} + c_total{job="m",y="z"}[5m]'


def test_labels_of_a_target_that_the_selector_finds():
    assert matchers('a="b",c!~"d\\"e"') == [("a", "=", "b"), ("c", "!~", 'd"e')]
    assert target_labels('job="m",env=~"prod|test"') == {"job": "m", "instance": "host:9321", "env": "prod"}
    assert target_labels('job="m",env=~"[a-c]{3}"') is None


@pytest.mark.parametrize(("length", "text"), [(0, "0s"), (0.4, "400ms"), (90, "90s"), (120, "2m"), (86400, "1d"), (5400, "90m")])
def test_durations_are_written_as_prometheus_reads_them(length, text):
    assert duration(length) == text
