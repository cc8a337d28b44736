"""The installed daemon and its receivers: silences over the death of a brain, escalation, links, the dead man's switch, and no secret anywhere."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Mainstay
from receivers import Mailbox, Web, certificate

CANARIES = {name: f"canary{number}canary" for number, name in enumerate(("SLACK", "PAGER", "HOOK", "SIGN", "BEAT"))}


@pytest.fixture
def web() -> Iterator[Any]:
    with Web() as server:
        yield server


def heard(web: Any, path: str) -> list[dict[str, Any]]:
    """What was posted to *path*, in order."""
    return [json.loads(request.body) for request in web.got.all if request.line.split()[1] == path]


def kinds(web: Any, path: str) -> list[str]:
    return [one["kind"] for one in heard(web, path)]


def loaded(pid: int, library: str) -> bool:
    """Whether the process has mapped that shared library."""
    return f"/{library}." in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_openssl_is_loaded_for_a_receiver_that_is_reached_over_tls_and_not_before(tmp_path: Path) -> None:
    context, authority = certificate(tmp_path)
    with Web(tls=context) as web, Mailbox(tls=context) as box:
        plain = "jobs:\n  flaky: {shell: 'exit 3', schedule: manual, restart: {when: never}}\n"
        daemon = Mainstay(tmp_path, plain, environment={"SSL_CERT_FILE": str(authority)})
        try:
            daemon.start()
            assert not loaded(daemon.brain_pid, "libcrypto.so")
            daemon.write_config(
                plain.replace("when: never}", "when: never}, alerts: {to: [hook, mail]}")
                + f"receivers:\n  hook: {{type: webhook, url: '{web.url}/ops'}}\n"
                + f"  mail: {{type: email, host: 127.0.0.1, port: {box.port}, tls: tls, sender: m@localhost, to: [a@localhost]}}\n"
            )
            done = daemon.cli("reload")
            assert done.returncode == 0, done.stdout + done.stderr
            daemon.run_job("flaky")
            daemon.wait_for(lambda: kinds(web, "/ops") == ["opened"], "the alert over TLS")
            daemon.wait_for(lambda: bool(box.got.all), "the mail over TLS")
            assert loaded(daemon.brain_pid, "libcrypto.so")
        finally:
            daemon.close()


def test_a_silence_outlives_the_brain_and_what_is_open_at_its_end_is_told(tmp_path: Path, web: Any) -> None:
    config = f"""
jobs:
  flaky:
    shell: "echo the disk of user 7 is full; exit 3"
    schedule: manual
    restart: {{when: never}}
    alerts: {{to: [ops], escalate: {{after: 1s, to: [boss]}}}}
receivers:
  ops: {{type: webhook, url: "{web.url}/ops"}}
  boss: {{type: webhook, url: "{web.url}/boss", subject: "{{job}} on {{host}}"}}
"""
    daemon = Mainstay(tmp_path, config, supervisor=", external_url: 'https://mainstay.example.org/'")
    try:
        daemon.start()
        said = daemon.cli("silence", "flaky", "--for", "1h", "--comment", "moving the disk")
        assert (said.returncode, said.stdout[:36]) == (0, "nobody is alerted about flaky until ")
        daemon.run_job("flaky")
        (incident,) = daemon.job("flaky")["incidents"]
        assert daemon.ask(f"/incidents/{incident}")["held"] is True
        assert "nobody is alerted until" in json.dumps(daemon.why("flaky"))
        brain = daemon.brain_pid
        os.kill(brain, signal.SIGKILL)
        daemon.wait_for(lambda: daemon.brain_pid != brain, "the next brain")
        assert "moving the disk" in daemon.cli("silence").stdout
        assert daemon.job("flaky")["quiet"]["why"] == "silenced by an operator: moving the disk"
        assert web.got.all == []
        assert daemon.cli("silence", "flaky", "--expire").returncode == 0
        daemon.wait_for(lambda: kinds(web, "/ops") == ["opened"], "the late alert")
        (late,) = heard(web, "/ops")
        assert late["link"] == f"https://mainstay.example.org/incidents/{incident}"
        assert any("exit code 3" in line for line in late["evidence"])
        daemon.wait_for(lambda: kinds(web, "/boss") == ["escalated"], "the escalation")
        assert heard(web, "/boss")[0]["subject"].startswith("flaky on ")
        assert daemon.cli("incident", str(incident), "--ack").returncode == 0
        daemon.wait_for(lambda: kinds(web, "/ops") == ["opened", "acknowledged"], "the acknowledgement")
        daemon.wait_for(lambda: kinds(web, "/boss") == ["escalated", "acknowledged"], "the acknowledgement for who was told later")
        assert daemon.cli("incident", str(incident), "--resolve").returncode == 0
        daemon.wait_for(lambda: kinds(web, "/ops")[-1] == "closed" and kinds(web, "/boss")[-1] == "closed", "the end")
        assert daemon.cli("silence", "flaky", "--expire").returncode == 1
        assert daemon.cli("silence", "nobody", "--for", "1h").returncode == 1
        assert daemon.cli("silence", "flaky").returncode == 2
        assert daemon.cli("silence").stdout == "no job is silenced\n"
        assert [one["job"] for one in daemon.log_events("silence_begun")] == ["flaky"]
    finally:
        daemon.close()


def test_beats_come_only_while_the_loop_supervises(tmp_path: Path, web: Any) -> None:
    daemon = Mainstay(
        tmp_path, "jobs: {a: {command: [/bin/true], schedule: manual}}\n", supervisor=f", heartbeat: {{url: '{web.url}/beat', every: 1s}}"
    )
    try:
        daemon.start()
        web.got.wait_for(3)
        assert {request.line for request in web.got.all} == {"GET /beat HTTP/1.1"}
        daemon.wait_for(lambda: daemon.metrics()['mainstay_heartbeats_total{result="sent"}'] >= 3, "the count")
        assert daemon.metrics()["mainstay_heartbeat_last_success_timestamp_seconds"] > 1e9
        brain = daemon.brain_pid
        os.kill(brain, signal.SIGSTOP)  # it lives and does nothing
        try:
            seen = len(web.got.all) + 1  # one may be under way
            daemon.wait_for(lambda: daemon.brain_pid != brain, "the keeper's patience with a silent brain")
            assert len(web.got.all) <= seen + 2, "none of the ten seconds in which nobody supervised"
        finally:
            if daemon.brain_pid == brain:
                os.kill(brain, signal.SIGCONT)
        web.got.wait_for(seen + 3)
    finally:
        daemon.close()


def test_no_secret_of_a_receiver_shows_anywhere(tmp_path: Path, web: Any) -> None:
    for name in ("slack", "sign"):
        secret = tmp_path / name
        secret.touch(mode=0o600)
        secret.write_text(f"{web.url}/{CANARIES['SLACK']}\n" if name == "slack" else f"{CANARIES['SIGN']}\n")
    everybody = "schedule: manual, restart: {when: never}, alerts: {to: [slack, pager, hook]}"
    config = f"""
