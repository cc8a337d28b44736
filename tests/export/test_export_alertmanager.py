"""The exported routes, under amtool."""

import pytest
import yaml
from promtools import run

from supervisor.export import alertmanager

MAIL = """
jobs:
  nightly: {command: [/bin/true], schedule: {every: 1m}, alerts: {to: [mail]}}
receivers:
  mail: {type: email, to: [ops@example.org], sender: mainstay@example.org, host: mail.example.org, port: 587, tls: starttls}
"""


@pytest.fixture
def path(config_of, tmp_path):
    made = alertmanager.files(config_of(), "http://127.0.0.1:1/hook", "http://127.0.0.1:1/deadman")
    full = tmp_path / "alertmanager.yml"
    full.write_text(made[alertmanager.PATH])
    return full


@pytest.mark.real
def test_amtool_finds_nothing(path, config_of, generation):
    amtool = generation.need("amtool")
    done = run(amtool, "check-config", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 receivers" in done.stdout
    path.write_text(alertmanager.files(config_of(MAIL), None, None)[alertmanager.PATH])
    done = run(amtool, "check-config", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.real
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=MainstayJobFailed", "severity=critical", "job_name=x"], "mainstay-critical"),
        (["alertname=MainstayJobFailed", "severity=warning"], "mainstay-warning"),
        (["alertname=MainstayJobFailed", "severity=info"], "mainstay-info"),
        (["alertname=MainstayJobScheduleMissed"], "mainstay-warning"),
        (["alertname=MainstayWatchdog", "severity=none"], "mainstay-deadman"),
        (["alertname=MainstayIncident", "severity=critical"], "mainstay-critical"),
        (["alertname=SomethingElse", "severity=critical"], "default"),
    ],
)
def test_an_alert_goes_to_the_receiver_of_its_severity(labels, receiver, path, generation):
    amtool = generation.need("amtool")
    test = [amtool, "config", "routes", "test", f"--config.file={path}"]
    done = run(*test, f"--verify.receivers={receiver}", *labels)
    assert done.returncode == 0, done.stdout + done.stderr
    assert run(*test, "--verify.receivers=somebody", *labels).returncode == 1, "or this could not fail"


def test_a_mail_receiver_of_the_config_is_one_of_alertmanager(config_of):
    document = alertmanager.document(config_of(MAIL), None, None)
    critical = next(one for one in document["receivers"] if one["name"] == "mainstay-critical")
    assert critical["email_configs"] == [
        {
            "to": "ops@example.org",
            "from": "mainstay@example.org",
            "smarthost": "mail.example.org:587",
            "require_tls": True,
            "send_resolved": True,
        }
    ]


def test_incidents_that_mainstay_posts_itself_suppress_what_prometheus_says_of_them_only_if_it_does(config_of):
    def sources(text):
        return [one["source_matchers"] for one in alertmanager.inhibitions(config_of(text))]

    posts = "jobs: {a: {command: [/bin/true], alerts: {to: [am]}}}\nreceivers: {am: {type: alertmanager, url: 'http://127.0.0.1:1'}}\n"
    assert ['alertname="MainstayIncident"'] in sources(posts)
    assert ['alertname="MainstayIncident"'] not in sources(MAIL)


def test_the_watchdog_repeats_on_its_grid_and_its_end_is_not_told(path):
    document = yaml.safe_load(path.read_text())
    deadman = document["route"]["routes"][0]["routes"][0]
    assert deadman["repeat_interval"] == deadman["group_interval"] == "1m"
    assert document["receivers"][-1]["webhook_configs"] == [{"url": "http://127.0.0.1:1/deadman", "send_resolved": False}]
