"""Drills against the installed daemon: each fault, followed to a real Alertmanager and a real web hook, and what breaks the chain."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import PROGRAM, Mainstay, environment, wait_for
from receivers import Web, free_port
from test_alerting import PROMETHEUS, alertmanager, get, needs_alertmanager, needs_prometheus, running

__all__ = ["alertmanager"]

LIMITS = "limits: {memory: 64MiB, recursion: 200, time: 10s, stall: 2s, cpu: 20s}"


@pytest.fixture(scope="module")
def hook() -> Iterator[Web]:
    with Web() as web:
        yield web


@pytest.fixture(scope="module")
def mainstay(tmp_path_factory: pytest.TempPathFactory, alertmanager: int, hook: Web) -> Iterator[Mainstay]:
    text = f"""
defaults: {{schedule: manual, alerts: {{to: [am, hook]}}}}
jobs:
  nightly: {{command: ['true'], {LIMITS}, expect: {{success_every: 2h}}}}
  plain: {{command: ['true']}}
  deaf: {{command: ['true'], alerts: {{to: [nobody]}}}}
receivers:
  am: {{type: alertmanager, url: 'http://127.0.0.1:{alertmanager}'}}
  hook: {{type: webhook, url: '{hook.url}'}}
  nobody: {{type: webhook, url: 'http://127.0.0.1:{free_port()}', timeout: 1s}}
