"""A record that kills the job is found, set aside after its second kill, and the rest is processed; the replay of it, before and after a fix."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Json, Mainstay, read

from supervisor.client import job_route

CHILD = Path(__file__).resolve().parents[1] / "children" / "poison_job.py"
KEY, RECORDS = "user-61803", 100_000
KINDS = {"exception": "exception", "crash": "crashed", "memory": "memory", "loop": "stalled"}

pytestmark = pytest.mark.slow

JOB = """
  {name}:
    command: [{python}, {child}, {name}, {folder}/{name}.journal, {folder}/{name}.fixed]
    schedule: manual
    limits: {{memory: 192MiB, time: 2m, stall: 3s}}
    restart: {{backoff: {{first: 100ms, max: 100ms}}}}
    alerts: {{to: [file]}}
"""


def config_of(folder: Path, kinds: Any) -> str:
    jobs = "".join(JOB.format(name=kind, python=sys.executable, child=CHILD, folder=folder) for kind in kinds)
    receiver = f"  file: {{type: command, command: [sh, -c, 'cat >> {folder}/alerts; echo >> {folder}/alerts']}}\n"
    return f"jobs:{jobs}receivers:\n{receiver}"


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mainstay]:
    """All four kinds of death, side by side, each run to its end."""
    folder = tmp_path_factory.mktemp("poison")
    mainstay = Mainstay(folder, config_of(folder, KINDS))
    try:
        mainstay.start()
        for kind in KINDS:
            mainstay.post(job_route(kind, "trigger"))
        for number, kind in enumerate(KINDS, 1):
            mainstay.wait_for_end(kind, number)
        yield mainstay
    finally:
        mainstay.close()


def journal(mainstay: Mainstay, kind: str) -> list[int]:
    return [int(line) for line in read(mainstay.folder / f"{kind}.journal").split()]


def alerts(mainstay: Mainstay, kind: str) -> list[str]:
    told = [json.loads(line) for line in read(mainstay.folder / "alerts").splitlines() if line]
    return [one["kind"] for one in told if one["job"] == kind]


def quarantine(mainstay: Mainstay, kind: str, *words: str) -> tuple[int, Json]:
    answer = mainstay.cli("quarantine", kind, *words, "--json")
    assert answer.stdout, answer.stderr
    return answer.returncode, json.loads(answer.stdout)


@pytest.mark.parametrize("kind", KINDS)
def test_a_poison_record_is_set_aside_after_its_second_kill_and_the_rest_is_processed_once(poisoned: Mainstay, kind: str) -> None:
    (run,) = poisoned.runs(kind)
    assert (run["outcome"], run["attempts"]) == ("succeeded", 3)
    _, found = quarantine(poisoned, kind)
    assert [(one["key"], one["outcome"], one["attempt"]) for one in found["records"]] == [(KEY, KINDS[kind], 2)]
    assert sorted(journal(poisoned, kind)) == [number for number in range(RECORDS) if number != 61_803]
    poisoned.wait_for(lambda: "opened" in alerts(poisoned, kind), "the alert")
    assert alerts(poisoned, kind).count("opened") == 1
    metrics = poisoned.metrics()
    assert metrics[f'mainstay_job_quarantined_records{{job_name="{kind}"}}'] == 1
    assert metrics[f'mainstay_job_records_total{{job_name="{kind}",result="quarantined"}}'] == 1
    assert metrics[f'mainstay_job_heal_steps_total{{job_name="{kind}",step="quarantine"}}'] == 1
    _, shown = quarantine(poisoned, kind, "--show", KEY)
    assert shown["report"]["progress"]["record"] == KEY
    assert f"set record '{KEY}' aside: it was in work at 2 deaths running" in shown["report"]["did"]
    assert "without that record" in shown["report"]["will"][0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_replay_dies_alone_as_before_and_with_fixed_code_it_releases_the_record(poisoned: Mainstay, kind: str) -> None:
    before = journal(poisoned, kind)
    refused = poisoned.cli("quarantine", kind, "--replay", KEY, TMPDIR="/proc")  # where nobody can make a folder
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("mainstay: the replay could not begin: cannot write in /proc: ")
    assert refused.stderr.endswith("set TMPDIR to a folder with room that we may write\n")
    checkpoint = read(poisoned.state / "jobs" / kind / "checkpoint.json")
    code, again = quarantine(poisoned, kind, "--replay", KEY)
    assert (code, again["met"], again["released"], again["report"]["outcome"]) == (1, True, False, KINDS[kind])
    assert again["report"]["fingerprint"] == quarantine(poisoned, kind)[1]["records"][0]["fingerprint"]
    assert journal(poisoned, kind) == before

    (poisoned.folder / f"{kind}.fixed").touch()
    code, mended = quarantine(poisoned, kind, "--replay", KEY)
    assert (code, mended["processed"], mended["released"]) == (0, True, True)
    assert quarantine(poisoned, kind)[1]["records"] == []
    assert sorted(journal(poisoned, kind)) == list(range(RECORDS))

    assert read(poisoned.state / "jobs" / kind / "checkpoint.json") == checkpoint
    assert len(poisoned.runs(kind)) == 1
    assert poisoned.job(kind)["state"] == "idle"
    assert poisoned.run_job(kind)["outcome"] == "succeeded"
    assert sorted(journal(poisoned, kind)) == list(range(RECORDS))
