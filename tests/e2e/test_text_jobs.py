"""Jobs in sh and PHP say where they stand in lines of text, leave out what is set aside, and can be replayed."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Mainstay, read

CHILDREN = Path(__file__).resolve().parents[1] / "children"
JOB = """
jobs:
  letters:
    command: [{program}, {script}, {folder}/journal, {folder}/fixed]
    schedule: manual
    restart: {{backoff: {{first: 100ms, max: 100ms}}}}
"""


@pytest.mark.parametrize(("program", "script"), [("sh", "speak.sh"), ("php", "speak.php")])
def test_a_record_that_kills_such_a_job_is_set_aside_and_replayed(
    make: Callable[[str], Mainstay], tmp_path: Path, program: str, script: str
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program} here (package php-cli)")
    mainstay = make(JOB.format(program=program, script=CHILDREN / script, folder=tmp_path)).start()
    assert mainstay.run_job("letters")["attempts"] == 3
    assert read(tmp_path / "journal").split() == ["a", "b", "d", "e"]
    (record,) = json.loads(mainstay.cli("quarantine", "letters", "--json").stdout)["records"]
    assert (record["key"], record["outcome"]) == ("c", "failed")
    if program == "sh":  # what is set aside outlives the brain
        brain = mainstay.brain_pid
        os.kill(brain, signal.SIGKILL)
        mainstay.wait_for(lambda: mainstay.brain_pid != brain, "the next brain")
    report = mainstay.ask("/jobs/letters/quarantine", key="c")["records"][0]["report"]
    assert report["progress"] == {"record": "c", "records": 0, "done": 0, "total": 5, "stage": "letters"}

    assert mainstay.cli("quarantine", "letters", "--replay", "c").returncode == 1
    (tmp_path / "fixed").touch()
    assert mainstay.cli("quarantine", "letters", "--replay", "c").returncode == 0
    assert sorted(read(tmp_path / "journal").split()) == ["a", "b", "c", "d", "e"]
    assert "no record of letters is set aside" in mainstay.cli("quarantine", "letters").stdout


@pytest.mark.parametrize(("program", "script"), [("sh", "speak.sh"), ("php", "speak.php")])
def test_such_a_job_runs_without_mainstay(tmp_path: Path, program: str, script: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program} here (package php-cli)")
    (tmp_path / "fixed").touch()
    clean = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [program, CHILDREN / script, tmp_path / "journal", tmp_path / "fixed"], env=clean, capture_output=True, timeout=60, check=True
    )
    assert (done.stderr, read(tmp_path / "journal").split()) == (b"", ["a", "b", "c", "d", "e"])