jobs:
  flaky: {{shell: "env; exit 3", {everybody}}}
receivers:
  slack: {{type: slack, url_file: slack}}
  pager: {{type: pagerduty, token: "${{CANARY_PAGER}}", url: "{web.url}/pager"}}
  hook: {{type: webhook, url: "${{CANARY_HOOK}}", secret_file: sign}}
"""
    environment = {
        "CANARY_PAGER": CANARIES["PAGER"],
        "CANARY_HOOK": f"{web.url}/{CANARIES['HOOK']}",
        "CANARY_BEAT": f"{web.url}/{CANARIES['BEAT']}",
    }
    daemon = Mainstay(
        tmp_path, config, environment=environment, log_level="debug", supervisor=", heartbeat: {url: '${CANARY_BEAT}', every: 1s}"
    )
    try:
        daemon.start()
        daemon.run_job("flaky")
        for path in (f"/{CANARIES['SLACK']}", "/pager", f"/{CANARIES['HOOK']}", f"/{CANARIES['BEAT']}"):
            daemon.wait_for(lambda path=path: [one for one in web.got.all if one.line.split()[1] == path], path)
        assert heard(web, "/pager")[0]["routing_key"] == CANARIES["PAGER"]
        signed = next(one for one in web.got.all if CANARIES["HOOK"] in one.line)
        assert signed.headers["x-mainstay-signature"].startswith("v1=")
        web.answers[:] = ["500 canary"]  # now everybody fails, and is complained of
        (incident,) = daemon.job("flaky")["incidents"]
        daemon.post(f"/incidents/{incident}/resolve")
        for name in ("slack", "pager", "hook"):
            daemon.wait_for(
                lambda name=name: daemon.metrics()[f'mainstay_notifications_total{{receiver="{name}",result="failed"}}'] >= 1,
                f"{name} fails",
            )
        daemon.wait_for(lambda: daemon.log_events("heartbeat_failing"), "a beat that fails")
        shown = daemon.cli("check", "--show", **environment)
        assert shown.returncode == 0, shown.stderr
        seen = {
            "the log": daemon.log(),
            "check --show": shown.stdout + shown.stderr,
            "metrics": daemon.http("/metrics")[1],
            "status": json.dumps(daemon.status()),
            "why": json.dumps(daemon.why("flaky")),
            "the incident": json.dumps(daemon.ask(f"/incidents/{incident}")),
            "the job's output": daemon.cli("logs", "flaky", "-n", "1000").stdout,
            "command lines": "".join(Path(f"/proc/{pid}/cmdline").read_text(errors="replace") for pid in daemon.tree()),
        }
        assert "PATH=" in seen["the job's output"], "the job did print its environment"
        for file in daemon.state.rglob("*"):
            if file.is_file():
                seen[str(file)] = file.read_bytes().decode(errors="replace")
        found = {where: name for where, text in seen.items() for name, canary in CANARIES.items() if canary in text}
        assert found == {}
    finally:
        daemon.close()
