"""The whole chain with Debian's own Prometheus and Alertmanager: a job fails, one alert stands, the job is well, none does."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from harness import Mainstay, environment, free_port, wait_for

from supervisor.adapters.metrictable import TABLE

pytestmark = pytest.mark.real
ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
PROMETHEUS = shutil.which("prometheus")
needs_alertmanager = pytest.mark.skipif(ALERTMANAGER is None, reason="no Alertmanager here (Debian: apt install prometheus-alertmanager)")
needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="no Prometheus here (Debian: apt install prometheus)")
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here (Debian: apt install prometheus)")


def get(port: int, path: str) -> Any:
    """GET as JSON, None while nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        return json.loads(body) if response.status == 200 and body.startswith((b"{", b"[")) else {"text": body.decode()}
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


@contextlib.contextmanager
def running(folder: Path, *argv: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A program of somebody else's, ended at the end."""
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment("outside"))
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an Alertmanager."""
    assert ALERTMANAGER is not None
    folder, port = tmp_path_factory.mktemp("alertmanager"), free_port()
    (folder / "am.yml").write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    argv = ["--config.file=am.yml", "--storage.path=data", f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    with running(folder, ALERTMANAGER, *argv):
        wait_for(lambda: get(port, "/api/v2/status"), "Alertmanager")
        yield port


@pytest.fixture(scope="module")
def mainstay(tmp_path_factory: pytest.TempPathFactory, alertmanager: int) -> Iterator[Mainstay]:
    never = "schedule: manual, restart: {when: never}, alerts: {to: [am]}"
    text = f"""
jobs:
  flaky: {{shell: 'test -e well', {never}}}
  broken: {{shell: 'echo the disk of user 7 is full; exit 3', {never}}}
  quiet: {{shell: 'exit 3', schedule: manual, restart: {{when: never}}}}
receivers:
  am: {{type: alertmanager, url: 'http://127.0.0.1:{alertmanager}', labels: {{team: night}}}}
"""
    daemon = Mainstay(tmp_path_factory.mktemp("alerting"), text)
    try:
        yield daemon.start()
    finally:
        daemon.close()


def alerts(port: int, job: str) -> list[dict[str, Any]]:
    """The alerts about *job* that stand now."""
    found = get(port, "/api/v2/alerts?active=true") or []
    return [alert for alert in found if alert["labels"].get("job_name") == job]


def one_alert(port: int, job: str) -> dict[str, Any]:
    found = wait_for(lambda: alerts(port, job), f"an alert about {job}")
    assert len(found) == 1
    return found[0]


@needs_alertmanager
def test_a_job_that_fails_is_one_alert_until_it_succeeds(mainstay: Mainstay, alertmanager: int) -> None:
    assert mainstay.run_job("flaky")["outcome"] == "failed"
    alert = one_alert(alertmanager, "flaky")
    assert alert["labels"]["severity"] == "critical"
    assert alert["labels"]["team"] == "night"
    assert alert["labels"]["outcome"] == "failed"
    assert "exit code 1" in " ".join(alert["annotations"].values())
    assert mainstay.run_job("flaky")["outcome"] == "failed"
    (incident,) = mainstay.job("flaky")["incidents"]
    wait_for(lambda: mainstay.ask(f"/incidents/{incident}")["occurrences"] == 2, "the second occurrence")
    assert one_alert(alertmanager, "flaky")["fingerprint"] == alert["fingerprint"], "the same bug is the same alert"
    (mainstay.folder / "well").touch()
    assert mainstay.run_job("flaky")["outcome"] == "succeeded"
    wait_for(lambda: not alerts(alertmanager, "flaky"), "that the alert goes")
    assert mainstay.job("flaky")["incidents"] == []
    mainstay.wait_for_metric('mainstay_notifications_total{receiver="am",result="sent"}', 2)


@needs_alertmanager
def test_an_incident_that_a_person_resolves_takes_its_alert_away(mainstay: Mainstay, alertmanager: int) -> None:
    mainstay.run_job("broken")
    one_alert(alertmanager, "broken")
    (incident,) = mainstay.job("broken")["incidents"]
    assert mainstay.cli("incident", str(incident), "--resolve").returncode == 0
    wait_for(lambda: not alerts(alertmanager, "broken"), "that the alert goes")


@needs_alertmanager
def test_a_job_without_receivers_tells_nobody(mainstay: Mainstay, alertmanager: int) -> None:
    mainstay.run_job("quiet")
    mainstay.run_job("broken")
    one_alert(alertmanager, "broken")  # went out after it, on the same way
    assert alerts(alertmanager, "quiet") == []


@needs_alertmanager
def test_an_alert_outlives_the_brain(mainstay: Mainstay, alertmanager: int) -> None:
    mainstay.run_job("broken")
    one_alert(alertmanager, "broken")
    brain = mainstay.brain_pid
    os.kill(brain, signal.SIGKILL)
    mainstay.wait_for(lambda: mainstay.brain_pid != brain, "the next brain")
    assert len(mainstay.job("broken")["incidents"]) == 1
    assert len(alerts(alertmanager, "broken")) == 1
    (incident,) = mainstay.job("broken")["incidents"]
    mainstay.post(f"/incidents/{incident}/resolve")
    wait_for(lambda: not alerts(alertmanager, "broken"), "that the alert goes")


# ---------------------------------------------------------------- Prometheus


@needs_alertmanager
@needs_prometheus
def test_prometheus_scrapes_it_and_answers_about_the_jobs(mainstay: Mainstay, tmp_path: Path) -> None:
    assert PROMETHEUS is not None
    mainstay.run_job("quiet")
    port = free_port()
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        f"scrape_configs: [{{job_name: mainstay, static_configs: [{{targets: ['127.0.0.1:{mainstay.port}']}}]}}]\n"
    )
    argv = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"]

    def query(text: str) -> list[dict[str, Any]]:
        answer = get(port, f"/api/v1/query?query={quote(text)}") or {}
        result: list[dict[str, Any]] = answer.get("data", {}).get("result", [])
        return result

    with running(tmp_path, PROMETHEUS, *argv):
        wait_for(lambda: [one for one in query("up{job='mainstay'}") if one["value"][1] == "1"], "up == 1")
        (found,) = wait_for(lambda: query("mainstay_job_runs_total{job_name='quiet',outcome='failed'} > 0"), "the runs")
        assert found["metric"]["job"] == "mainstay"
        assert query("count(mainstay_job_runs_total{job_name='flaky'}) > 10"), "every outcome is there from the start"
        targets = get(port, "/api/v1/targets")["data"]["activeTargets"]
        assert [target["lastError"] for target in targets] == [""]


@needs_alertmanager
@needs_promtool
def test_promtool_finds_nothing_to_say_about_a_real_scrape(mainstay: Mainstay) -> None:
    mainstay.run_job("quiet")
    status, page = mainstay.http("/metrics")
    assert status == 200
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_alertmanager
def test_every_exported_name_is_declared_and_every_series_of_a_job_bears_its_name(mainstay: Mainstay) -> None:
    declared = set(TABLE)
    families = {line.split()[2] for line in mainstay.http("/metrics")[1].splitlines() if line.startswith("# TYPE ")}
    assert families <= declared, families - declared
    for series in mainstay.metrics():
        if series.startswith("mainstay_job_"):
            assert 'job_name="' in series, series