"""
    daemon = Mainstay(tmp_path_factory.mktemp("drill"), text)
    try:
        yield daemon.start()
    finally:
        daemon.close()


FAULTS = {
    "recursion": "recursion",
    "memory": "memory",
    "hang": "stalled",
    "stall": "stalled",
    "crash": "crashed",
    "exit": "failed",
    "silence": "unmet",
}


@needs_alertmanager
@pytest.mark.real
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_followed_from_its_beginning_to_the_last_all_clear(mainstay: Mainstay, hook: Web, fault: str) -> None:
    done = mainstay.cli("drill", "nightly", "--fault", fault, "--cap", "3s", "--json", patience_s=120)
    result = json.loads(done.stdout)
    assert (done.returncode, result["passed"], result["broken"]) == (0, True, None), (result, mainstay.log()[-3000:])
    links = {(one["link"], one["receiver"]): one for one in result["links"]}
    assert all(one["holds"] for one in links.values())
    wanted = {"armed", "fault", "detected", "verdict", "delivered", "resolved"} | ({"metric", "incident"} if fault != "silence" else set())
    assert wanted <= {link for link, _ in links}
    assert links[("verdict", None)]["detail"].startswith(f"{FAULTS[fault]}: ")
    for receiver in ("am", "hook"):
        assert links[("delivered", receiver)]["seconds"] >= links[("detected", None)]["seconds"]
    told = [json.loads(request.body) for request in hook.got.all]
    mine = [one for one in told if one["outcome"] == FAULTS[fault]]
    assert {one["kind"] for one in mine} == {"opened", "closed"}
    assert all(one["drill"] is True and one["job"] == "drill.nightly" for one in mine)
    mainstay.wait_for_metric(f'mainstay_drill_passed{{fault="{fault}",job_name="nightly"}}', 1)


@needs_alertmanager
@needs_prometheus
@pytest.mark.real
@pytest.mark.parametrize("fault", ["exit", "silence"])
def test_a_drill_goes_through_the_exported_rules_of_a_real_prometheus(mainstay: Mainstay, tmp_path: Path, fault: str) -> None:
    assert PROMETHEUS is not None
    assert mainstay.cli("export", "prometheus", "--output", str(tmp_path)).returncode == 0
    rules = next(tmp_path.rglob("alerts.yml"))
    port = free_port()
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}\n"
        f"rule_files: [{rules}]\n"
        f"scrape_configs: [{{job_name: mainstay, static_configs: [{{targets: ['127.0.0.1:{mainstay.port}']}}]}}]\n"
    )
    argv = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"]
    with running(tmp_path, PROMETHEUS, *argv):
        wait_for(lambda: get(port, "/-/ready"), "Prometheus")
        words = ("drill", "nightly", "--fault", fault, "--cap", "3s", "--prometheus", f"http://127.0.0.1:{port}")
        done = mainstay.cli(*words, patience_s=110)
    assert done.returncode == 0, (done.stdout, done.stderr, mainstay.log()[-2000:])
    name = {"exit": "MainstayJobFailed", "silence": "MainstayJobNotSucceededInTime"}[fault]
    assert f"{name} fires in Prometheus" in done.stdout


@needs_alertmanager
@pytest.mark.real
def test_a_prometheus_that_does_not_answer_breaks_the_chain_before_anything_is_done(mainstay: Mainstay) -> None:
    done = mainstay.cli("drill", "nightly", "--fault", "exit", "--prometheus", f"http://127.0.0.1:{free_port()}", patience_s=60)
    assert done.returncode == 1
    assert "does not answer as a Prometheus does" in done.stdout
    assert done.stdout.endswith("The chain is broken at: armed.\n")


def test_a_drill_leaves_the_job_itself_untouched(mainstay: Mainstay) -> None:
    assert mainstay.cli("drill", "nightly", "--fault", "exit", patience_s=120).returncode in (0, 1)
    assert [job["name"] for job in mainstay.status()["jobs"]] == ["nightly", "plain", "deaf"]
    assert (mainstay.runs("nightly"), mainstay.job("nightly")["failures_in_row"]) == ([], 0)
    mainstay.wait_for(lambda: not [name for name in mainstay.metrics() if "drill.nightly" in name], "a page without the stand-in")
    assert mainstay.metrics()['mainstay_job_runs_total{job_name="nightly",outcome="failed"}'] == 0


def test_a_receiver_that_does_not_answer_is_the_broken_link(mainstay: Mainstay) -> None:
    done = mainstay.cli("drill", "deaf", "--fault", "exit", "--cap", "3s", patience_s=120)
    assert done.returncode == 1
    assert re.search(r"^  BROKEN +delivered nobody +not delivered within 3s, \d+ tr(y|ies): .*refused", done.stdout, re.MULTILINE), (
        done.stdout
    )
    assert done.stdout.endswith("The chain is broken at: delivered.\n")
    mainstay.wait_for_metric('mainstay_drill_passed{fault="exit",job_name="deaf"}', 0)
    assert mainstay.log_events("drill_ended")[-1]["link"] == "delivered"


def test_a_fault_that_nobody_would_notice_is_refused_with_the_mend(mainstay: Mainstay) -> None:
    done = mainstay.cli("drill", "plain", "--fault", "silence")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == (
        "Not drilled: plain has no expect.success_every: nobody would miss it; write expect: {success_every: 2h}, somewhat longer than its schedule."
    )


def test_who_interrupts_a_drill_is_told_that_it_goes_on_and_where_its_result_will_be(make) -> None:
    receiver = f"nobody: {{type: webhook, url: 'http://127.0.0.1:{free_port()}', timeout: 1s}}"
    daemon = make(
        f"jobs:\n  plain: {{command: ['true'], schedule: manual, {LIMITS}, alerts: {{to: [nobody]}}}}\nreceivers: {{{receiver}}}\n"
    ).start()
    words = [*PROGRAM, "-c", str(daemon.config), "drill", "plain", "--fault", "hang", "--cap", "3s"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment("drill")) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "mainstay: the drill goes on without you, and alerts as it would; `mainstay drill plain --last` shows how it ended\n"
    daemon.wait_for(lambda: daemon.log_events("drill_ended"), "the end of the drill")
    assert "hang" in daemon.cli("drill", "plain", "--last").stdout


def test_the_last_results_outlive_the_brain(mainstay: Mainstay) -> None:
    mainstay.cli("drill", "plain", "--fault", "stall")
    before = mainstay.cli("drill", "plain", "--last", "--json")
    assert before.returncode == 1
    mainstay.stop()
    mainstay.start()
    after = mainstay.cli("drill", "plain", "--last", "--json")
    assert json.loads(after.stdout) == json.loads(before.stdout)
    assert {one["fault"] for one in json.loads(after.stdout)} >= {"stall"}


def test_bad_words_are_told_in_one_line(mainstay: Mainstay) -> None:
    for words, code, text in (
        (("drill", "nobody", "--fault", "exit"), 1, "there is no job 'nobody'"),
        (("drill", "nightly", "--fault", "boredom"), 2, "invalid choice"),
        (("drill", "nightly"), 2, "no fault; write --fault with one of recursion, memory"),
        (("drill", "nightly", "--fault", "exit", "--cap", "soon"), 2, '"soon"'),
        (("drill", "nightly", "--fault", "exit", "--prometheus", "ftp://x"), 1, "is not the address of a Prometheus"),
    ):
        done = mainstay.cli(*words)
        assert done.returncode == code, done
        assert text in done.stderr
        assert "Traceback" not in done.stderr


def test_faults_are_drilled_by_themselves_when_the_config_says_when(make) -> None:
    daemon = make(
        """
jobs:
  nightly: {command: ['true'], schedule: manual, alerts: {to: [hook]}, drill: {faults: [exit, crash], schedule: {every: 2s}}}
receivers:
  hook: {type: command, command: ['true']}
"""
    ).start()
    for fault in ("exit", "crash"):
        daemon.wait_for_metric(f'mainstay_drill_passed{{fault="{fault}",job_name="nightly"}}', 1)
