"""Failures that repeat, by a real daemon: parked at the third, a changed environment, a command, each recorded and shown by `why`."""

import sys
from collections.abc import Callable
from pathlib import Path

from harness import Mainstay, read

HEAD = "restart: {backoff: {first: 100ms, max: 100ms}, budget: {restarts: 20}}"
SAME_PLACE = "from supervisor import job; job.progress(7, 9, 'load'); raise SystemExit(3)"
BATCHES = """
import os, sys
from supervisor import job
job.progress(7)
size = int(os.environ.get("BATCH_SIZE", "100"))
print("batch", size, os.path.exists("cleaned"), flush=True)
sys.exit(0 if size == 10 and os.path.exists("cleaned") else 3)
"""


def test_a_job_that_fails_at_the_same_place_three_times_is_parked_and_one_alert_says_so(make: Callable[[str], Mainstay]) -> None:
    mainstay = make(f'jobs:\n  stuck:\n    command: [{sys.executable}, -c, "{SAME_PLACE}"]\n    {HEAD}\n').start()
    assert mainstay.wait_for_state("stuck", "parked")["parked"] == "repeats"
    (run,) = mainstay.runs("stuck")
    assert (run["attempts"], run["outcome"]) == (3, "failed")
    why = mainstay.cli("why", "stuck").stdout
    assert "the same failure at 7 done of 'load', 3 times in sequence: it will repeat" in " ".join(why.split())
    assert "parked (repeats)" in why
    assert mainstay.metrics()['mainstay_job_heal_steps_total{job_name="stuck",step="park"}'] == 1
    (step,) = mainstay.log_events("heal_step_taken")
    assert (step["step"], step["reason"]) == ("park", "repeated")


def test_a_job_that_says_nothing_of_its_input_has_its_whole_budget(make: Callable[[str], Mainstay]) -> None:
    mainstay = make(
        "jobs:\n  mute:\n    command: [sh, -c, 'exit 3']\n    restart: {backoff: {first: 100ms, max: 100ms}, budget: {restarts: 5}}\n"
    ).start()
    assert mainstay.wait_for_state("mute", "parked")["parked"] == "budget_spent"
    assert mainstay.runs("mute")[0]["attempts"] == 6


def test_the_steps_of_heal_are_taken_one_after_the_other_until_one_helps(make: Callable[[str], Mainstay], tmp_path: Path) -> None:
    (tmp_path / "batches.py").write_text(BATCHES)
    steps = "{environment: {BATCH_SIZE: 10}}, {command: [sh, -c, 'echo cleaning; touch cleaned'], time: 10s}, park"
    mainstay = make(
        f"jobs:\n  batches:\n    command: [{sys.executable}, batches.py]\n    directory: {tmp_path}\n    schedule: manual\n"
        f"    heal: {{repeats: 2, failed: [{steps}]}}\n    {HEAD}\n"
    ).start()
    run = mainstay.run_job("batches")
    assert (run["outcome"], run["attempts"]) == ("succeeded", 5)
    output = [read(mainstay.state / "logs" / "batches" / f"{run['run']}.{n}.log").strip() for n in range(1, 6)]
    assert output == ["batch 100 False", "batch 100 False", "batch 10 False", "cleaning", "batch 10 True"]
    assert [one["step"] for one in mainstay.log_events("heal_step_taken")] == ["environment", "command"]
    (ended,) = mainstay.log_events("heal_command_ended")
    assert (ended["attempt"], ended["outcome"]) == (4, "succeeded")
    said = [
        mainstay.ask("/why", run=run["run"])["outcome"],
        mainstay.job("batches")["failures_in_row"],
        mainstay.job("batches")["incidents"],
    ]
    assert said == ["succeeded", 0, []]


def test_a_command_that_hangs_is_ended_at_its_own_limit_and_the_job_goes_on(make: Callable[[str], Mainstay], tmp_path: Path) -> None:
    mainstay = make(
        f"jobs:\n  gone:\n    command: [sh, -c, 'exit 3']\n    directory: {tmp_path}\n    schedule: manual\n"
        f"    heal: {{repeats: 1, failed: [{{command: [sleep, 300], time: 500ms}}, park]}}\n    {HEAD}\n"
    ).start()
    run = mainstay.run_job("gone")
    assert (run["outcome"], run["attempts"]) == ("failed", 3)
    (ended,) = mainstay.log_events("heal_command_ended")
    assert ended["outcome"] == "time"
    assert mainstay.job("gone")["parked"] == "repeats"
    assert mainstay.job("gone")["failures_in_row"] == 2
    why = " ".join(mainstay.cli("why", "gone").stdout.split())
    assert "before, against the same failure: ran sleep (time: It ran for " in why


def test_what_became_of_a_command_that_was_stopped_is_told_with_where_the_job_is_now(
    make: Callable[[str], Mainstay], tmp_path: Path
) -> None:
    mainstay = make(
        f"jobs:\n  cut:\n    command: [sh, -c, 'exit 3']\n    directory: {tmp_path}\n    schedule: manual\n"
        f"    heal: {{repeats: 1, failed: [{{command: [sh, -c, 'touch begun; sleep 300']}}, park]}}\n    {HEAD}\n"
    ).start()
    mainstay.cli("trigger", "cut")
    mainstay.wait_for(lambda: (tmp_path / "begun").exists() or None, "the command")
    mainstay.cli("stop", "cut")
    mainstay.wait_for_state("cut", "paused")
    assert "done against its failure so far: ran sh (stopped: " in " ".join(mainstay.cli("why", "cut").stdout.split())


def test_a_job_that_is_disabled_leaves_nothing_open_and_is_not_proposed_to_be_triggered(make: Callable[[str], Mainstay]) -> None:
    config = "jobs:\n  off:\n    command: [sh, -c, 'exit 3']\n    schedule: manual\n    restart: {when: never}\n"
    mainstay = make(config).start()
    mainstay.run_job("off")
    assert "mainstay trigger off" in mainstay.cli("why", "off").stdout
    mainstay.write_config(config + "    enabled: false\n")
    mainstay.cli("reload")
    (incident,) = mainstay.ask("/incidents")["incidents"]
    assert incident["closed_because"] == "the job was disabled"
    why = mainstay.ask("/why", job="off")
    assert (why["can_start"], why["incident_open"]) == (False, False)
    assert "mainstay trigger off" not in mainstay.cli("why", "off").stdout
