"""What ``--json`` prints of a daemon in which everything has happened, field by field against the shapes that docs/commands.md and the OpenAPI document list."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from harness import Mainstay
from shapecheck import problems

from supervisor.adapters.http.shapes import SHAPES

SCRIPT = """
from supervisor import job

for one in job.records(["a", "b", "c"], key=str):
    if one == "b":
        raise ValueError("b is not as it should be")
"""
CONFIG = """
defaults: {{restart: {{when: never}}}}
jobs:
  picky:
    command: [{python}, picky.py]
    schedule: manual
    restart: {{when: on-failure, backoff: {{first: 100ms, max: 100ms}}}}
    alerts: {{to: [told]}}
  bad: {{shell: 'echo oh; exit 3', schedule: manual, alerts: {{to: [told]}}}}
  tick: {{command: ['true'], schedule: {{every: 1s}}}}
  svc: {{command: [sleep, '1000'], limits: {{time: 30d}}}}
receivers:
  told: {{type: command, command: [sh, -c, 'cat >> told.json']}}
"""


@pytest.fixture(scope="module")
def mainstay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mainstay]:
    folder = tmp_path_factory.mktemp("shapes")
    (folder / "picky.py").write_text(SCRIPT)
    daemon = Mainstay(folder, CONFIG.format(python=sys.executable))
    try:
        daemon.start()
        assert daemon.run_job("picky")["outcome"] == "succeeded"
        assert daemon.run_job("bad")["outcome"] == "failed"
        daemon.wait_for_state("svc", "running")
        daemon.wait_for(lambda: daemon.job("tick")["last"], "a fire time")
        yield daemon
    finally:
        daemon.close()


def printed(mainstay: Mainstay, *words: str, code: int = 0) -> Any:
    """What the command prints as JSON."""
    done = mainstay.cli(*words, "--json")
    assert (done.returncode, done.stderr) == (code, ""), done
    return json.loads(done.stdout)


def test_the_jobs_their_limits_runs_last_ends_quiet_times_and_silences(mainstay: Mainstay) -> None:
    silenced = printed(mainstay, "silence", "svc", "--for", "1h", "--comment", "moving")
    assert problems("Done", silenced) == []
    found = printed(mainstay, "status")
    assert problems("Status", found) == []
    jobs = {job["name"]: job for job in found["jobs"]}
    assert jobs["svc"]["runs"], "the shape of a run alive was looked at"
    assert jobs["svc"]["quiet"]["why"] == "silenced by an operator: moving"
    assert jobs["svc"]["silences"]
    assert jobs["picky"]["quarantined"] == 1
    assert jobs["bad"]["last"]["outcome"] == "failed"
    alone = printed(mainstay, "status", "svc")
    assert problems("Status", alone) == []
    assert [job["name"] for job in alone["jobs"]] == ["svc"]
    job = SHAPES["Job"]["properties"]
    one = {"type": "object", "properties": {"name": job["name"], "quiet": job["quiet"], "silences": job["silences"]}}
    listed = printed(mainstay, "silence")
    assert problems({"type": "object", "properties": {"jobs": {"type": "array", "items": one}}}, listed) == []
    assert problems("Done", printed(mainstay, "silence", "svc", "--expire")) == []


def test_runs_fire_times_incidents_and_records_that_are_set_aside(mainstay: Mainstay) -> None:
    found = printed(mainstay, "runs", "tick")
    assert found.keys() == {"runs", "slots"}
    assert found["runs"]
    assert found["slots"]
    assert problems("Runs", {"runs": found["runs"]}) == problems("Slots", {"slots": found["slots"]}) == []
    listed = printed(mainstay, "incidents")
    assert len(listed) == 2
    assert problems("Incidents", {"incidents": listed}) == []
    for one in listed:
        assert problems("Incident", printed(mainstay, "incident", str(one["incident"]))) == []
    assert problems("Report", printed(mainstay, "why", "bad")) == []
    assert problems("Log", printed(mainstay, "logs", "bad")) == []
    aside = printed(mainstay, "quarantine", "picky")
    assert [one["key"] for one in aside["records"]] == ["b"]
    assert problems("Quarantine", aside) == []
    assert problems("Quarantine", {"job": "picky", "records": [printed(mainstay, "quarantine", "picky", "--show", "b")]}) == []
    again = json.loads(mainstay.cli("quarantine", "picky", "--replay", "b", "--json").stdout)  # what the job writes goes to stderr
    assert list(again) == ["job", "key", "met", "processed", "released", "report"]
    assert problems("Done", printed(mainstay, "quarantine", "picky", "--release", "b")) == []


def test_the_answers_to_what_is_asked_for(mainstay: Mainstay) -> None:
    end = {**SHAPES["Job"]["properties"]["last"]}
    for words in (
        ["pause", "svc", "--for", "1h"], ["resume", "svc"], ["restart", "svc"], ["stop", "svc"], ["start", "svc"], ["trigger", "picky"],
        ["trigger", "bad", "--wait"],
    ):  # fmt: skip
        answer = printed(mainstay, *words, code=1 if "--wait" in words else 0)
        ended = answer.pop("ended")
        assert problems("Done", answer) == problems(end, ended) == [], words
        assert ("run" in answer) == (words[0] in ("start", "trigger")), words
        assert (ended is not None) == (words[0] in ("restart", "stop") or "--wait" in words), words
    number = str(mainstay.job("bad")["incidents"][0])
    assert problems("Incident", printed(mainstay, "incident", number, "--ack", "--note", "on it")) == []
    mainstay.write_config(CONFIG.format(python=sys.executable).replace("exit 3", "exit 4"))
    planned = printed(mainstay, "reload", "--plan")
    assert [change["job"] for change in planned["changes"]] == ["bad"]
    assert problems("Done", planned) == problems("Done", printed(mainstay, "reload")) == []


def test_a_drill_and_the_last_result_of_each_fault(mainstay: Mainstay) -> None:
    result = printed(mainstay, "drill", "bad", "--fault", "exit")
    assert result["passed"]
    assert result["links"]
    assert problems("Drill", result) == []
    assert problems("Drills", {"drills": printed(mainstay, "drill", "bad", "--last")}) == []
