"""The HTTP side of a real daemon under abuse: random requests, slow connections, and schemathesis against its own document."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Mainstay, environment

HERE = Path(__file__).parent
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
JOBS = """
jobs:
  flaky: {command: [sh, -c, "echo hello; exit 1"], schedule: manual, restart: {when: never}}
  talker: {shell: "while :; do date; sleep 0.5; done"}
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
TOTAL = 10_000
NOISE = 4  # how much slower this machine may be than one with nothing else to do; the test prints the figure itself
GOAL_S = 0.25


class Open(Mainstay):
    """A daemon on loopback that takes changes there."""

    def write_config(self, text: str) -> None:
        head = f"supervisor: {{state_dir: state, listen: '127.0.0.1:{self.port}', actions: loopback}}\n"
        self.config.write_text(head + text)
        self.config.chmod(0o600)


@pytest.fixture
def mainstay(tmp_path: Path) -> Iterator[Mainstay]:
    one = Open(tmp_path, JOBS)
    try:
        one.start()
        one.run_job("flaky")
        yield one
    finally:
        one.close()  # which fails on any traceback in the log


def attack(mainstay: Mainstay, *words: object) -> "subprocess.Popen[str]":
    argv = [sys.executable, str(HERE / "abuse.py"), *map(str, words)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment(mainstay.mark))


def test_ten_thousand_random_requests_and_two_hundred_slow_connections_leave_metrics_at_hand(mainstay: Mainstay) -> None:
    brain = mainstay.brain_pid
    attackers = [attack(mainstay, "requests", mainstay.port, TOTAL // 2, seed) for seed in (1, 2)]
    dawdlers = attack(mainstay, "slow", mainstay.port, 200, 600)
    took = []
    try:
        while any(one.poll() is None for one in attackers):
            began = time.monotonic()
            status, page = mainstay.http("/metrics")
            took.append(time.monotonic() - began)
            assert status == 200
            assert page.endswith("\n")
            time.sleep(0.02)
        found = [json.loads(one.stdout.read()) for one in attackers if one.stdout is not None]
    finally:
        for one in (*attackers, dawdlers):
            one.kill()
            one.wait(10)
            assert one.stdout is not None
            one.stdout.close()
    assert [one["wrong"] for one in found] == [[], []]
    answers: dict[str, int] = {}
    for one in found:
        for status_or_end, count in one["answers"].items():
            answers[status_or_end] = answers.get(status_or_end, 0) + count
    assert sum(answers.values()) == TOTAL
    assert not [status for status in answers if status.startswith("5")], answers
    assert answers["200"] > TOTAL // 40, answers
    assert answers["400"] > TOTAL // 20, answers
    assert answers["404"] > TOTAL // 20, answers
    assert answers["421"] > TOTAL // 50, answers
    took.sort()
    p99 = took[int(len(took) * 0.99)]
    print(
        f"/metrics during the attack: {len(took)} scrapes, median {took[len(took) // 2] * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms; answers {answers}"
    )
    assert p99 < GOAL_S * NOISE
    assert mainstay.brain_pid == brain, "it is the same brain"
    assert mainstay.http("/healthz")[0] == 200


@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="schemathesis is not installed (dev group)")
def test_schemathesis_finds_nothing_against_the_document(mainstay: Mainstay, tmp_path: Path) -> None:
    argv = [
        str(SCHEMATHESIS),
        "run",
        f"http://127.0.0.1:{mainstay.port}/api/v1/openapi.json",
        "--exclude-path-regex=stream$|/events$|drill$",  # without an end, and with effects on other programs
        "--phases=examples,coverage,fuzzing",
        "--max-examples=8",
        "--generation-deterministic",
        "--no-color",
        "--request-timeout=30",
        "--continue-on-failure",
        "--suppress-health-check=all",
        "--warnings=off",
        "--checks=all",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=280, cwd=tmp_path, env=environment("schemathesis"), check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "No issues found" in done.stdout
    assert int(done.stdout.split(" generated")[0].rsplit(maxsplit=1)[-1]) > 500


def test_the_canary_of_every_secret_stays_in(mainstay: Mainstay) -> None:
    """What a config can hold of secrets is on no page and in no answer."""
    (mainstay.folder / "secret").write_text("c4n4ry-file\n")
    (mainstay.folder / "secret").chmod(0o600)
    mainstay.write_config(
        """
jobs:
  flaky:
    command: [sh, -c, "exit 1", c4n4ry-argument]
    schedule: manual
    restart: {when: never}
    environment: {API_TOKEN: c4n4ry-environment}
    alerts: {to: [hook]}
receivers:
  hook: {type: webhook, url: "http://user:c4n4ry-userinfo@127.0.0.1:9/c4n4ry-path", secret_file: secret, headers: {Authorization: c4n4ry-header}}
"""
    )
    mainstay.post("/reload")
    mainstay.run_job("flaky")
    document: Any = json.loads(mainstay.http("/api/v1/openapi.json")[1])
    paths = [path for path, methods in document["paths"].items() if "get" in methods and not path.endswith(("stream", "events"))]
    pages = [path.replace("{name}", "flaky").replace("{run}", "2").replace("{number}", "1") for path in paths]
    assert len(pages) > 15
    for path in [*pages, "/", "/jobs/flaky", "/runs", "/runs/2", "/incidents", "/incidents/1"]:
        status, text = mainstay.http(path)
        assert status in (200, 404), path
        assert "c4n4ry" not in text, path
    assert "c4n4ry-file" not in mainstay.log()
