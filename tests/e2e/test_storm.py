"""A hundred jobs with the same bug, under a real daemon: an incident each, eleven alerts in all, and as many ends."""

import json
from collections import Counter
from pathlib import Path

import pytest
from harness import Mainstay

RECEIVER = "receivers: {script: {type: command, command: [/bin/sh, -c, 'cat >> told.json; echo >> told.json']}}\n"
DEFAULTS = "defaults: {schedule: {every: 1d}, restart: {when: never}, alerts: {to: [script]}}\n"
COUNT = 100


def config(code: int) -> str:
    jobs = "".join(f"  job-{n:03}: {{command: [/bin/sh, -c, 'exit {code}']}}\n" for n in range(COUNT))
    return f"{RECEIVER}{DEFAULTS}jobs:\n{jobs}"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_jobs_with_one_bug_are_an_incident_each_and_no_storm(tmp_path: Path) -> None:
    told = tmp_path / "told.json"

    def bodies(kind: str) -> list[dict[str, object]]:
        lines = told.read_text().splitlines() if told.exists() else []
        return [body for line in lines if line and (body := json.loads(line))["kind"] == kind]

    mainstay = Mainstay(tmp_path, config(7))
    try:
        mainstay.start()
        mainstay.wait_for(lambda: len(mainstay.ask("/incidents", open=1, limit=500)["incidents"]) >= COUNT, "an incident of each job", 120)
        mainstay.wait_for(lambda: len(bodies("opened")) == 11, "ten alerts and a summary", 120)
        found = mainstay.ask("/incidents", open=1, limit=500)["incidents"]
        assert Counter(one["job"] for one in found if one["job"] != "*") == {f"job-{n:03}": 1 for n in range(COUNT)}
        (summary,) = (one for one in found if one["job"] == "*")
        assert (summary["occurrences"], summary["outcome"]) == (90, "failed")
        assert "90 more incidents of 90 jobs opened at about the same time" in str(bodies("opened")[-1]["summary"])
        mainstay.wait_for_metric('mainstay_notifications_total{receiver="script",result="gathered"}', 90)
        shown = mainstay.cli("incident", str(summary["incident"]))
        assert shown.returncode == 0
        assert "many jobs: failed (critical), seen 90 times" in shown.stdout
        done = mainstay.cli("incident", str(summary["incident"]), "--resolve", "--note", "the share was gone", "--fix", "mounted it")
        assert done.stdout == f"summary {summary['incident']}: 90 incidents are closed\n"
        mainstay.wait_for(lambda: len(bodies("closed")) == 1, "the end of the summary", 120)
        assert len(bodies("opened")) == 11
    finally:
        mainstay.close()
